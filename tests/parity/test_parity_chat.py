"""Conversations beside transformers: the text, the token ids, and which tokens are learned."""

import json
from pathlib import Path

import jinja2
import pytest

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from make_chat import CONVERSATIONS, TEMPLATES, parts  # noqa: E402

from tfllm.data.conversations import weighted_documents  # noqa: E402
from tfllm.huggingface.byte_pair_files import read_byte_pair, write_byte_pair  # noqa: E402
from tfllm.huggingface.chat_templates import (  # noqa: E402
    read_chat_template,
    write_chat_template,
)

FIXTURE = Path(__file__).parents[1] / "fixtures" / "chat.json"


def test_the_recorded_fixture_is_what_transformers_says():
    recorded = json.loads(FIXTURE.read_text(encoding="utf-8"))
    assert recorded["conversations"] == CONVERSATIONS
    for name, template in TEMPLATES.items():
        rendered = recorded["templates"][name].pop("rendered")
        assert recorded["templates"][name] == template
        assert rendered == [parts(template, conversation) for conversation in CONVERSATIONS]


@pytest.fixture(params=TEMPLATES)
def folder(request, tmp_path):
    """A tokenizer of transformers with that template, saved."""
    template = TEMPLATES[request.param]
    texts = [message["content"] for talk in CONVERSATIONS for message in talk]
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=template["special_tokens"],
        show_progress=False,
    )
    core.train_from_iterator(texts * 3, trainer)
    bos = template["bos_token"]
    if bos:
        core.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=bos or None,
        eos_token=template["eos_token"],
        chat_template=template["template"],
    )
    theirs.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def read(folder):
    ours = read_byte_pair(folder)
    ours.chat_template = read_chat_template(folder, ours)
    return ours


def test_text_ids_and_mask_are_those_of_transformers(folder):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = read(folder)
    compared = 0
    for conversation in CONVERSATIONS:
        try:
            expected = theirs.apply_chat_template(
                conversation, return_dict=True, return_assistant_tokens_mask=True
            )
        except jinja2.TemplateError:  # which roles there are differs
            continue
        asked = theirs.apply_chat_template(
            conversation, add_generation_prompt=True, return_dict=True
        )
        begin = [ours.bos_id] if ours.begins_with_bos else []
        assert begin + ours.encode(ours.chat_template.render(conversation)) == asked["input_ids"]
        mask = expected["assistant_masks"]
        for found in weighted_documents([{"messages": conversation}], ours):
            assert found == (expected["input_ids"], mask)
            compared += 1
    assert compared >= 3


def test_transformers_reads_the_template_that_we_write(folder, tmp_path):
    ours = read(folder)
    if ours.bos_id < 0:
        assert ours.chat_template.bos_token == ""
    back = tmp_path / "back"
    back.mkdir()
    write_byte_pair(ours, back)
    write_chat_template(ours, back)
    theirs, again = (transformers.AutoTokenizer.from_pretrained(f) for f in (folder, back))
    for conversation in CONVERSATIONS[:3]:
        assert again.apply_chat_template(conversation, tokenize=False) == (
            theirs.apply_chat_template(conversation, tokenize=False)
        )

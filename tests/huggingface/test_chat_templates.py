"""The chat template of a folder of Hugging Face, read and written."""

import json
import shutil
from pathlib import Path

import pytest

import tfllm
from tfllm.chat import chatml
from tfllm.errors import UserError
from tfllm.huggingface.chat_templates import read_chat_template, write_chat_template
from tfllm.tokenizers.byte_alphabet import ALPHABET
from tfllm.tokenizers.byte_pair import BytePairTokenizer

ADDED = [("<s>", 0), ("</s>", 1), ("  ", 2), ("<|user|>", 3), ("<tool>", 4)]


@pytest.fixture(scope="module")
def tokenizer():
    """`<|user|>` and `<tool>` are no special tokens to it."""
    added = [(text, 256 + i, False, False, i < 2) for text, i in ADDED]
    ids = {letter: i for i, letter in enumerate(ALPHABET)}
    return BytePairTokenizer(ids, [], bos_id=256, eos_id=257, added_tokens=added)


def write_config(folder, **config):
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_folder_without_a_template_has_none(tmp_path, tokenizer):
    assert read_chat_template(tmp_path, tokenizer) is None
    write_config(tmp_path, bos_token="<s>")
    assert read_chat_template(tmp_path, tokenizer) is None


def test_the_entry_of_the_configuration_is_read_and_a_file_goes_before_it(tmp_path, tokenizer):
    write_config(tmp_path, chat_template="entry <|user|>")
    found = read_chat_template(tmp_path, tokenizer)
    assert (found.template, found.bos_token, found.eos_token) == ("entry <|user|>", "<s>", "</s>")
    (tmp_path / "chat_template.jinja").write_text("file\n")
    assert read_chat_template(tmp_path, tokenizer).template == "file\n"


def test_special_are_the_tokenizer_s_and_what_else_the_template_writes(tmp_path, tokenizer):
    write_config(tmp_path, chat_template="  <|user|>")
    found = read_chat_template(tmp_path, tokenizer)
    assert found.special_tokens == ("<s>", "</s>", "<|user|>")


def test_the_names_of_bos_and_eos_are_those_of_the_configuration(tmp_path, tokenizer):
    write_config(tmp_path, chat_template="x", bos_token=None, eos_token={"content": "<|user|>"})
    found = read_chat_template(tmp_path, tokenizer)
    assert (found.bos_token, found.eos_token) == ("", "<|user|>")


def test_of_several_templates_the_default_is_read(tmp_path, tokenizer):
    several = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    write_config(tmp_path, chat_template=several)
    assert read_chat_template(tmp_path, tokenizer).template == "d"
    for wrong in (several[:1], [3], {"default": "d"}, [{"name": "default", "template": 3}]):
        write_config(tmp_path, chat_template=wrong)
        with pytest.raises(UserError, match="expected chat_template to be a text, or a list"):
            read_chat_template(tmp_path, tokenizer)


def test_a_file_that_is_no_text_is_refused(tmp_path, tokenizer):
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"chat_template.jinja is damaged"):
        read_chat_template(tmp_path, tokenizer)


def test_what_is_written_is_read_again(tmp_path, tokenizer):
    write_chat_template(tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []
    tokenizer.chat_template = chatml()
    write_config(tmp_path, other=1, eos_token="</s>")
    write_chat_template(tokenizer, tmp_path)
    found = read_chat_template(tmp_path, tokenizer)
    assert (found.template, found.bos_token, found.eos_token) == (chatml().template, "", "</s>")
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["other"] == 1


def test_a_checkpoint_comes_with_its_template_and_takes_it_along(tmp_path):
    shutil.copytree(Path(__file__).parent / "fixtures" / "gpt2", tmp_path / "theirs")
    (tmp_path / "theirs" / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    model = tfllm.from_huggingface(tmp_path / "theirs")
    talk = [{"role": "user", "content": "a<|endoftext|>b"}]
    assert model.chat_template().render(talk) == "ab!"
    tfllm.to_huggingface(model, tmp_path / "back")
    written = (tmp_path / "back" / "chat_template.jinja").read_text()
    assert written == "{{ messages[0].content }}!"

"""Folders with byte-level BPE: what is read of them, what is refused, and what is written."""

import json

import pytest

from tfllm.errors import UserError
from tfllm.huggingface.byte_pair_files import read_byte_pair, write_byte_pair
from tfllm.huggingface.byte_pair_spec import spec_of
from tfllm.tokenizers.added_tokens import AddedToken
from tfllm.tokenizers.byte_alphabet import ALPHABET
from tfllm.tokenizers.byte_pair import BytePairTokenizer
from tfllm.tokenizers.splitting import PATTERNS

END = "<|endoftext|>"
MERGES = [("h", "e"), ("he", "y")]
VOCABULARY = {token: i for i, token in enumerate([*sorted(ALPHABET), "he", "hey", END])}
PLAIN = {"content": END, "id": 258, "special": True, "normalized": False}


@pytest.fixture
def folder(tmp_path):
    """Writes the files that are named: `folder(config=…, spec=…)`; vocab.json always."""

    def make(spec=None, config=None, special=None, added=None, model=None):
        BytePairTokenizer(VOCABULARY, MERGES).save_assets(tmp_path)
        for name, content in (
            ("tokenizer.json", spec),
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", special),
            ("added_tokens.json", added),
            ("config.json", model),
        ):
            if content is not None:
                (tmp_path / name).write_text(json.dumps(content))
        return tmp_path

    return make


def spec(**changes):
    return {**spec_of(VOCABULARY, MERGES, split="gpt2"), "added_tokens": [PLAIN], **changes}


def special_ids(tokenizer):
    return [getattr(tokenizer, f"{name}_id") for name in ("bos", "eos", "pad", "unk")]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"model": {"model_type": "gpt2"}},
        {"config": {"tokenizer_class": "GPT2Tokenizer"}},
        {"config": {"tokenizer_class": "GPT2TokenizerFast"}, "spec": spec()},
    ],
)
def test_a_folder_of_gpt2_is_read(files, folder):
    tokenizer = read_byte_pair(folder(**files))

    assert special_ids(tokenizer) == [258, 258, -1, 258]
    assert tokenizer.encode(f"hey{END}") == [257, 258]
    assert tokenizer.decode([257, 258]) == "hey"
    assert not tokenizer.begins_with_bos
    assert (tokenizer.split, tokenizer.composes) == ("gpt2", False)


def test_each_class_has_its_own_way(folder):
    qwen = read_byte_pair(folder(config={"tokenizer_class": "Qwen2Tokenizer"}))
    roberta = read_byte_pair(folder(config={"tokenizer_class": "RobertaTokenizer"}))

    assert (qwen.split, qwen.composes, special_ids(qwen)) == ("qwen2", True, [-1, 258, 258, 258])
    assert roberta.begins_with_bos
    assert special_ids(roberta) == [259, 260, 262, 261]  # <s>, </s>, <unk>, <pad>: new ones
    assert roberta.vocabulary_size() == 264


def test_merges_may_be_strings_and_the_model_without_a_type(folder):
    model = {"vocab": VOCABULARY, "merges": [" ".join(pair) for pair in MERGES]}

    assert read_byte_pair(folder(spec(model=model))).merges == MERGES


@pytest.mark.parametrize("split", PATTERNS)
def test_what_is_written_is_read(split, tmp_path):
    tokenizer = BytePairTokenizer(
        VOCABULARY,
        MERGES,
        split=split,
        composes=split == "qwen2",
        ignore_merges=split == "llama3",
        add_prefix_space=split == "gpt2",
        bos_id=258,
        eos_id=258,
        pad_id=300,
        added_tokens=[
            AddedToken(END, 258),
            AddedToken("<pad>", 300),
            AddedToken("<tool>", 301, True, False, False),
        ],
        begins_with_bos=split in ("llama3", "gpt2"),
    )

    write_byte_pair(tokenizer, tmp_path)

    found = read_byte_pair(tmp_path)
    assert {**found.get_config(), "name": None} == {**tokenizer.get_config(), "name": None}
    assert (found.vocabulary, found.merges) == (VOCABULARY, MERGES)


def test_the_configuration_overrules_tokenizer_json(folder):
    tokenizer = read_byte_pair(
        folder(
            spec(),
            config={
                "tokenizer_class": "GPT2Tokenizer",
                "add_prefix_space": True,
                "add_bos_token": True,
                "bos_token": {"content": "<s>", "lstrip": False},
                "unk_token": None,
                "added_tokens_decoder": {"259": {"content": "<tool>", "special": False}},
                "extra_special_tokens": ["<more>"],
            },
            special={"pad_token": "<pad>"},
            added={"<old>": 300},
        )
    )

    assert tokenizer.add_prefix_space
    assert tokenizer.begins_with_bos
    assert special_ids(tokenizer) == [301, 258, 302, -1]
    hidden = {token.text: token.hidden for token in tokenizer.added_tokens}
    assert hidden == {
        END: True,
        "<tool>": False,
        "<old>": False,
        "<s>": True,
        "<pad>": True,
        "<more>": True,
    }


def template(*before):
    single = [{"SpecialToken": {"id": token, "type_id": 0}} for token in before]
    return {"type": "TemplateProcessing", "single": [*single, {"Sequence": {"id": "A"}}]}


@pytest.mark.parametrize(
    ("processor", "begins"),
    [
        (None, False),
        ({"type": "ByteLevel"}, False),
        (template(), False),
        (template(END), True),
        ({"type": "Sequence", "processors": [{"type": "ByteLevel"}, template(END)]}, True),
        ({"type": "RobertaProcessing", "cls": [END, 258], "sep": [END, 258]}, True),
    ],
)
def test_what_begins_every_text_is_the_bos(processor, begins, folder):
    tokenizer = read_byte_pair(folder(spec(post_processor=processor)))

    assert tokenizer.begins_with_bos == begins
    assert tokenizer.bos_id == (258 if begins else -1)


def cutter(first, **last):
    return {
        "type": "Sequence",
        "pretokenizers": [first, {"type": "ByteLevel", "add_prefix_space": False, **last}],
    }


SPLIT = {"type": "Split", "pattern": {"Regex": PATTERNS["llama3"]}, "behavior": "Isolated"}
NUMBERS = {"type": "Digits", "individual_digits": True}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pre_tokenizer": None}, r"cuts texts is not known: None. Known are\n  gpt2: "),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "is not known: .*Whitespace"),
        ({"pre_tokenizer": {"type": "ByteLevel", "use_regex": False}}, "is not known"),
        ({"pre_tokenizer": cutter(SPLIT)}, "is not known"),
        (
            {"pre_tokenizer": cutter({**SPLIT, "pattern": {"Regex": "x+"}}, use_regex=False)},
            "is not known",
        ),
        (
            {"pre_tokenizer": cutter({**SPLIT, "behavior": "Removed"}, use_regex=False)},
            "is not known",
        ),
        (
            {"pre_tokenizer": cutter(SPLIT, use_regex=False, add_prefix_space=True)},
            "is not known",
        ),
        (
            {"pre_tokenizer": cutter({**NUMBERS, "individual_digits": False})},
            "is not known",
        ),
        ({"normalizer": {"type": "NFKC"}}, "normalizer .* is not known: .*NFKC"),
        ({"post_processor": {"type": "Odd"}}, "post-processor .* is not known: Odd"),
        ({"post_processor": template(END, END)}, "begins every text with 2 tokens"),
        ({"decoder": None}, "no ByteLevel decoder"),
        ({"model": {"type": "Unigram", "vocab": []}}, "is no BPE: 'Unigram'"),
        ({"model": None}, "is no BPE"),
        (
            {"model": {"vocab": {"a": 0}, "merges": [], "unk_token": "a"}},
            "lacks some of the 256 bytes",
        ),
        (
            {"model": {"vocab": VOCABULARY, "merges": [], "end_of_word_suffix": "</w>"}},
            "end_of_word_suffix='</w>' .* is not supported",
        ),
        ({"added_tokens": [{**PLAIN, "single_word": True}]}, "word of its own only"),
        (
            {
                "normalizer": {"type": "NFC"},
                "added_tokens": [{**PLAIN, "normalized": True}],
            },
            "looked for in the normalized text",
        ),
        (
            {
                "added_tokens": [
                    {"content": "<a", "id": 300, "normalized": False},
                    {"content": "a<", "id": 301, "normalized": True},
                ]
            },
            "overlap, and the one is looked for before the other",
        ),
        (
            {
                "added_tokens": [
                    {"content": "<m>", "id": 300, "normalized": False, "lstrip": True},
                    {"content": "  ", "id": 301, "normalized": False},
                ]
            },
            "takes white space beside it",
        ),
        ({"added_tokens": [{"content": "x>", "id": 3}]}, "gives the id 3 to two tokens"),
        ({"added_tokens": [{"id": 3}]}, "are damaged: KeyError 'content'"),
        ({"model": {"vocab": [], "merges": []}}, "are damaged: "),
    ],
)
def test_what_is_not_supported_is_refused_by_name(changes, words, folder):
    with pytest.raises(UserError, match=words):
        read_byte_pair(folder(spec(**changes)))


def test_spaces_as_added_tokens_are_read_where_the_text_is_composed(folder):
    spaces = {"content": "  ", "id": 300, "normalized": True, "special": False}
    path = folder(spec(normalizer={"type": "NFC"}, added_tokens=[spaces]))

    assert read_byte_pair(path).encode("a  e\u0301") == [
        VOCABULARY["a"],
        300,
        VOCABULARY["Ã"],
        VOCABULARY["©"],
    ]


@pytest.mark.parametrize("name", ["CLIPTokenizer", None])
def test_an_unknown_class_without_tokenizer_json_is_refused(name, folder):
    files = {"config": {"tokenizer_class": name}, "model": {"model_type": "clip"}}

    with pytest.raises(UserError, match="has no tokenizer.json.* are read for GPT2Tokenizer, "):
        read_byte_pair(folder(**files))


def test_a_special_id_that_is_no_added_token_is_not_written(tmp_path):
    with pytest.raises(UserError, match="eos_id=258 is none of the added tokens"):
        write_byte_pair(BytePairTokenizer(VOCABULARY, MERGES, eos_id=258), tmp_path)

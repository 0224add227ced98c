"""BERT's tokenizer files: what says how texts are normalized, and which tokens get which ids."""

import json

import pytest

from tfllm.errors import UserError
from tfllm.huggingface.wordpiece_files import read_wordpiece, write_wordpiece
from tfllm.tokenizers.added_tokens import AddedToken
from tfllm.tokenizers.wordpiece import WordPieceTokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "é", "A"]
LISTED = "\n".join([*PIECES, ""])


def fast(**changes):
    """A tokenizer.json; each change is of one of its parts."""
    parts = {
        "added_tokens": [{"id": 4, "content": "[MASK]", "special": True, "normalized": False}],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": False,
            "strip_accents": False,
            "lowercase": False,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 3,
            "vocab": {piece: i for i, piece in enumerate(PIECES)},
        },
    }
    for name, change in changes.items():
        parts[name] = parts[name] | change if isinstance(parts[name], dict) else change
    return parts


@pytest.fixture
def folder_with(tmp_path):
    """Writes a folder of files given by their names, "_" for ".", as texts or for JSON."""

    def write(**files):
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            stem, kind = name.rsplit("_", 1)
            (tmp_path / f"{stem}.{kind}").write_bytes(text.encode())
        return tmp_path

    return write


def test_a_vocabulary_alone_is_lowered(folder_with):
    tokenizer = read_wordpiece(folder_with(vocab_txt=LISTED.replace("\n", "\r\n")))

    assert tokenizer.pieces == PIECES
    assert tokenizer.encode("A É[MASK]") == [5, 1, 4]
    assert [token.text for token in tokenizer.added_tokens] == [
        *("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]")
    ]


def test_the_settings_of_bert_are_those_of_tokenizer_config(folder_with):
    settings = {
        "tokenizer_class": "BertTokenizerFast",
        "do_lower_case": False,
        "strip_accents": True,
        "tokenize_chinese_chars": False,
    }
    folder = folder_with(tokenizer_config_json=settings, tokenizer_json=fast())

    tokenizer = read_wordpiece(folder)

    assert (tokenizer.lowercase, tokenizer.strip_accents) == (False, True)
    assert not tokenizer.tokenize_chinese_chars
    assert tokenizer.max_characters_per_word == 100


def test_a_checkpoint_without_tokenizer_config_is_lowered_whatever_tokenizer_json_says(folder_with):
    folder = folder_with(config_json={"model_type": "bert"}, tokenizer_json=fast())

    tokenizer = read_wordpiece(folder)

    assert (tokenizer.lowercase, tokenizer.strip_accents) == (True, None)


@pytest.mark.parametrize("config", [None, {"tokenizer_class": "PreTrainedTokenizerFast"}])
def test_another_class_is_what_tokenizer_json_says(folder_with, config):
    files = {"tokenizer_json": fast()} | ({"tokenizer_config_json": config} if config else {})

    tokenizer = read_wordpiece(folder_with(**files))

    assert (tokenizer.lowercase, tokenizer.strip_accents) == (False, False)
    assert not tokenizer.tokenize_chinese_chars
    assert tokenizer.encode("A É abb abbb [MASK] [CLS]") == [8, 1, 5, 6, 6, 1, 4, 1, 1, 1]
    assert tokenizer.added_tokens == (AddedToken("[MASK]", 4),)


def test_special_tokens_that_the_vocabulary_has_not_get_the_next_ids(folder_with):
    folder = folder_with(
        vocab_txt="[PAD]\n[UNK]\na\n",
        tokenizer_config_json={"additional_special_tokens": ["<x>", "a"]},
        special_tokens_map_json={"mask_token": {"content": "<m>", "lstrip": True}},
        added_tokens_json={"new": 3},
    )

    tokenizer = read_wordpiece(folder)

    assert tokenizer.get_vocabulary() == [
        *("[PAD]", "[UNK]", "a", "new", "[SEP]", "[CLS]", "<m>", "<x>")
    ]
    assert tokenizer.encode("aNEW <m><x>") == [2, 3, 6, 7]
    assert (tokenizer.mask_id, tokenizer.cls_id) == (6, 5)
    assert tokenizer.decode([2, 3, 6, 7, 4]) == "new"


def test_tokens_listed_with_ids_go_before_the_map(folder_with):
    token = {"content": "<m>", "lstrip": True, "special": True, "normalized": False}
    folder = folder_with(
        vocab_txt=LISTED,
        tokenizer_config_json={
            "mask_token": "<m>",
            "added_tokens_decoder": {"9": token, "10": {"content": "Xy"}},
        },
        special_tokens_map_json={"mask_token": "[MASK]"},
    )

    tokenizer = read_wordpiece(folder)

    assert tokenizer.mask_id == 9
    assert AddedToken("<m>", 9, lstrip=True) in tokenizer.added_tokens
    assert AddedToken("Xy", 10, hidden=False, normalized=True) in tokenizer.added_tokens


TOKENIZERS = {
    "BertTokenizer": {"lowercase": False, "strip_accents": True},
    "PreTrainedTokenizerFast": {
        "max_characters_per_word": 5,
        "tokenize_chinese_chars": False,
        "added_tokens": [("[CLS]", 2), ("Ab", 9, False, True, False, True)],
    },
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_what_is_written_is_read_as_it_was(kind, tmp_path):
    tokenizer = WordPieceTokenizer(PIECES, **TOKENIZERS[kind])

    write_wordpiece(tokenizer, tmp_path, max_length=9)
    read = read_wordpiece(tmp_path)

    assert read.get_config() | {"name": "", "added_tokens": None} == (
        tokenizer.get_config() | {"name": "", "added_tokens": None}
    )
    assert sorted(read.added_tokens) == sorted(tokenizer.added_tokens)
    assert read.pieces == PIECES
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["tokenizer_class"], config["model_max_length"]) == (kind, 9)


def test_what_frames_a_text_is_written_where_its_tokens_are(tmp_path):
    write_wordpiece(WordPieceTokenizer(PIECES), tmp_path)
    framed = json.loads((tmp_path / "tokenizer.json").read_text())["post_processor"]
    write_wordpiece(WordPieceTokenizer(["[UNK]", "[CLS]"]), tmp_path)
    bare = json.loads((tmp_path / "tokenizer.json").read_text())["post_processor"]

    assert [list(part.values())[0]["id"] for part in framed["single"]] == ["[CLS]", "A", "[SEP]"]
    assert [list(part.values())[0]["type_id"] for part in framed["pair"]] == [0, 0, 0, 1, 1]
    assert framed["special_tokens"]["[SEP]"]["ids"] == [3]
    assert bare is None


REFUSED = [
    ({}, r"holds no WordPiece tokenizer: it has no tokenizer.json, and its vocab.txt cannot"),
    (
        {"vocab_txt": LISTED, "tokenizer_config_json": {"tokenizer_class": "T5Tokenizer"}},
        "is for a T5Tokenizer; without a tokenizer.json expected is one of BertTokenizer, Dist",
    ),
    ({"tokenizer_json": fast(model={"type": "BPE"})}, "holds a BPE model; expected a WordPiece"),
    ({"tokenizer_json": fast(model={"vocab": {"a": 0, "b": 2}})}, r"must be 0 to 1, each once"),
    (
        {"tokenizer_json": fast(normalizer={"type": "NFC"})},
        r"The normalizer in .* is 'NFC'; a Word",
    ),
    ({"tokenizer_json": fast(normalizer={"clean_text": False})}, "normalizer's clean_text in"),
    ({"tokenizer_json": fast(pre_tokenizer={"type": "Whitespace"})}, "The pre_tokenizer in"),
    ({"tokenizer_json": fast(model={"continuing_subword_prefix": "_"})}, "The model's prefix in"),
    ({"tokenizer_json": fast(decoder={"cleanup": False})}, "The decoder in"),
    (
        {"tokenizer_json": fast(added_tokens=[{"id": 4, "content": "a", "single_word": True}])},
        r"the added token 'a' is for whole words only \(single_word\)",
    ),
    ({"tokenizer_json": {"model": {}}}, "not as `transformers` writes them: KeyError 'vocab'"),
]


@pytest.mark.parametrize(("files", "words"), REFUSED)
def test_what_this_tokenizer_cannot_be_is_refused(folder_with, files, words):
    with pytest.raises(UserError, match=words):
        read_wordpiece(folder_with(**files))

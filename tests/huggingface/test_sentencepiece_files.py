"""Tokenizer files of T5 and Marian: what `transformers` answered, recorded, is what ours answer."""

import base64
import io
import json
from pathlib import Path

import pytest
import sentencepiece
import tensorflow as tf
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from tfllm.errors import UserError
from tfllm.huggingface.sentencepiece_files import (
    read_llama,
    read_marian,
    read_t5,
    write_marian,
    write_t5,
)
from tfllm.tokenizers import train_sentencepiece
from tfllm.tokenizers.added_tokens import AddedToken

RECORDED = json.loads(
    (Path(__file__).parent / "fixtures" / "sentencepiece.json").read_text(encoding="utf-8")
)
READERS = {"marian": read_marian, "marian_separate": read_marian, "t5": read_t5, "t5_fast": read_t5}


def write_files(files, folder):
    for name, content in files.items():
        if isinstance(content, str):
            (folder / name).write_bytes(base64.b64decode(content))
        else:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def folder(request, tmp_path):
    """The folder of the case that the test is marked with."""
    write_files(RECORDED[request.param]["files"], tmp_path)
    return tmp_path


@pytest.fixture(scope="module", params=READERS)
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_files(RECORDED[request.param]["files"], folder)
    return READERS[request.param](folder), RECORDED[request.param]


def test_texts_give_the_recorded_ids(case):
    tokenizer, recorded = case

    assert tokenizer.encode_batch(recorded["texts"]) == recorded["ids"]
    assert tokenizer.tokenize(tf.constant(recorded["texts"])).to_list() == recorded["ids"]


def test_any_ids_give_the_recorded_texts(case):
    tokenizer, recorded = case
    graph = tokenizer.detokenize(tf.ragged.constant(recorded["rows"], tf.int32)).numpy()

    assert [tokenizer.decode(row) for row in recorded["rows"]] == recorded["decoded"]
    assert [text.decode() for text in graph] == recorded["decoded"]


def test_joined_bytes_finished_as_a_whole_text_are_the_recorded_texts(case):
    tokenizer, recorded = case
    table = tokenizer.token_bytes()
    raw = [b"".join(table[i] for i in row) for row in recorded["rows"]]

    finished = tokenizer.finish_whole_text(tf.constant(raw)).numpy()

    assert [text.decode() for text in finished] == recorded["decoded"]
    assert [tokenizer.finish_whole_bytes(text) for text in raw] == recorded["decoded"]


def test_special_tokens_have_the_recorded_ids(case):
    tokenizer, recorded = case

    ids = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.eos_id]

    assert ids == recorded["special_ids"]
    assert tokenizer.bos_id == -1
    assert not tokenizer.begins_with_bos


@pytest.mark.parametrize("name", ["marian", "marian_separate"])
def test_translations_give_the_recorded_ids(name, tmp_path):
    write_files(RECORDED[name]["files"], tmp_path)
    tokenizer, recorded = read_marian(tmp_path), RECORDED[name]

    assert tokenizer.encode_target(recorded["texts"]) == recorded["target_ids"]
    assert tokenizer.tokenize_target(recorded["texts"]).to_list() == recorded["target_ids"]
    assert recorded["target_ids"] != recorded["ids"]


@pytest.mark.parametrize("name", READERS)
def test_what_is_written_is_read_as_it_was(name, tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir(), after.mkdir()
    write_files(RECORDED[name]["files"], before)
    read, write = READERS[name], write_marian if "marian" in name else write_t5
    tokenizer = read(before)

    write(tokenizer, after)

    again = read(after)
    assert again.added_tokens == tokenizer.added_tokens
    texts = RECORDED[name]["texts"]
    assert again.encode_batch(texts) == tokenizer.encode_batch(texts)
    assert again.token_bytes() == tokenizer.token_bytes()
    if "marian" in name:
        assert again.vocabularies == tokenizer.vocabularies
        assert again.models == tokenizer.models


@pytest.mark.parametrize("folder", ["t5"], indirect=True)
def test_the_first_extra_id_is_the_highest_id(folder):
    tokenizer = read_t5(folder)

    assert tokenizer.token_to_id("<extra_id_0>") == tokenizer.vocabulary_size() - 1
    assert tokenizer.encode("<extra_id_0><extra_id_3>") == [
        tokenizer.vocabulary_size() - 1,
        tokenizer.vocabulary_size() - 4,
    ]
    assert tokenizer.id_to_token(tokenizer.vocabulary_size() - 1) == "<extra_id_0>"


@pytest.mark.parametrize("folder", ["t5"], indirect=True)
def test_a_hundred_extra_ids_are_taken_for_granted(folder):
    (folder / "tokenizer_config.json").unlink()

    assert len(read_t5(folder).added_tokens) == 103


@pytest.mark.parametrize("folder", ["t5"], indirect=True)
def test_the_flags_of_added_tokens_are_read(folder):
    size = len(ModelProto.FromString((folder / "spiece.model").read_bytes()).pieces)
    entry = {"content": "<extra_id_0>", "lstrip": True, "rstrip": True, "special": False}
    config = {"extra_ids": 1, "added_tokens_decoder": {str(size): {**entry, "normalized": False}}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))

    tokenizer = read_t5(folder)

    assert AddedToken("<extra_id_0>", size, True, True, False) in tokenizer.added_tokens
    assert tokenizer.decode([size]) == "<extra_id_0>"


def test_a_folder_without_a_tokenizer_of_t5_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected spiece.model, or a tokenizer.json"):
        read_t5(tmp_path)


@pytest.mark.parametrize("folder", ["marian"], indirect=True)
@pytest.mark.parametrize("missing", ["source.spm", "target.spm", "vocab.json"])
def test_a_missing_file_of_marian_is_named(folder, missing):
    (folder / missing).unlink()

    with pytest.raises(UserError, match=f"Cannot read .*{missing}"):
        read_marian(folder)


@pytest.mark.parametrize("folder", ["marian"], indirect=True)
@pytest.mark.parametrize("content", ['{"a": "b"}', "{}", '{"a": -1}', '{"a": true}'])
def test_a_vocabulary_that_is_none_is_refused(folder, content):
    (folder / "vocab.json").write_text(content)

    with pytest.raises(UserError, match="vocab.json must give each piece an id"):
        read_marian(folder)


@pytest.mark.parametrize("folder", ["t5_fast"], indirect=True)
@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("model", {"type": "BPE"}, "model"),
        ("model", {"byte_fallback": True}, "byte_fallback"),
        ("pre_tokenizer", {"type": "ByteLevel"}, "pre_tokenizer"),
        ("pre_tokenizer", {"type": "Metaspace", "prepend_scheme": "first"}, "prefix"),
        ("normalizer", {"type": "Lowercase"}, "normalizer"),
    ],
)
def test_a_file_that_says_something_else_needs_the_original_model(folder, part, change, named):
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec[part] = {**(spec[part] or {}), **change}
    (folder / "tokenizer.json").write_text(json.dumps(spec))

    with pytest.raises(UserError, match=rf"The .*{named} in .*json is .*Put spiece.model into"):
        read_t5(folder)


@pytest.mark.parametrize("folder", ["t5_fast"], indirect=True)
def test_two_files_that_contradict_each_other_are_refused(folder):
    files = RECORDED["t5"]["files"]
    write_files({"spiece.model": files["spiece.model"]}, folder)
    read_t5(folder)
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["model"]["vocab"][5][0] = "other"
    (folder / "tokenizer.json").write_text(json.dumps(spec))

    with pytest.raises(UserError, match="spiece.model and tokenizer.json hold other vocabularies"):
        read_t5(folder)


def test_a_model_that_keeps_every_text_cannot_be_written(tmp_path):
    tokenizer = train_sentencepiece(["a b c d"] * 20, vocabulary_size=270)

    with pytest.raises(UserError, match="transformers has no tokenizer that keeps every text"):
        write_t5(tokenizer, tmp_path)


@pytest.fixture
def llama(tmp_path):
    """A folder with a model as Llama has it, and SentencePiece's own."""
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat", "the dog ate the hat"] * 50),
        model_writer=proto,
        model_type="bpe",
        vocab_size=300,
        hard_vocab_limit=False,
        byte_fallback=True,
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(proto.getvalue())
    return tmp_path, sentencepiece.SentencePieceProcessor(model_proto=proto.getvalue())


def test_llama_reads_texts_between_special_tokens_as_sentencepiece_does(llama):
    folder, processor = llama
    tokenizer = read_llama(folder)
    the = processor.encode("the")

    assert tokenizer.begins_with_bos
    assert tokenizer.encode("the</s>the") == [*the, 2, *the]
    assert tokenizer.encode(" the") == processor.encode(" the")
    assert tokenizer.decode([1, *the, 0, 2, *the]) == "the the"


def test_llama_puts_the_prefix_where_its_tokenizer_json_says(llama):
    folder, processor = llama
    spec = {"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    tokenizer = read_llama(folder)
    the = processor.encode("the")

    assert tokenizer.encode("the</s>the") == [*the, 2, *tokenizer.encode("</s>the")[1:]]
    assert processor.decode(tokenizer.encode("</s>the")[1:]) == "the"
    assert tokenizer.encode("</s>the")[1:] != the
    assert tokenizer.encode(" the") == the
    assert tokenizer.encode("") == []


def test_llama_reads_added_tokens_and_whether_it_begins_with_one(llama):
    folder, processor = llama
    size = processor.get_piece_size()
    config = {
        "add_bos_token": False,
        "added_tokens_decoder": {str(size): {"content": "<|im|>", "special": True}},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))

    tokenizer = read_llama(folder)

    assert not tokenizer.begins_with_bos
    assert tokenizer.encode("<|im|>") == [size]
    assert tokenizer.vocabulary_size() == size + 1


def test_a_folder_without_a_model_of_llama_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected tokenizer.model or tokenizer.model.v1"):
        read_llama(tmp_path)

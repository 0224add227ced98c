"""Saving and loading of byte-level BPE, and the files that it reads."""

import json
import os
import threading

import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers import load_tokenizer
from tfllm.tokenizers.byte_pair import BytePairTokenizer
from tfllm.tokenizers.byte_pair_training import train_byte_pair

TEXT = "It's 2024, isn't it? 你好，世界。\n\n\tdef f(x):  return x\n"


@pytest.fixture(scope="module")
def byte_pair():
    return train_byte_pair([TEXT] * 3, vocabulary_size=300, split="qwen2", composes=True)


def test_a_saved_tokenizer_is_loaded_as_it_was(byte_pair, tmp_path):
    byte_pair.save(tmp_path / "tokenizer")

    loaded = load_tokenizer(tmp_path / "tokenizer")

    assert loaded.get_config() == byte_pair.get_config()
    assert loaded.vocabulary == byte_pair.vocabulary
    assert loaded.merges == byte_pair.merges
    assert loaded.encode(TEXT) == byte_pair.encode(TEXT)


def test_the_configuration_and_the_assets_together_are_the_tokenizer(byte_pair, tmp_path):
    config = byte_pair.get_config()
    byte_pair.save_assets(tmp_path)

    copy = BytePairTokenizer.from_config(json.loads(json.dumps(config)))
    copy.load_assets(tmp_path)

    assert copy.get_config() == config
    assert copy.encode(TEXT) == byte_pair.encode(TEXT)
    assert sorted(os.listdir(tmp_path)) == sorted(byte_pair.file_assets)
    assert "merges" not in config


def test_it_is_made_from_the_paths_of_its_files(byte_pair, tmp_path):
    byte_pair.save_assets(tmp_path)

    copy = BytePairTokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt")

    assert copy.merges == byte_pair.merges
    assert copy.vocabulary == byte_pair.vocabulary


def test_merges_may_have_a_version_line_or_none_and_any_line_ends(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2, "#": 3, "##": 4}')
    for text in ("#version: 0.2\na b\n# #\n", "a b\n# #", "#version: 1\r\na b\r\n# #\r\n"):
        (tmp_path / "merges.txt").write_bytes(text.encode())

        tokenizer = BytePairTokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt")

        assert tokenizer.merges == [("a", "b"), ("#", "#")]


def test_threads_and_tf_data_give_the_same_ids(byte_pair):
    texts = [TEXT * n for n in range(8)]
    expected = byte_pair.encode_batch(texts)
    found: dict[int, list] = {}

    threads = [
        threading.Thread(target=lambda n=n: found.update({n: byte_pair.encode_batch(texts)}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tf.random.set_seed(1)
    mapped = tf.data.Dataset.from_tensor_slices(texts).batch(4).map(byte_pair.tokenize).unbatch()

    assert list(found.values()) == [expected] * 4
    assert [row.numpy().tolist() for row in mapped] == expected


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("vocab.json", b"{", "vocab.json is not a vocabulary in JSON"),
        ("vocab.json", b"\xff", "vocab.json is not a vocabulary in JSON"),
        ("vocab.json", b"[]", "vocab.json is not a vocabulary: expected an object"),
        ("vocab.json", b'{"a": "b"}', "a number of its own"),
        ("vocab.json", None, "Cannot read the vocabulary .*vocab.json .No such file"),
        ("merges.txt", b"\xff", "merges.txt is not a list of merges in UTF-8"),
        ("merges.txt", b"a b c\n", "A merge is a pair of tokens"),
        ("merges.txt", None, "Cannot read the merges .*merges.txt .No such file"),
    ],
)
def test_broken_files_are_refused_by_name(name, content, words, byte_pair, tmp_path):
    byte_pair.save_assets(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(UserError, match=words):
        BytePairTokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt")

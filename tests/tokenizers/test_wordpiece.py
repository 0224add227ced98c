"""WordPiece: the ids, places and texts that Hugging Face has, from both faces and everywhere."""

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.added_tokens import AddedToken
from tfllm.tokenizers.bert_normalizer import BertNormalizer
from tfllm.tokenizers.tokenizer import Tokenizer
from tfllm.tokenizers.wordpiece import WordPieceTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
RECORDED = json.loads((Path(__file__).parent / "fixtures" / "wordpiece.json").read_text())
TEXTS = RECORDED["texts"]


def tokenizer_for(lowercase=True, strip_accents=None, chinese=True, **kwargs):
    return WordPieceTokenizer(
        RECORDED["vocabulary"],
        lowercase=lowercase,
        strip_accents=strip_accents,
        tokenize_chinese_chars=chinese,
        **kwargs,
    )


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_for()


def places(tokenizer, texts):
    """For each text the ids, and a [start, end] for each of them."""
    ids, starts, ends = tokenizer.tokenize_with_offsets(tf.constant(texts))
    pairs = tf.stack([starts, ends], -1)
    return ids.to_list(), pairs.to_list()


@pytest.mark.parametrize("answers", RECORDED["answers"], ids=lambda a: str(a["settings"]))
def test_ids_and_offsets_are_those_of_tokenizers(answers):
    tokenizer = tokenizer_for(*answers["settings"])

    ids, offsets = places(tokenizer, TEXTS)

    assert ids == answers["ids"]
    assert offsets == answers["offsets"]
    assert tokenizer.encode_batch(TEXTS) == answers["ids"]


@pytest.mark.parametrize("answers", RECORDED["answers"][:3], ids=lambda a: str(a["settings"]))
def test_every_code_point_gives_the_words_that_it_gives_in_tokenizers(answers):
    lowercase, strip_accents, chinese = answers["settings"]
    strips = lowercase if strip_accents is None else strip_accents
    normalizer = BertNormalizer(lowercase, strips, chinese)
    words = tf.function(
        lambda texts: normalizer.words(texts).texts,
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    code_points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    digest = hashlib.sha256()

    for start in range(0, len(code_points), 4096):
        text = " ".join(f"a{chr(c)}B" for c in code_points[start : start + 4096])
        digest.update(b"\n".join([*words([text.encode()]).numpy(), b""]))

    assert digest.hexdigest() == answers["digest"]


def test_texts_are_decoded_as_tokenizers_does_in_both_faces():
    recorded = RECORDED["decoding"]
    tokenizer = WordPieceTokenizer(recorded["vocabulary"])
    ragged = tf.ragged.constant(recorded["ids"], tf.int32)

    for ids in (ragged, ragged.to_tensor(-1), tf.cast(ragged.to_tensor(10**6), tf.int64)):
        texts = [text.decode() for text in tokenizer.detokenize(ids).numpy()]
        assert texts == recorded["texts"]
    assert [tokenizer.decode(ids) for ids in recorded["ids"]] == recorded["texts"]


def test_the_bytes_of_a_continuation_begin_with_its_space():
    tokenizer = WordPieceTokenizer([*SPECIAL, "a", "##b", "."])

    assert tokenizer.token_bytes() == [b""] * 5 + [b" a", b"b", b"."]
    assert tokenizer.decode([5, 6, 2, 7, 5]) == "ab. a"
    assert tokenizer.decode([2, 6]) == "##b"  # nothing before it that it could continue


def test_a_row_does_not_depend_on_its_neighbours(tokenizer):
    texts = [*TEXTS, "\u0323\u0301x", "\u0301", "e", "\u0323"]  # marks that would be sorted
    order = list(range(len(texts)))
    random.Random(0).shuffle(order)

    ids, offsets = places(tokenizer, texts)
    shuffled = places(tokenizer, [texts[i] for i in order])

    assert [ids[i] for i in order] == shuffled[0]
    assert [offsets[i] for i in order] == shuffled[1]
    for i in (5, 50, 100):
        assert places(tokenizer, [texts[i]]) == ([ids[i]], [offsets[i]])


def test_invalid_bytes_and_surrogates_are_read_as_replacement_characters(tokenizer):
    strings = [b"a\xff\xe4\xbdb", b"\xf0\x9f\x91 a", b"a"]
    texts = [string.decode("utf-8", "replace") for string in strings]

    assert tokenizer.encode_batch(strings) == tokenizer.encode_batch(texts)
    assert places(tokenizer, strings) == places(tokenizer, texts)
    assert tokenizer.encode("a\ud800b") == tokenizer.encode("a\ufffdb")


def test_no_rows_and_empty_ones(tokenizer):
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.tokenize_with_offsets(tf.constant([], tf.string))[1].to_list() == []
    assert places(tokenizer, ["", " \n", "\x00"]) == ([[], [], []], [[], [], []])
    assert tokenizer.detokenize([]).numpy() == b""
    assert tokenizer.detokenize(tf.zeros([2, 0], tf.int32)).numpy().tolist() == [b"", b""]
    assert tokenizer.detokenize(tf.zeros([0, 3], tf.int32)).numpy().tolist() == []


def test_words_of_more_characters_than_the_limit_are_unknown():
    pieces = [*SPECIAL, "a", "##a", "é", "##é"]
    tokenizer = WordPieceTokenizer(pieces, lowercase=False, max_characters_per_word=3)

    assert tokenizer.encode("aaa ééé aaaa éééé a") == [5, 6, 6, 7, 8, 8, 1, 1, 5]
    assert places(tokenizer, ["aaa éééé a"])[1] == [[[0, 1], [1, 2], [2, 3], [4, 8], [9, 10]]]


def test_of_equal_pieces_the_last_counts_and_impossible_ones_are_never_found():
    tokenizer = WordPieceTokenizer([*SPECIAL, "a", "", "a", "b" * 300, " "])

    assert tokenizer.encode("a " + "b" * 300) == [7, 1]
    assert tokenizer.token_to_id("a") == 7
    assert tokenizer.id_to_token(5) == "a"
    assert tokenizer.decode([5, 7, 5]) == "a"


ADDED = [
    AddedToken("<l>", 10, lstrip=True),
    AddedToken("<r>", 11, rstrip=True, hidden=False),
    AddedToken("Café", 12, hidden=False, normalized=True),
    AddedToken("中a", 13, normalized=True),
]


def test_added_tokens_take_white_space_and_are_found_in_texts_as_they_are_or_normalized():
    tokenizer = WordPieceTokenizer(
        [*SPECIAL, "a", "b", "##b", "x", "##x"],
        added_tokens=[AddedToken("[UNK]", 1), AddedToken("[MASK]", 4), *ADDED],
    )
    text = "a \u3000<l> b<r>\x85 xCAFE\u0301bb 中A[MASK] [mask]"

    ids, offsets = places(tokenizer, [text])

    assert ids == [[5, 10, 6, 11, 8, 12, 6, 7, 13, 4, 1, 1, 1]]
    assert [text[start:end] for start, end in offsets[0]] == [
        "a",
        " \u3000<l>",
        "b",
        "<r>\x85 ",
        "x",
        "CAFE",  # what is stripped is in no place
        "b",
        "b",
        "中A",
        "[MASK]",
        "[",
        "mask",
        "]",
    ]
    assert tokenizer.encode(text) == ids[0]
    assert tokenizer.decode(ids[0]) == "a b <r> x cafe bb  中 a"
    assert tokenizer.vocabulary_size() == 14
    assert tokenizer.token_to_id("Café") == 12


def test_normalized_tokens_are_not_looked_for_in_texts_as_they_are():
    added = [AddedToken("b", 6, normalized=True), AddedToken("Ab", 7, normalized=True)]
    tokenizer = WordPieceTokenizer([*SPECIAL, "a"], added_tokens=added)

    assert tokenizer.encode("ab b") == [7, 6]
    assert places(tokenizer, ["ab b"]) == ([[7, 6]], [[[0, 2], [3, 4]]])


def test_special_ids_follow_the_texts_of_the_special_tokens():
    tokenizer = WordPieceTokenizer(["<unk>", "a", "<cls>"], special_tokens={"unk": "<unk>"})

    assert (tokenizer.unk_id, tokenizer.cls_id, tokenizer.mask_id) == (0, -1, -1)
    assert tokenizer.padding_id == 0
    tokenizer = WordPieceTokenizer(
        ["<unk>", "a", "<cls>"], special_tokens={"unk": "<unk>", "cls": "<cls>", "mask": "<m>"}
    )
    assert (tokenizer.cls_id, tokenizer.bos_id, tokenizer.eos_id) == (2, 2, -1)
    assert tokenizer.encode("a<cls>a<m>") == [1, 2, 1, 0, 0, 0]


def test_tokens_and_ids_are_each_others_inverse(tokenizer):
    vocabulary = tokenizer.get_vocabulary()

    assert [tokenizer.token_to_id(token) for token in vocabulary] == list(range(len(vocabulary)))
    assert [tokenizer.id_to_token(i) for i in range(len(vocabulary))] == vocabulary
    assert tokenizer.token_to_id("no such piece") == tokenizer.unk_id == 1


@pytest.mark.parametrize("given", [None, [AddedToken("[MASK]", 4), AddedToken("!", 500, True)]])
def test_a_saved_tokenizer_is_loaded_as_it_was(given, tmp_path):
    tokenizer = tokenizer_for(False, True, False, added_tokens=given)
    tokenizer.save(tmp_path / "tokenizer")

    loaded = Tokenizer.from_preset(tmp_path / "tokenizer")

    assert loaded.get_config() == tokenizer.get_config()
    assert loaded.added_tokens == tokenizer.added_tokens
    assert loaded.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assets = tmp_path / "tokenizer" / "assets" / "tokenizer"
    assert os.listdir(assets) == ["vocab.txt"]
    assert (assets / "vocab.txt").read_text().split("\n") == [*RECORDED["vocabulary"], ""]


def test_setting_the_seed_does_not_lose_the_model(tokenizer):
    graph = tf.function(tokenizer.tokenize)
    before = graph(tf.constant(TEXTS)).to_list()

    tf.random.set_seed(1)

    assert graph(tf.constant(TEXTS)).to_list() == before == tokenizer.encode_batch(TEXTS)


def test_threads_get_the_answers_of_one():
    expected = RECORDED["answers"][0]["ids"]
    fresh = tokenizer_for()  # the threads race to its first use
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(fresh.encode_batch(TEXTS))) for _ in range(4)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [expected] * 4


def test_it_maps_over_a_dataset(tokenizer):
    dataset = tf.data.Dataset.from_tensor_slices(TEXTS).batch(50).map(tokenizer)

    assert [row for batch in dataset for row in batch.to_list()] == tokenizer.encode_batch(TEXTS)


SERVE = """
import json, sys
import tensorflow as tf
import tensorflow_text

texts = json.load(sys.stdin)
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    signatures = tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1]).signature_def
    served = signatures["serving_default"]
    outputs = {k: v.name for k, v in served.outputs.items()}
    name = served.inputs["text"].name
    answer = session.run(outputs, {name: [text.encode() for text in texts]})
    empty = session.run(outputs, {name: []})
assert not {"tfllm", "keras_hub", "tokenizers"} & set(sys.modules), "only TensorFlow is needed"
texts = [text.decode() for text in answer.pop("decoded").tolist()]
json.dump([{k: v.tolist() for k, v in answer.items()}, texts, len(empty["ids"])], sys.stdout)
"""


def test_a_saved_model_tokenizes_where_this_package_is_not(tmp_path):
    tokenizer = tokenizer_for(
        added_tokens=[AddedToken("[MASK]", 4), AddedToken("Hello", 500, normalized=True)]
    )
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(text):
        ids, starts, ends = (x.to_tensor(-1) for x in tokenizer.tokenize_with_offsets(text))
        again = tokenizer.tokenize(text).to_tensor(-1)
        decoded = tokenizer.detokenize(ids)
        return {"ids": ids, "starts": starts, "ends": ends, "again": again, "decoded": decoded}

    module.serve = serve
    tf.saved_model.save(module, tmp_path, signatures=serve)

    done = subprocess.run(
        [sys.executable, "-c", SERVE, tmp_path],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    answer, texts, rows_of_none = json.loads(done.stdout)
    here = serve(tf.constant(TEXTS))
    assert answer == {name: here[name].numpy().tolist() for name in answer}
    assert answer["ids"] == answer["again"]
    assert texts == [text.decode() for text in here["decoded"].numpy()]
    assert rows_of_none == 0


def test_what_cannot_be_a_tokenizer_is_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"[UNK]\n\xe9\n")
    refused = [
        (["a"], {}, r"has no '\[UNK\]', which words need"),
        (["a"], {"special_tokens": {"unk": "<unk>"}}, "has no '<unk>'"),
        (["[UNK]", "a\nb"], {}, r"a string of one line; piece 1 is 'a\\nb'"),
        (["[UNK]", 7], {}, "a string of one line; piece 1 is 7"),
        (["[UNK]", "é" * 99 + "中" * 60], {"max_characters_per_word": 200}, "exceeds the max"),
        (["[UNK]"], {"special_tokens": {"msk": "x"}}, "has 'msk'; expected some of pad, unk"),
        (["[UNK]", "a"], {"added_tokens": [("a", 2)]}, r"'a' has the id 2, where .* there is 1"),
        (["[UNK]", "a"], {"added_tokens": [("b", 1)]}, "'b' has the id 1, where .* has 'a'"),
        (["[UNK]"], {"added_tokens": [("\x00", 1, False, False, True, True)]}, "nothing is left"),
        (tmp_path / "none.txt", {}, r"Cannot read the vocabulary .*none.txt \(No such file"),
        (tmp_path / "latin.txt", {}, "latin.txt is not UTF-8"),
    ]

    for vocabulary, settings, words in refused:
        with pytest.raises(UserError, match=words):
            WordPieceTokenizer(vocabulary, **settings)


def test_wrong_use_is_refused(tokenizer):
    with pytest.raises(UserError, match="no vocabulary yet: give `vocabulary`"):
        WordPieceTokenizer().encode("a")
    with pytest.raises(UserError, match=r"takes string\[b\]; got shape \(\)"):
        tokenizer.tokenize_with_offsets("a")
    for i in (-1, tokenizer.vocabulary_size()):
        with pytest.raises(UserError, match=rf"must be in \[0, 500\); got {i}"):
            tokenizer.id_to_token(i)

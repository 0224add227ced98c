"""Byte-level BPE: the recorded ids of the reference, both faces, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.added_tokens import AddedToken
from tfllm.tokenizers.byte_alphabet import ALPHABET, spelled, unspelled
from tfllm.tokenizers.byte_pair import BytePairTokenizer
from tfllm.tokenizers.pieces import cut
from tfllm.tokenizers.splitting import PATTERNS

ROOT = Path(__file__).parents[2]
END = "<|endoftext|>"


@pytest.fixture(scope="module")
def recorded():
    return json.loads((Path(__file__).parent / "fixtures" / "byte_pair.json").read_text())


def of_merges(merges, **settings):
    """A tokenizer with the ids that training gives: the special token, bytes, merges."""
    tokens = dict.fromkeys([END, *sorted(ALPHABET), *(a + b for a, b in merges)])
    return BytePairTokenizer({token: i for i, token in enumerate(tokens)}, merges, **settings)


@pytest.fixture(scope="module")
def tokenizer(recorded):
    return of_merges(
        recorded["splits"]["gpt2"]["merges"],
        added_tokens=[AddedToken(END, 0), AddedToken("<shown>", 500, hidden=False)],
        bos_id=0,
        eos_id=0,
    )


@pytest.mark.parametrize("split", PATTERNS)
def test_its_ids_are_those_of_the_reference(split, recorded):
    found = recorded["splits"][split]
    tokenizer = of_merges(found["merges"], split=split, composes=split == "qwen2")

    assert tokenizer.encode_batch(recorded["texts"]) == found["ids"]


def test_every_text_comes_back(tokenizer, recorded):
    texts = [*recorded["texts"], *map(chr, range(0x300)), "\ufeff\ufffe\U0010ffff\x00"]

    rows = tokenizer.encode_batch(texts)

    assert [tokenizer.decode(row) for row in rows] == texts
    assert [
        text.decode() for text in tokenizer.detokenize(tf.ragged.constant(rows)).numpy()
    ] == texts


def test_rows_do_not_depend_on_each_other(tokenizer, recorded):
    texts = recorded["texts"][:30]

    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def strings(text, split, **settings):
    pieces = cut(tf.constant([text.encode()]), split, **settings)
    return [piece.decode() for piece in pieces.strings().numpy()]


@pytest.mark.parametrize(
    ("split", "text", "expected"),
    [
        ("gpt2", "a  b", ["a", " ", " b"]),
        ("gpt2", "a  ", ["a", "  "]),
        ("gpt2", "a\t\tb", ["a", "\t", "\t", "b"]),
        ("gpt2", "it's 'sly ''s", ["it", "'s", " '", "sly", " ''", "s"]),
        ("gpt2", "we'Re we're", ["we", "'", "Re", " we", "'re"]),
        ("gpt2", "x1y 22", ["x", "1", "y", " 22"]),
        ("llama3", "we'Re 'ſ", ["we", "'Re", " '", "ſ"]),
        ("llama3", "x'ſy", ["x", "'ſ", "y"]),
        ("llama3", "12345 6", ["123", "45", " ", "6"]),
        ("llama3", "(hi) ((hi", ["(hi", ")", " ((", "hi"]),
        ("llama3", "a!\n\n \n  b", ["a", "!\n\n", " \n", " ", " b"]),
        ("llama3", "a\n\n  b\tc\n", ["a", "\n\n", " ", " b", "\tc", "\n"]),
        ("llama3", "a\n  ", ["a", "\n", "  "]),
        ("llama3", "a\n \n b", ["a", "\n \n", " b"]),
        ("llama3", "a \nb", ["a", " \n", "b"]),
        ("llama3", "! \n \nb", ["!", " \n \n", "b"]),
        ("llama3", "a\n\n!\r\n\n", ["a", "\n\n", "!\r\n\n"]),
        ("llama3", "\n!\u00a0x\n\n 1", ["\n", "!", "\u00a0x", "\n\n", " ", "1"]),
        ("qwen2", "12 3", ["1", "2", " ", "3"]),
        ("starcoder", "a 12  b", ["a", " ", "1", "2", " ", " b"]),
        ("starcoder", " \U00011de0!", [" ", "\U00011de0", "!"]),
    ],
)
def test_texts_are_cut_as_the_pattern_says(split, text, expected):
    assert strings(text, split) == expected


def test_an_added_prefix_space_is_one_space():
    assert strings("a b", "gpt2", add_prefix_space=True) == [" a", " b"]
    assert strings(" a", "gpt2", add_prefix_space=True) == [" a"]
    assert strings("\ta", "gpt2", add_prefix_space=True) == [" ", "\t", "a"]
    assert strings("", "gpt2", add_prefix_space=True) == []


def test_marks_of_later_unicode_are_not_composed():
    assert strings("e\u0301", "gpt2", composes=True) == ["\u00e9"]
    assert strings("e\u0301", "gpt2") == ["e", "\u0301"]
    # Todhri's dotted letter is of Unicode 16, the mark U+0897 too: nothing moves or joins.
    assert "".join(strings("\U000105d2\u0307", "gpt2", composes=True)) == "\U000105d2\u0307"
    assert "".join(strings("a\u0897\u0316", "gpt2", composes=True)) == "a\u0897\u0316"
    assert "".join(strings("a\u0301\u0316", "gpt2", composes=True)) == "\u00e1\u0316"


def test_a_byte_without_a_token_is_left_out():
    merges = [("a", "b")]
    tokenizer = BytePairTokenizer({"a": 0, "b": 1, "ab": 2}, merges)

    assert tokenizer.encode_batch(["a!b a", "!", "", "ab"]) == [[0, 1, 0], [], [], [2]]


@pytest.mark.parametrize(("ignore_merges", "expected"), [(False, [0, 1, 2]), (True, [4])])
def test_a_whole_piece_may_be_a_token_that_no_merges_lead_to(ignore_merges, expected):
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "Ġ": 5, "z\u00ff": 6, "<é 中>": 7}
    tokenizer = BytePairTokenizer(vocabulary, [], ignore_merges=ignore_merges)

    assert tokenizer.encode("abc") == expected
    assert tokenizer.encode("abc c") == [*expected, 5, 2]
    assert tokenizer.encode_batch(["c abc", "", "abca"]) == [[2, 5, 0, 1, 2], [], [0, 1, 2, 0]]


def test_a_whole_piece_may_be_a_token_some_of_whose_bytes_are_none():
    tokenizer = BytePairTokenizer({"a": 0, "za": 1}, [], ignore_merges=True)

    assert tokenizer.encode_batch(["za", "zza"]) == [[1], [0]]


def test_whole_pieces_are_found_where_the_merges_are_in_no_order():
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "cb": 5}
    tokenizer = BytePairTokenizer(vocabulary, [("ab", "c"), ("a", "b")], ignore_merges=True)

    assert tokenizer.encode_batch(["abc", "abca", "cb", "ab", "cba"]) == [
        [4],
        [4, 0],
        [5],
        [3],
        [2, 1, 0],
    ]


def test_ignoring_merges_changes_nothing_where_they_lead_everywhere(recorded):
    merges = recorded["splits"]["llama3"]["merges"]
    tokenizer = of_merges(merges, split="llama3", ignore_merges=True)

    assert tokenizer.encode_batch(recorded["texts"]) == recorded["splits"]["llama3"]["ids"]


def test_added_tokens_are_found_first_and_hidden_ones_add_nothing(tokenizer):
    ids = tokenizer.encode(f"a{END}b<shown>")

    assert ids == [*tokenizer.encode("a"), 0, *tokenizer.encode("b"), 500]
    assert tokenizer.decode(ids) == "ab<shown>"
    assert tokenizer.vocabulary_size() == 501
    assert tokenizer.id_to_token(499) == ""
    assert tokenizer.token_bytes()[499] == b""


def test_tokens_and_ids_name_each_other(tokenizer):
    assert tokenizer.id_to_token(tokenizer.token_to_id("Ġ")) == "Ġ"
    assert tokenizer.get_vocabulary()[tokenizer.token_to_id("Ġ")] == "Ġ"
    assert tokenizer.token_to_id("no token") == tokenizer.unk_id == -1
    with pytest.raises(UserError, match=r"must be in \[0, 501\); got 501"):
        tokenizer.id_to_token(501)


def test_the_characters_of_bytes_are_those_of_gpt2():
    assert spelled(b" a\n\x00\xff") == "ĠaĊĀÿ"
    assert unspelled("ĠaĊĀÿ") == b" a\n\x00\xff"
    assert unspelled("a b中") == "a b中".encode()  # an added token
    assert len(set(ALPHABET)) == 256


def test_a_saved_model_holds_one_table_for_all_signatures_and_needs_no_more_than_the_server(
    tokenizer, tmp_path
):
    module = tf.Module()
    module.functions = [
        tf.function(
            lambda text: {"token_ids": tokenizer.tokenize(text).to_tensor(-1)},
            input_signature=[tf.TensorSpec([None], tf.string, "text")],
            autograph=False,
        )
        for _ in range(2)
    ]
    signatures = {f"tokenize_{i}": function for i, function in enumerate(module.functions)}
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=signatures)
    texts = ["Hello world", "", f"don't  {END}你好\n\n"]
    values = {"text": {"dtype": "string", "values": texts}}

    out = subprocess.run(
        [sys.executable, ROOT / "export" / "run_saved_model.py", tmp_path / "model"],
        input=json.dumps([{"signature": "tokenize_1", "inputs": values}]),
        capture_output=True,
        text=True,
        check=True,
    )

    rows = json.loads(out.stdout)[0]["token_ids"]
    assert [[i for i in row if i >= 0] for row in rows] == tokenizer.encode_batch(texts)
    saved = (tmp_path / "model" / "saved_model.pb").read_bytes()
    lowest = tokenizer._model.tokenize.get_concrete_function().captured_inputs[0].numpy()
    assert saved.count(lowest.tobytes()) == 1


def test_memory_does_not_grow_with_the_words():
    tokenizer = of_merges([("a", "b")])
    before = len(tokenizer._model.tokenize.get_concrete_function().graph.as_graph_def().node)
    tokenizer.encode_batch([f"word{i}" for i in range(3000)])

    resources = [
        operation.name
        for operation in tokenizer._model.tokenize.get_concrete_function().graph.get_operations()
        if any(output.dtype == tf.resource for output in operation.outputs)
    ]

    assert resources == []
    concrete = tokenizer._model.tokenize.get_concrete_function()
    assert len(concrete.graph.as_graph_def().node) == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"split": "gpt5"}, "split must be one of gpt2, llama3, qwen2, starcoder; got 'gpt5'"),
        ({"split": "llama3", "add_prefix_space": True}, 'goes with split="gpt2" only'),
        ({"vocabulary": {"a": 0}}, "Give both vocabulary and merges"),
        (
            {"vocabulary": {}, "merges": [], "added_tokens": [("x", 1 << 40)]},
            "id of an added token must be in",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        BytePairTokenizer(**settings)


def test_a_tokenizer_without_a_vocabulary_says_so():
    with pytest.raises(UserError, match="has no vocabulary yet: give `vocabulary` and `merges`"):
        BytePairTokenizer().encode("x")

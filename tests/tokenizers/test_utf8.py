"""Both faces repair invalid UTF-8 in the same way."""

import random

import tensorflow as tf

from tfllm.tokenizers.utf8 import valid_utf8, valid_utf8_in_graph

# Lead bytes, continuation bytes and the edges of the well-formed ranges.
EDGES = bytes.fromhex("00097f8081 8f909fa0 bfc0c1c2 dfe0e1ed eeeff0f1 f4f5f8fe ff41bbbd")


def test_the_graph_repairs_as_python_does():
    draw = random.Random(0)
    strings = [bytes(draw.choices(EDGES, k=draw.randrange(10))) for _ in range(5000)]
    strings += [draw.randbytes(draw.randrange(10)) for _ in range(5000)]

    repaired = valid_utf8_in_graph(tf.constant(strings)).numpy()

    assert [text.decode() for text in repaired] == [valid_utf8(string) for string in strings]


def test_each_maximal_ill_formed_part_is_one_replacement_character():
    assert valid_utf8(b"a\xf0\x9f\x91b\xc0\xafc") == "a\ufffdb\ufffd\ufffdc"


def test_control_characters_and_byte_order_marks_pass_the_graph():
    text = "".join(map(chr, range(0xA0))) + "\ufeff\ufffe\uffff"

    assert valid_utf8_in_graph(tf.constant(text)).numpy().decode() == text


def test_lone_surrogates_are_replaced_and_pairs_joined():
    assert valid_utf8("\ud800a\udc00\ud83d\ude00\ud83d") == "\ufffda\ufffd\U0001f600\ufffd"

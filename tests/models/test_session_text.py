"""What may be shown of a text that is being written, byte by byte."""

import random

import tensorflow as tf

from tfllm.decoding import StopStrings
from tfllm.models.session_text import shown_so_far
from tfllm.tokenizers.utf8 import valid_utf8

ALPHABET = ["a", "b", "é", "€", "🙂"]
ROWS = 200


def stops_of(rows):
    return StopStrings(tf.constant(rows), lambda ids: tf.as_string(ids), 4)


def test_nothing_that_is_shown_is_taken_back():
    rng = random.Random(1)
    texts = []
    for _ in range(ROWS):
        text = "".join(rng.choices(ALPHABET, k=6)).encode()
        # Some are no UTF-8.
        texts.append(
            text if rng.random() < 0.7 else bytes(rng.choices(text + b"\xff\xe2\xc3", k=9))
        )
    stops = [rng.choice([["", ""], ["ab", "🙂"], ["aab", ""], ["éa€", "b"]]) for _ in texts]
    # Up to where a stop string is whole.
    for text, row in zip(texts, stops, strict=True):
        ends = [i for i in range(len(text)) if any(s and s.encode() in text[:i] for s in row)]
        beginnings = [text[:i] for i in range(ends[0] if ends else len(text) + 1)]
        shown = shown_so_far(tf.constant(beginnings), stops_of([row] * len(beginnings))).numpy()
        shown = [valid_utf8(each) for each in shown]
        final = valid_utf8(beginnings[-1])
        for raw, each in zip(beginnings, shown, strict=True):
            assert final.startswith(each), (raw, row)
            held = valid_utf8(raw)[len(each) :]
            # What is held back is a character that is not whole, or may become a stop string.
            assert len(held) <= 1 or any(s.startswith(held.strip("\ufffd")) for s in row), raw

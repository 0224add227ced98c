"""Stop strings, held against Python's own search on the bytes of the text."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.decoding import StopStrings


def run(pieces, token_rows, stop_rows):
    """Feeds tokens one by one; returns each row's text when it ended and whether a stop was hit."""
    token_bytes = tf.constant(pieces)
    width = max(map(len, stop_rows))
    stops = StopStrings(
        tf.constant([row + [b""] * (width - len(row)) for row in stop_rows]),
        lambda ids: tf.gather(token_bytes, ids),
        max(map(len, pieces)),
    )
    rows = len(token_rows)
    tail, stopped = tf.fill([rows], ""), tf.zeros([rows], tf.bool)
    texts = [b""] * rows
    for tokens in zip(*token_rows, strict=True):
        for row in range(rows):
            texts[row] += b"" if stopped[row] else pieces[tokens[row]]
        tail, hit = stops.extend(tail, tf.constant(tokens))
        stopped |= hit
    return stops.cut(tf.constant(texts)).numpy().tolist(), stopped.numpy().tolist()


def expected(pieces, tokens, stops):
    text = b""
    for token in tokens:
        text += pieces[token]
        found = [text.find(stop) for stop in stops if stop and stop in text]
        if found:
            return text[: min(found)], True
    return text, False


def test_random_texts_end_where_python_finds_the_first_stop():
    rng = np.random.default_rng(0)
    pieces = [b"", b"a", b"b", b"ab", b"ba", b"aab", b"bbbb", b"\x00", b"a\x00b", b"c"]
    token_rows = rng.integers(0, len(pieces), (400, 14)).tolist()
    stop_rows = [
        [
            bytes(rng.choice(list(b"ab\x00c"), rng.integers(0, 8)).tolist())
            for _ in range(rng.integers(1, 5))
        ]
        for _ in token_rows
    ]
    texts, stopped = run(pieces, token_rows, stop_rows)
    wanted = [
        expected(pieces, tokens, stops) for tokens, stops in zip(token_rows, stop_rows, strict=True)
    ]
    assert list(zip(texts, stopped, strict=True)) == wanted
    assert 100 < sum(stopped) < 300


@pytest.mark.parametrize(
    ("tokens", "stops", "text", "hit"),
    [
        ([0, 1, 2], [b"two"], b"one ", True),  # one token
        ([0, 1, 2], [b"e tw"], b"on", True),  # across tokens
        ([0, 1, 2], [b"three", b"o t"], b"one tw", True),  # the earlier of two
        ([0, 1, 2], [b"wo", b"two"], b"one ", True),  # the longer, as it begins earlier
        ([0, 1, 2], [b"one two three"], b"", True),  # all there is
        ([0, 1, 2], [b"one two three "], b"one two three", False),
        ([0, 1, 2], [b"", b""], b"one two three", False),
        ([3, 4, 5], ["\U0001f642".encode()], b"", True),  # bytes of one emoji
        ([3, 4, 5], [b"\x82"], b"\xf0\x9f\x99", True),
        ([0, 3, 6], ["\u4f60".encode()], b"one \xf0\x9f", True),
    ],
)
def test_a_stop_ends_the_text_before_it(tokens, stops, text, hit):
    pieces = [b"one ", b"two", b" three", b"\xf0\x9f", b"\x99", b"\x82", "\u4f60\u597d".encode()]
    assert run(pieces, [tokens], [stops]) == ([text], [hit])


def test_a_long_stop_across_many_short_tokens_is_found():
    stop = bytes(range(1, 257 - 1)) + b"!"
    pieces = [bytes([i]) for i in range(256)]
    tokens = [120, 121, *stop, 65]
    assert run(pieces, [tokens, tokens], [[stop], [stop[:-1] + b"?"]]) == (
        [b"xy", b"xy" + stop + b"A"],
        [True, False],
    )


def test_no_rows_are_no_work():
    stops = StopStrings(tf.zeros([0, 4], tf.string), tf.strings.as_string, 1)
    tail, hit = stops.extend(tf.zeros([0], tf.string), tf.zeros([0], tf.int32))
    assert tail.shape == hit.shape == stops.cut(tail).shape == [0]

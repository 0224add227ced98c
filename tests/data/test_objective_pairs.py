"""Packed pairs, and noise on their sources; objectives by name."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.data.objectives import MaskedLM, NextToken, Pairs, make_objective
from tfllm.errors import UserError
from tfllm.tokenizers import AddedToken, train_byte_pair
from tfllm.tokenizers.wordpiece import WordPieceTokenizer

STEP = tf.constant([7, 3], tf.int64)
PAD, UNK, CLS, SEP, MASK, LANGUAGE = range(6)
WORDS = [f"w{i}" for i in range(200)]


@pytest.fixture(scope="module")
def pieces():
    """200 words, then 50 pieces that go on with one; and a token for a language."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ">>fra<<"]
    return WordPieceTokenizer(
        [*special, *WORDS, *(f"##{i}" for i in range(50))],
        added_tokens=[AddedToken(text, i) for i, text in enumerate(special)],
    )


def columns(sources, targets, size):
    """One packed row."""
    made = {}
    for name, texts in (("encoder", sources), ("decoder", targets)):
        ids = [token for text in texts for token in text]
        numbers = [number for number, text in enumerate(texts, 1) for _ in text]
        for column, values in (("ids", ids), ("segments", numbers)):
            made[f"{name}_{column}"] = tf.constant([values + [0] * (size - len(values))], tf.int64)
    return made


def test_targets_are_moved_by_one_place_within_their_pair(pieces):
    data = columns([[10, SEP], [11, 12, SEP]], [[20, 21, SEP], [22, SEP]], 6)
    x, y, weight = Pairs(pieces, decoder_start_token_id=CLS)(data, STEP)
    assert {name: values.numpy().tolist()[0] for name, values in x.items()} == {
        "encoder_token_ids": [10, SEP, 11, 12, SEP, 0],
        "encoder_padding_mask": [1, 1, 2, 2, 2, 0],
        "decoder_token_ids": [CLS, 20, 21, CLS, 22, CLS],
        "decoder_padding_mask": [1, 1, 1, 2, 2, 0],
    }
    np.testing.assert_array_equal(y, [[20, 21, SEP, 22, SEP, 0]])
    np.testing.assert_array_equal(weight, [[1, 1, 1, 1, 1, 0]])
    x, *_ = Pairs(pieces)(data, STEP)
    np.testing.assert_array_equal(x["decoder_token_ids"], [[PAD, 20, 21, PAD, 22, PAD]])


def noisy(pieces, sources, size, seed=STEP, **noise):
    """The sources of a packed row after the noise, and its targets, which are the sources."""
    x, y, _ = Pairs(pieces, **noise)(columns(sources, sources, size), seed)
    ids, numbers = x["encoder_token_ids"].numpy()[0], x["encoder_padding_mask"].numpy()[0]
    assert (np.diff(numbers[numbers > 0]) >= 0).all()
    assert (numbers[len(numbers[numbers > 0]) :] == 0).all()
    assert (ids[numbers == 0] == PAD).all()
    np.testing.assert_array_equal(y.numpy()[0, : sum(map(len, sources))], np.concatenate(sources))
    return [ids[numbers == number].tolist() for number in range(1, len(sources) + 1)]


def test_some_words_are_left_out_and_the_order_of_the_others_stays(pieces):
    sources = [[*range(6, 106), SEP], [LANGUAGE, *range(106, 206), SEP]]
    first, second = noisy(pieces, sources, 210, drop=0.2)
    for left, all_of_it in ((first, sources[0]), (second, sources[1])):
        assert left == [token for token in all_of_it if token in left]
        assert left[-1] == SEP
    assert second[0] == LANGUAGE
    np.testing.assert_allclose(1 - (len(first) + len(second) - 3) / 200, 0.2, atol=0.09)


def test_what_may_not_be_left_out_stays_however_much_is(pieces):
    sources = [[LANGUAGE, 6, 7, SEP], [8, SEP]]
    assert noisy(pieces, sources, 8, drop=0.999999) == [[LANGUAGE, SEP], [SEP]]
    masked = noisy(pieces, sources, 8, mask=0.999999)
    assert masked == [[LANGUAGE, UNK, UNK, SEP], [UNK, SEP]]


def test_words_move_a_little_and_not_out_of_their_text(pieces):
    sources = [[LANGUAGE, *range(6, 106), SEP], [*range(106, 206), SEP]]
    moves = []
    for text, source in zip(noisy(pieces, sources, 210, shuffle=3), sources, strict=True):
        assert sorted(text) == sorted(source)
        assert text[-1] == SEP
        moves += [abs(text.index(token) - place) for place, token in enumerate(source)]
        assert text[0] == LANGUAGE or source[0] != LANGUAGE
    assert max(moves) == 3
    assert np.mean(moves) > 0.5


def test_the_pieces_of_a_word_share_its_noise(pieces):
    words = [[6 + i, 206 + i % 50] for i in range(60)]
    sources = [[token for word in words for token in word] + [SEP]]
    (text,) = noisy(pieces, sources, 128, drop=0.3, mask=0.1, shuffle=3)
    pairs = list(zip(text[:-1:2], text[1:-1:2], strict=True))
    assert all(list(pair) in [*words, [UNK, UNK]] for pair in pairs)
    assert 30 < len(pairs) < 55
    assert any(pair == (UNK, UNK) for pair in pairs)
    (text,) = noisy(pieces, sources, 128, drop=0.3, whole_words=False)
    pairs = list(zip(text[:-1:2], text[1:-1:2], strict=False))
    assert not all(list(pair) in words for pair in pairs)


def test_the_step_decides_the_noise_in_a_graph_of_static_shapes(pieces):
    data = columns([[*range(6, 36), SEP]], [[6, SEP]], 40)
    objective = Pairs(pieces, drop=0.1, mask=0.1, shuffle=3)
    graph = tf.function(lambda seed: objective(data, seed)[0]["encoder_token_ids"], autograph=False)
    assert graph.get_concrete_function(STEP).output_shapes == [1, 40]
    np.testing.assert_array_equal(graph(STEP), graph(STEP))
    for other in ([7, 4], [8, 3]):
        assert (graph(tf.constant(other, tf.int64)).numpy() != graph(STEP).numpy()).any()


def test_noise_that_cannot_be_is_refused(pieces):
    for noise in ({"drop": 1.0}, {"mask": -0.1}, {"shuffle": -1}):
        with pytest.raises(UserError, match="drop and mask must be fractions of the words"):
            Pairs(pieces, **noise)
    byte_pairs = train_byte_pair(["low lower lowest " * 9], vocabulary_size=270)
    with pytest.raises(UserError, match="mask needs a tokenizer with an unknown token"):
        Pairs(byte_pairs, mask=0.1)
    assert Pairs(byte_pairs, drop=0.1)


def test_objectives_are_made_by_name(pieces):
    assert isinstance(make_objective("next_token", {}, None), NextToken)
    made = make_objective("masked_lm", {"rate": 1, "whole_words": True}, pieces)
    assert (made.rate, made.whole_words, made.tokenizer) == (1, True, pieces)
    assert isinstance(made, MaskedLM)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("maskedlm", {}, "'maskedlm' is not an objective; did you mean 'masked_lm'"),
        ("x", {}, "there are next_token, masked_lm, span_corruption, prefix_lm, pairs"),
        ("pairs", {"shufle": 1}, "'shufle' is not a setting of the objective pairs; .*'shuffle'"),
        ("next_token", {"rate": 1}, "not a setting of the objective next_token; it has none"),
        ("masked_lm", {"tokenizer": 1}, "'tokenizer' is not a setting"),
        ("masked_lm", {"rate": "0.2"}, "rate of the objective masked_lm must be float; got '0.2'"),
        ("pairs", {"shuffle": 1.5}, "shuffle of the objective pairs must be int; got 1.5"),
        ("pairs", {"decoder_start_token_id": "a"}, "must be int or None; got 'a'"),
    ],
)
def test_names_and_values_that_are_none_are_refused(pieces, name, settings, words):
    with pytest.raises(UserError, match=words):
        make_objective(name, settings, pieces)

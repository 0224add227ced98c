"""Spans that are taken out of a window, and the split of a window in two."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.data.objectives import PrefixLM, SpanCorruption, span_lengths
from tfllm.errors import UserError
from tfllm.tokenizers import train_sentencepiece, with_sentinels
from tfllm.tokenizers.wordpiece import WordPieceTokenizer

STEP = tf.constant([7, 3], tf.int64)
PAD, EOS = 0, 3


@pytest.fixture(scope="module")
def plain():
    return train_sentencepiece(["one two three four five six seven eight"] * 9, vocabulary_size=300)


@pytest.fixture(scope="module")
def spans(plain):
    """A tokenizer with ten sentinels."""
    return with_sentinels(plain, 10)


def windows(rows, size, seed=0):
    return np.random.default_rng(seed).integers(4, 260, (rows, size))


def by_the_paper(window, is_noise, first_sentinel):
    """Inputs and targets of one window by section 3.1.4: a sentinel for each run of noise."""
    inputs, targets, sentinel = [], [], first_sentinel + 1
    for place, token in enumerate(window):
        if is_noise[place]:
            if place == 0 or not is_noise[place - 1]:
                sentinel -= 1
                inputs.append(sentinel)
                targets.append(sentinel)
            targets.append(token)
        else:
            inputs.append(token)
    return [*inputs, EOS], [*targets, EOS]


def noise_of(window, inputs):
    """Which places of a window are not in its inputs, told by tokens that are all different."""
    return ~np.isin(window, inputs)


def present(row, weight):
    return row[weight > 0].tolist()


def test_the_lengths_are_those_of_t5():
    # 512 and 114 are the lengths of T5's pre-training, for windows of 568 tokens.
    assert span_lengths(568) == (85, 28, 512, 114)
    assert span_lengths(20, 0.5, 2.0) == (10, 5, 16, 16)
    assert span_lengths(2) == (1, 1, 3, 3)
    assert span_lengths(1) == (0, 0, 2, 1)


def test_sentinels_stand_where_the_paper_has_them(spans):
    window = np.random.default_rng(0).permutation(np.arange(4, 260))[None, :60]
    first = spans.token_to_id("<extra_id_0>")
    for step in range(20):
        seed = tf.constant([0, step], tf.int64)
        x, y, weight = SpanCorruption(spans)({"token_ids": tf.constant(window)}, seed)
        inputs = x["encoder_token_ids"].numpy()[0]
        is_noise = noise_of(window[0], inputs)
        assert is_noise.sum() == 9
        assert not is_noise[0]
        assert is_noise[-1]
        expected = by_the_paper(window[0], is_noise, first)
        assert (inputs.tolist(), y.numpy()[0].tolist()) == expected
        np.testing.assert_array_equal(weight, np.ones((1, 13)))


def test_inputs_and_targets_make_the_window_again(spans):
    data = windows(30, 80)
    sentinels = set(range(spans.vocabulary_size() - 10, spans.vocabulary_size()))
    x, y, weight = SpanCorruption(spans)({"token_ids": tf.constant(data)}, STEP)
    for row in range(30):
        said, filling = {}, None
        for token in present(y.numpy()[row], weight.numpy()[row])[:-1]:
            if token in sentinels:
                filling = said.setdefault(token, [])
            else:
                filling.append(token)
        inputs = present(
            x["encoder_token_ids"].numpy()[row], x["encoder_padding_mask"].numpy()[row]
        )
        again = [token for shown in inputs[:-1] for token in said.get(shown, [shown])]
        assert again == data[row].tolist()


def test_the_decoder_reads_the_start_and_the_targets_before(spans):
    x, y, weight = SpanCorruption(spans)({"token_ids": tf.constant(windows(3, 40))}, STEP)
    reads = x["decoder_token_ids"].numpy()
    np.testing.assert_array_equal(reads[:, 0], [PAD] * 3)
    np.testing.assert_array_equal(reads[:, 1:], y[:, :-1])
    np.testing.assert_array_equal(x["decoder_padding_mask"], weight)
    other = SpanCorruption(spans, decoder_start_token_id=2)
    x, *_ = other({"token_ids": tf.constant(windows(3, 40))}, STEP)
    np.testing.assert_array_equal(x["decoder_token_ids"][:, 0], [2] * 3)


def test_spans_have_the_mean_length_and_stand_everywhere(spans):
    rows, size = 2000, 60
    window = np.random.default_rng(0).permutation(np.arange(4, 260))[None, :size]
    x, *_ = SpanCorruption(spans)({"token_ids": tf.constant(np.repeat(window, rows, 0))}, STEP)
    is_noise = np.stack([noise_of(window[0], row) for row in x["encoder_token_ids"].numpy()])
    assert is_noise.mean() == 9 / 60
    begins = is_noise & ~np.pad(is_noise, ((0, 0), (1, 0)))[:, :-1]
    np.testing.assert_array_equal(begins.sum(-1), [3] * rows)  # three spans of three tokens
    # All ways of parting 9 tokens into 3 spans are alike: a span has 1 token in 7 of 28 ways.
    ends = np.pad(is_noise, ((0, 0), (0, 1)))[:, 1:]
    single = (begins & ~ends).sum() / begins.sum()
    np.testing.assert_allclose(single, 7 / 28, atol=0.02)
    share = is_noise.mean(0)
    assert (share[5:-5] > 0.08).all()
    assert (share[1:-5] < 0.25).all()


def test_what_is_kept_is_parted_without_regard_to_what_is_taken_out(spans):
    window = np.random.default_rng(0).permutation(np.arange(4, 260))[None, :60]
    data = {"token_ids": tf.constant(np.repeat(window, 500, 0))}
    x, *_ = SpanCorruption(spans, rate=0.5)(data, STEP)
    is_noise = [noise_of(window[0], row) for row in x["encoder_token_ids"].numpy()]
    kept = [row.argmax() for row in is_noise]
    taken = [(~row[start:]).argmax() for row, start in zip(is_noise, kept, strict=True)]
    assert abs(np.corrcoef(kept, taken)[0, 1]) < 0.15


def test_a_window_that_is_shorter_is_corrupted_as_one_of_its_length(spans):
    data = windows(2, 60)
    data[1, 20:] = -1
    x, _, weight = SpanCorruption(spans)({"token_ids": tf.constant(data)}, STEP)
    short = span_lengths(20)
    np.testing.assert_array_equal(tf.reduce_sum(weight, -1), [13, short.decoder])
    np.testing.assert_array_equal(tf.reduce_sum(x["encoder_padding_mask"], -1), [55, short.encoder])
    assert x["encoder_token_ids"][1, short.encoder - 1] == EOS
    assert (x["encoder_token_ids"][1, short.encoder :] == PAD).numpy().all()


def test_both_parts_of_a_split_window_make_it_again(spans):
    data = windows(300, 10)
    data[5, 4:] = -1
    x, y, weight = PrefixLM(spans)({"token_ids": tf.constant(data)}, STEP)
    sizes = []
    for row in range(300):
        read = present(x["encoder_token_ids"].numpy()[row], x["encoder_padding_mask"].numpy()[row])
        said = present(y.numpy()[row], weight.numpy()[row])
        assert read[-1] == said[-1] == EOS
        assert read[:-1] + said[:-1] == [token for token in data[row] if token >= 0]
        sizes.append(len(read) - 1)
    del sizes[5]
    counts = np.bincount(sizes, minlength=10)
    assert counts[0] == 0
    assert len(counts) == 10
    assert (counts[1:] > 15).all()  # of 299 in nine places
    is_read = weight.numpy()[:, 1:] > 0
    reads = x["decoder_token_ids"].numpy()[:, 1:]
    np.testing.assert_array_equal(reads[is_read], y.numpy()[:, :-1][is_read])
    np.testing.assert_array_equal(x["decoder_token_ids"][:, 0], [PAD] * 300)


@pytest.mark.parametrize("objective", [SpanCorruption, PrefixLM])
def test_the_step_decides_all_of_it_in_a_graph_of_static_shapes(spans, objective):
    data = {"token_ids": tf.constant(windows(4, 40))}
    graph = tf.function(lambda seed: objective(spans)(data, seed), autograph=False)
    outputs = graph.get_concrete_function(STEP).outputs
    assert all(tensor.shape.is_fully_defined() for tensor in outputs)

    def flat(seed):
        return np.concatenate([np.ravel(t) for t in tf.nest.flatten(graph(seed))])

    np.testing.assert_array_equal(flat(STEP), flat(STEP))
    for other in ([7, 4], [8, 3]):
        assert (flat(tf.constant(other, tf.int64)) != flat(STEP)).any()


def test_what_cannot_be_is_refused(plain, spans):
    with pytest.raises(UserError, match="rate must be above 0 and below 1; got 1.0"):
        SpanCorruption(spans, rate=1.0)
    with pytest.raises(UserError, match="mean_span must be at least 1 token; got 0.5"):
        SpanCorruption(spans, mean_span=0.5)
    with pytest.raises(UserError, match="1 sentinels .* the tokenizer has 0 of them"):
        SpanCorruption(plain)
    with pytest.raises(UserError, match="15 sentinels .* the tokenizer has 10 of them"):
        SpanCorruption(spans)({"token_ids": tf.constant(windows(1, 300))}, STEP)
    endless = WordPieceTokenizer(["[UNK]", "a"])
    for objective, name in ((SpanCorruption, "span_corruption"), (PrefixLM, "prefix_lm")):
        with pytest.raises(UserError, match=f"{name} needs a tokenizer with an end token"):
            objective(endless)

"""Skip-gram's data: pairs of a tiny text by hand, subsampling, counterexamples, preparation."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfllm.data import Records, prepare
from tfllm.data.objectives import SkipGram
from tfllm.data.words import prepare_words
from tfllm.errors import UserError
from tfllm.tokenizers import WordTokenizer, train_sentencepiece


def words(counts):
    return WordTokenizer({f"w{i}": count for i, count in enumerate(counts)})


def columns(rows, segments=None):
    ids = tf.constant(rows, tf.int32)
    return {"token_ids": ids, "segment_ids": tf.ones_like(ids) if segments is None else segments}


def seed(step):
    return tf.constant([7, step], tf.int64)


def pairs(x, y):
    """The (word, neighbour) pairs of a batch, by their ids."""
    centers, contexts = x["centers"].numpy(), x["contexts"].numpy()
    found = np.argwhere(y["contexts"].numpy())
    assert (y["contexts"].numpy()[tuple(found.T)] == 1).all()
    return sorted((int(centers[r, k, i]), int(contexts[r, k, j])) for r, k, i, j in found)


def test_the_pairs_of_a_tiny_text_are_those_of_its_windows():
    objective = SkipGram(words([10] * 6), window=1, sample=0.0)
    batch = columns([[0, 1, 2, 3, 4, 5]], [[1, 1, 1, 2, 2, 0]])
    x, y, weight = objective(batch, seed(0))
    # Two documents, and an empty place that is nobody's neighbour.
    assert pairs(x, y) == [(0, 1), (1, 0), (1, 2), (2, 1), (3, 4), (4, 3)]
    assert weight[0, 0].numpy().tolist() == [1, 2, 1, 1, 1] + [0] * 27


def test_windows_reach_over_the_blocks_of_a_row_but_not_into_the_next_row():
    num = 80
    objective = SkipGram(words([10] * 2 * num), window=2, sample=0.0)
    rows = np.arange(2 * num).reshape(2, num)
    found = set()
    for step in range(12):  # a word's window is 1 or 2 words wide
        x, y, weight = objective(columns(rows), seed(step))
        assert x["centers"].shape == (2, 3, 32)
        assert float(tf.reduce_sum(weight)) == len(pairs(x, y))
        found.update(pairs(x, y))
    near = {(i, j) for row in rows for i in row for j in row if 0 < abs(i - j) <= 2}
    assert found == near


def test_the_reach_of_a_window_is_drawn_evenly():
    objective = SkipGram(words([10] * 4), window=4, sample=0.0)
    rows = np.random.default_rng(0).integers(0, 4, (8, 512))
    _, _, weight = objective(columns(rows), seed(0))
    reach, count = np.unique(weight.numpy()[:, 1:15].ravel(), return_counts=True)
    assert reach.tolist() == [2, 4, 6, 8]  # both sides
    expected = count.sum() / 4
    assert (abs(count - expected) < 5 * math.sqrt(expected * 3 / 4)).all()


def test_frequent_words_are_kept_as_often_as_the_formula_says():
    counts = np.array([8000, 1500, 400, 80, 20])
    objective = SkipGram(words(counts), sample=0.01)
    frequency = counts / counts.sum()
    formula = np.minimum(np.sqrt(0.01 / frequency) + 0.01 / frequency, 1)
    np.testing.assert_allclose(objective.keep_probabilities, formula, rtol=1e-6)
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(5), counts)).reshape(20, 500)
    x, _, weight = objective(columns(rows), seed(3))
    kept = np.bincount(x["centers"].numpy()[weight.numpy() > 0], minlength=5)
    allowed = 5 * np.sqrt(counts * formula * (1 - formula)) + 1
    assert (abs(kept - counts * formula) <= allowed).all(), kept


def test_what_stands_between_two_words_and_is_left_out_does_not_keep_them_apart():
    objective = SkipGram(words([10**6, 1, 1]), window=1, sample=1e-6)
    x, y, _ = objective(columns([[1, 0, 0, 0, 0, 2]]), seed(0))
    assert pairs(x, y) == [(1, 2), (2, 1)]


def test_counterexamples_are_drawn_by_the_count_to_the_three_quarters():
    counts = np.array([10000, 1000, 100, 10])
    objective = SkipGram(words(counts), shared_negatives=500)
    expected = counts**0.75 / (counts**0.75).sum()
    np.testing.assert_allclose(objective.negative_probabilities, expected)
    x, _, _ = objective(columns(np.zeros((40, 8), int)), seed(0))
    found = np.bincount(x["negatives"].numpy().ravel(), minlength=4)
    assert (abs(found - 20000 * expected) < 5 * np.sqrt(20000 * expected * (1 - expected))).all()


def test_a_counterexample_weighs_its_share_but_not_against_itself():
    objective = SkipGram(words([10, 10, 10]), window=1, negatives=3, shared_negatives=6, sample=0.0)
    x, y, _ = objective(columns([[0, 1, 2]]), seed(0))
    drawn = x["negatives"].numpy()[0]
    assert set(drawn) == {0, 1, 2}
    # The neighbours of the words are {1}, {0, 2} and {1}.
    for i, neighbours in enumerate([[1], [0, 2], [1]]):
        expected = [sum(word != n for n in neighbours) * 3 / 6 for word in drawn]
        np.testing.assert_allclose(y["negatives"][0, 0, i], expected)
    assert not y["negatives"].numpy()[0, 0, 3:].any()


def test_shapes_are_static_and_batches_have_few_empty_places(records):
    objective = SkipGram(records.tokenizer, sample=0.05)
    spec = records.batches("train", 8, objective, num_steps=1).element_spec
    assert all(shape.shape.is_fully_defined() for shape in tf.nest.flatten(spec))
    _, _, weight = next(iter(records.batches("train", 8, objective)))
    assert objective.num_blocks(8, 64) == weight.shape[1] == 2
    places = tf.size(weight).numpy()
    assert np.count_nonzero(weight) > 0.55 * places  # 8 rows of 64 words need about 1.3 blocks


def test_a_batch_is_a_function_of_the_seed_and_the_step(records):
    objective = SkipGram(records.tokenizer)
    whole = list(records.batches("train", 4, objective, seed=3, num_steps=4))
    later = list(records.batches("train", 4, objective, seed=3, start_step=2, num_steps=2))
    for one, other in zip(whole[2:], later, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)
    other = next(iter(records.batches("train", 4, objective, seed=4)))
    assert np.any(other[0]["negatives"] != whole[0][0]["negatives"])


def as_stored(columns, _):
    return columns, 0, tf.ones([1])


@pytest.fixture(scope="module")
def records(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("words") / "out"
    prepare_words(corpus, out, min_count=1, sequence_length=64, document_bytes=500)
    return Records(out)


def test_prepared_words_are_those_of_the_documents(records, corpus):
    assert records.task == "skip_gram"
    assert records.num_rows("validation") == 0
    found = []
    for stored, _, _ in records.batches("train", 1, as_stored, shuffle=False):
        segments = stored["segment_ids"].numpy()[0]
        assert segments[0] == 1
        found += stored["token_ids"].numpy()[0][segments > 0].tolist()
    text = corpus.read_text()
    assert records.tokenizer.decode(found) == " ".join(text.replace("-", " ").split()).replace(
        ".", ""
    )
    assert records.meta["splits"]["train"]["tokens"] == len(found)
    assert records.tokenizer.counts.sum() == len(found)


def test_the_end_of_a_document_is_stored_and_one_word_alone_is_left_out(tmp_path):
    source = tmp_path / "docs.jsonl"
    source.write_text('{"text": "a b c"}\n{"text": "a"}\n{"text": "c a b a b c a b"}\n')
    prepare_words(source, tmp_path / "out", min_count=1, sequence_length=8)
    rows = [
        (x["token_ids"].numpy()[0].tolist(), x["segment_ids"].numpy()[0].tolist())
        for x, _, _ in Records(tmp_path / "out").batches("train", 1, as_stored, shuffle=False)
    ]
    assert rows == [
        ([0, 1, 2, 2, 0, 1, 0, 1], [1, 1, 1, 2, 2, 2, 2, 2]),
        ([2, 0, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]),
    ]


def test_stop_words_and_lemmas_of_files_are_used(tmp_path):
    (tmp_path / "text.txt").write_text("the cats sat\n\nthe cat sits")
    (tmp_path / "stop.txt").write_text("the\n")
    (tmp_path / "lemmas.tsv").write_text("cats\tcat\nsits\tsit\nsat\tsit\n")
    prepare_words(
        tmp_path / "text.txt",
        tmp_path / "out",
        min_count=2,
        stop_words=tmp_path / "stop.txt",
        lemmas=tmp_path / "lemmas.tsv",
    )
    assert Records(tmp_path / "out").tokenizer.words == ["cat", "sit"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"negatives": 0}, "negatives must be at least 1, got 0"),
        ({"shared_negatives": 0}, "shared_negatives must be at least 1"),
        ({"sample": 2.0}, r"sample must be in \[0, 1\], got 2.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        SkipGram(words([1, 2]), **settings)


def test_another_tokenizer_is_refused(corpus, tmp_path):
    pieces = train_sentencepiece([corpus.read_text()], vocabulary_size=400)
    with pytest.raises(UserError, match="prepared with a WordTokenizer; this has a SentencePiece"):
        SkipGram(pieces)
    with pytest.raises(UserError, match="needs a WordTokenizer .*got a SentencePieceTokenizer"):
        prepare(corpus, tmp_path / "out", task="skip_gram", tokenizer=pieces)

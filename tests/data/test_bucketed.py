"""Prepared pairs and texts in batches of a budget: nothing is lost, whatever they are padded to."""

import json
import random

import numpy as np
import pytest
import tensorflow as tf

from tfllm.data import Records, prepare
from tfllm.data.bucketed import Bucketed, Pairs, Texts
from tfllm.data.objectives import make_objective

WORDS = str.split("a cat dog bird sees the house under old two tree")
LENGTHS = (1, 2, 3, 4, 5, 6, 7)  # words of the texts


def some_rows(count):
    draw = random.Random(1)
    for _ in range(count):
        source = draw.choices(WORDS, k=draw.randint(1, 14))
        yield {"source": " ".join(source), "target": " ".join(reversed(source))}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    rows = some_rows(150)
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prepare(
        folder / "pairs.jsonl",
        folder / "data",
        task="seq2seq_lm",
        vocabulary_size=300,
        sequence_length=32,
        validation_fraction=0.2,
    )
    return Records(folder / "data")


def bucketed(records, seed=2, budget=600, **settings):
    objective = make_objective("pairs", settings, records.tokenizer)
    examples = {split: Pairs(records, split, objective) for split in ("train", "validation")}
    return Bucketed(examples, budget, 4, seed=seed)


def texts_of(records, batches):
    """(source, target) of each row that has a weight."""
    for x, y, weight in batches:
        for source, target, counts in zip(x["encoder_token_ids"], y, weight, strict=True):
            if tf.reduce_sum(counts) > 0:
                yield tuple(records.tokenizer.decode(ids) for ids in (source, target))


def test_one_pass_has_every_pair_of_the_held_out_table_once(records):
    lines = (records.folder / "validation.jsonl").read_text().splitlines()
    expected = [(row["source"], row["target"]) for row in map(json.loads, lines)]
    assert sorted(texts_of(records, bucketed(records).one_pass())) == sorted(expected)


def test_padding_is_behind_the_tokens_and_is_no_target(records):
    batches = bucketed(records)
    shapes = {bucket.shape: bucket.rows for bucket in batches.train.buckets}
    seen = set()
    for x, y, weight in batches.batches(0, 12):
        source, target = x["encoder_padding_mask"].numpy(), x["decoder_padding_mask"].numpy()
        shape = source.shape[1], target.shape[1]
        seen.add(shape)
        assert shapes[shape] == len(source) == len(target) == len(y)
        for mask, ids in ((source, x["encoder_token_ids"]), (target, y)):
            np.testing.assert_array_equal(mask, -np.sort(-mask))
            assert (mask.sum(1) == np.count_nonzero(ids.numpy() != 0, 1)).all()
        np.testing.assert_array_equal(weight, target)
    assert len(seen) > 1


def test_lengths_and_efficiency_are_those_of_the_pairs(records):
    batches = bucketed(records)
    counts = records.meta["splits"]["train"]
    assert batches.train.lengths[:, 1].sum() == counts["targets"]
    assert batches.train.lengths.sum() == counts["tokens"]  # with an end of each side
    assert len(batches.train.lengths) == counts["documents"]


def test_a_run_that_resumes_gets_the_batches_it_would_have_got(records):
    noise = {"drop": 0.2, "shuffle": 2}
    whole = list(bucketed(records, **noise).batches(0, 25))
    resumed = bucketed(records, **noise).batches(7, 18)
    for one, other in zip(whole[7:], resumed, strict=True):
        for expected, found in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(expected, found)


def test_texts_are_cut_and_padded_to_their_bucket(data_of_texts):
    records, preprocess = data_of_texts
    objective = make_objective("labels", {"labels": {"x": 3, "y": 4}}, records.tokenizer)
    examples = Texts(records, "train", objective, preprocess, padding_id=9)
    assert sorted(examples.lengths[:, 0]) == sorted(LENGTHS)
    batches = Bucketed({"train": examples}, 14, 3, multiple=1)
    widths = {bucket.shape[0] for bucket in batches.train.buckets}
    assert len(widths) > 1
    for x, _, _ in batches.batches(0, 8):
        ids, mask = x["token_ids"].numpy(), x["padding_mask"].numpy()
        assert ids.shape[1] in widths
        assert ids.size <= 14
        np.testing.assert_array_equal(ids == 9, mask == 0)


@pytest.fixture
def data_of_texts(tmp_path):
    """Prepared texts of one to seven words, and how a model with a token per word reads them."""
    rows = [{"text": " ".join("w" * n), "label": "xy"[n % 2]} for n in LENGTHS]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prepare(
        tmp_path / "texts.jsonl",
        tmp_path / "data",
        task="text_classifier",
        tokenizer="wordpiece",
        vocabulary_size=30,
        sequence_length=8,
        validation_fraction=0.0,
    )

    def preprocess(x, y, weight):
        words = tf.strings.split(x[0])
        ids = tf.ones_like(words, tf.int32).to_tensor(9)
        width = -(-tf.shape(ids)[1] // 4) * 4
        ids = tf.pad(ids, [[0, 0], [0, width - tf.shape(ids)[1]]], constant_values=9)
        return {"token_ids": ids, "padding_mask": tf.cast(ids == 1, tf.int32)}, y, weight

    return Records(tmp_path / "data"), preprocess

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.data import Records
from tfllm.data.records import permute
from tfllm.errors import UserError


@pytest.fixture(scope="module")
def records(prepared):
    return Records(prepared)


def arrays(dataset):
    """Each batch as one int array [5, b, t]."""
    return [
        np.stack([*(x[name].numpy() for name in sorted(x)), y.numpy(), w.numpy().astype(int)])
        for x, y, w in dataset
    ]


def row_keys(dataset):
    return [row.tobytes() for batch in arrays(dataset) for row in batch.transpose(1, 0, 2)]


def test_targets_are_the_next_tokens_of_the_same_document(records):
    (x, y, weight), *_ = records.batches("train", 9, shuffle=False, num_steps=1)
    serialized = tf.data.TFRecordDataset(str(records.folder / "train-00000.tfrecord")).take(9)
    for i, data in enumerate(serialized):
        feature = tf.train.Example.FromString(data.numpy()).features.feature
        tokens = np.array(feature["token_ids"].int64_list.value)
        segments = np.array(feature["segment_ids"].int64_list.value)
        np.testing.assert_array_equal(x["token_ids"][i], tokens[:-1])
        np.testing.assert_array_equal(x["segment_ids"][i], segments[:-1])
        np.testing.assert_array_equal(y[i], tokens[1:])
        same = (segments[1:] == segments[:-1]) & (segments[1:] != 0)
        np.testing.assert_array_equal(weight[i], same.astype(np.float32))
    assert 0 < np.mean(weight) < 1


def test_positions_restart_where_a_segment_begins(records):
    for x, _, _ in records.batches("train", 8, num_steps=3):
        segments, positions = x["segment_ids"].numpy(), x["positions"].numpy()
        begins = np.diff(segments, axis=1) > 0
        assert (positions[:, 0] == 0).all()
        assert (positions[:, 1:][begins] == 0).all()
        goes_on = (np.diff(segments, axis=1) == 0) & (segments[:, 1:] > 0)
        assert (np.diff(positions, axis=1)[goes_on] == 1).all()


def test_the_batches_are_static_and_typed(records):
    x, y, weight = records.batches("train", 6).element_spec
    assert {name: (spec.shape, spec.dtype) for name, spec in x.items()} == {
        name: ((6, 32), tf.int32) for name in ("token_ids", "segment_ids", "positions")
    }
    assert (y.shape, y.dtype, weight.shape, weight.dtype) == (
        (6, 32),
        tf.int32,
        (6, 32),
        tf.float32,
    )


def test_one_pass_in_order_has_every_target_once_and_fills_up_with_weight_0(records):
    num_rows = records.num_rows("validation")
    batch_size = num_rows - 3
    batches = arrays(records.batches("validation", batch_size, shuffle=False))
    assert len(batches) == 2
    assert sum(batch[-1].sum() for batch in batches) == records.num_targets("validation")
    assert not batches[1][-1, 3:].any()
    assert batches[1][-1, :3].any()


def test_each_epoch_is_another_permutation_of_all_rows(records):
    num_rows = records.num_rows("train")
    in_order = row_keys(records.batches("train", 1, shuffle=False))
    stream = row_keys(records.batches("train", 1, num_steps=2 * num_rows, seed=5))
    first, second = stream[:num_rows], stream[num_rows:]
    assert len(set(in_order)) == num_rows > 90
    assert sorted(first) == sorted(second) == sorted(in_order)
    in_place = [
        np.mean([a == b for a, b in zip(first, x, strict=True)]) for x in (second, in_order)
    ]
    assert max(in_place) < 0.1


def test_a_permutation_is_as_far_from_the_order_of_the_file_as_chance_would_have_it():
    num_rows = 1000
    places = tf.range(num_rows, dtype=tf.int64)
    correlations = []
    for epoch in range(30):
        order = permute(places, tf.fill([num_rows], tf.cast(epoch, tf.int64)), num_rows, seed=0)
        assert sorted(order.numpy()) == list(range(num_rows))
        correlations.append(np.corrcoef(order, places)[0, 1])
    # True permutations of n rows have sqrt(2 / (pi n)) on average: 0.025.
    assert np.mean(np.abs(correlations)) < 0.04


def test_a_run_that_resumes_gets_the_batches_it_would_have_got(records):
    steps = 2 * records.num_rows("train") // 16
    whole = arrays(records.batches("train", 16, seed=3, num_steps=steps))
    resumed = arrays(records.batches("train", 16, seed=3, start_step=9, num_steps=steps - 9))
    np.testing.assert_array_equal(whole[9:], resumed)


def test_another_seed_gives_other_batches(records):
    one, two = (arrays(records.batches("train", 16, seed=seed, num_steps=1)) for seed in (0, 1))
    assert (one[0] != two[0]).any()


def test_a_batch_may_be_larger_than_the_split(records):
    num_rows = records.num_rows("validation")
    keys = row_keys(records.batches("validation", 2 * num_rows, num_steps=1))
    assert sorted(keys[:num_rows]) == sorted(keys[num_rows:])
    assert len(set(keys)) == num_rows


def test_a_stream_without_an_end_says_so(records):
    assert records.batches("train", 4).cardinality() == tf.data.INFINITE_CARDINALITY
    assert records.batches("train", 4, num_steps=7).cardinality() == 7
    assert records.batches("train", 4, start_step=999, shuffle=False).cardinality() == 0


def test_the_tokenizer_gives_the_text_back(records):
    (x, _, weight), *_ = records.batches("validation", 1, shuffle=False)
    tokens = x["token_ids"][0][weight[0] > 0].numpy()
    texts = (records.folder / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    text = records.tokenizer.decode(tokens[1:])
    assert len(text) > 20
    assert json.loads(texts[0])["text"].startswith(text)


def test_two_replicas_train_on_the_batches_as_one_does(records):
    def losses(devices):
        keras.utils.set_random_seed(0)
        with tf.distribute.MirroredStrategy(devices).scope():
            inputs = {
                name: keras.Input((32,), dtype="int32", name=name)
                for name in ("token_ids", "segment_ids", "positions")
            }
            x = keras.layers.Embedding(400, 8)(inputs["token_ids"])
            x += keras.layers.Embedding(33, 8)(inputs["positions"])
            model = keras.Model(inputs, keras.layers.Dense(400)(x))
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile("sgd", loss)
        batches = records.batches("train", 8, seed=1)
        history = model.fit(batches, steps_per_epoch=3, epochs=2, verbose=0, shuffle=False)
        validation = records.batches("validation", 8, shuffle=False)
        return [*history.history["loss"], model.evaluate(validation, verbose=0)]

    np.testing.assert_allclose(losses(["CPU:0", "CPU:1"]), losses(["CPU:0"]), rtol=1e-5)


def test_wrong_use_is_refused_with_a_reason(records):
    with pytest.raises(UserError, match="split must be one of train, validation, got 'test'"):
        records.batches("test", 4)
    with pytest.raises(UserError, match="batch_size must be at least 1 .*got 0 and 0"):
        records.batches("train", 0)
    with pytest.raises(UserError, match="start_step at least 0, got 4 and -1"):
        records.batches("train", 4, start_step=-1)


def test_a_folder_without_prepared_data_says_how_to_make_it(tmp_path):
    with pytest.raises(UserError, match=r"no prepared data \(no meta.json\): write it wi"):
        Records(tmp_path)


def test_a_damaged_or_foreign_meta_file_is_refused(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "copy")
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text("{")
    with pytest.raises(UserError, match=r"meta.json is damaged .*: prepare the data again"):
        Records(folder)
    (folder / "meta.json").write_text(json.dumps({**meta, "format_version": 99}))
    with pytest.raises(UserError, match="has format 99, this tfllm reads format 2: prepare the"):
        Records(folder)
    (folder / "meta.json").write_text("[]")
    with pytest.raises(UserError, match="has format None"):
        Records(folder)

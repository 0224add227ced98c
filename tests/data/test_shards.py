import numpy as np
import pytest
import tensorflow as tf

from tfllm.data.shards import ShardReader, ShardWriter
from tfllm.errors import UserError

ROWS = [
    {"token_ids": [i, 1000 * i, 70_000, 0], "text": [b"row %d" % i], "score": [i / 2]}
    for i in range(10)
]


@pytest.fixture
def shards(tmp_path):
    writer = ShardWriter(tmp_path, "train", shard_bytes=300)
    for row in ROWS:
        writer.write(row)
    writer.close()
    return writer.shards


def token_ids(example):
    return list(tf.train.Example.FromString(example).features.feature["token_ids"].int64_list.value)


@pytest.mark.usefixtures("shards")
def test_the_shards_are_plain_tfrecords_of_examples(tmp_path):
    paths = sorted(str(path) for path in tmp_path.glob("train-*.tfrecord"))
    spec = {
        "token_ids": tf.io.FixedLenFeature([4], tf.int64),
        "text": tf.io.FixedLenFeature([1], tf.string),
        "score": tf.io.FixedLenFeature([1], tf.float32),
    }
    rows = [tf.io.parse_single_example(data, spec) for data in tf.data.TFRecordDataset(paths)]
    assert [{name: v.numpy().tolist() for name, v in row.items()} for row in rows] == ROWS


def test_shards_end_at_their_size_and_their_rows_are_listed(shards, tmp_path):
    assert [shard["file"] for shard in shards[:2]] == [
        "train-00000.tfrecord",
        "train-00001.tfrecord",
    ]
    for shard in shards:
        data = tf.data.TFRecordDataset(str(tmp_path / shard["file"]))
        assert sum(1 for _ in data) == shard["rows"]
        assert (tmp_path / shard["file"]).stat().st_size == shard["bytes"]
    assert sum(shard["rows"] for shard in shards) == len(ROWS)
    assert len(shards) > 2


def test_rows_are_read_in_any_order_across_shards(shards, tmp_path):
    reader = ShardReader(tmp_path, "train", shards)
    order = [9, 0, 3, 3, 8, 1, 2, 4, 5, 6, 7]
    read = [token_ids(example) for example in reader.read(np.array(order))]
    assert read == [ROWS[i]["token_ids"] for i in order]


def test_a_reader_keeps_its_data_when_the_files_are_gone(shards, tmp_path):
    reader = ShardReader(tmp_path, "train", shards)
    for path in tmp_path.iterdir():
        path.unlink()
    assert token_ids(reader.read([7])[0]) == ROWS[7]["token_ids"]


@pytest.mark.parametrize("name", ["train-00001.tfrecord", "train.index"])
def test_a_missing_or_cut_file_is_named(shards, tmp_path, name):
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-1])
    with pytest.raises(UserError, match=f"{name} has .* bytes instead of .*: prepare the data aga"):
        ShardReader(tmp_path, "train", shards)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing: prepare the data again"):
        ShardReader(tmp_path, "train", shards)

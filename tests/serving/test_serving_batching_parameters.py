"""The parameters of batching and their file."""

import pytest

from tfllm.errors import UserError
from tfllm.serving.batching_parameters import BatchingParameters, read_batching_parameters


def test_the_stock_servers_file_is_read(tmp_path):
    path = tmp_path / "batching.config"
    path.write_text(
        """
        # as in the documentation of the stock server
        max_batch_size { value: 128 }
        batch_timeout_micros { value: 0 }
        max_enqueued_batches { value: 1000000 }
        num_batch_threads { value: 8 }
        thread_pool_name { value: "some_threads" }
        allowed_batch_sizes: 8
        allowed_batch_sizes: [32, 128]
        pad_variable_length_inputs: true
        """
    )
    assert read_batching_parameters(path) == BatchingParameters(
        max_batch_size=128,
        batch_timeout_micros=0,
        max_enqueued_batches=1_000_000,
        num_batch_threads=8,
        thread_pool_name="some_threads",
        allowed_batch_sizes=(8, 32, 128),
        pad_variable_length_inputs=True,
    )


def test_what_a_file_leaves_out_is_as_in_the_stock_server(tmp_path):
    path = tmp_path / "batching.config"
    path.write_text("num_batch_threads { value: 3 }")
    read = read_batching_parameters(path)
    assert read == BatchingParameters(num_batch_threads=3)
    assert (read.max_batch_size, read.batch_timeout_micros, read.max_enqueued_batches) == (
        1000,
        0,
        10,
    )


def test_with_splitting_the_allowed_sizes_are_those_of_the_batches_that_run(tmp_path):
    path = tmp_path / "batching.config"
    path.write_text(
        "max_batch_size { value: 64 } max_execution_batch_size { value: 16 } "
        "enable_large_batch_splitting { value: true } allowed_batch_sizes: [4, 16]"
    )
    read = read_batching_parameters(path)
    assert (read.largest, read.padded(3), read.padded(5)) == (16, 4, 16)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size: 8", "lines such as `max_batch_size { value: 8 }`: 1:17"),
        ("batch_size { value: 8 }", '1:1 : Message type .* has no field named "batch_size"'),
        ("\x80", "is not the text form of BatchingParameters"),
        ("max_batch_size { value: 0 }", "max_batch_size must be positive; was 0"),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("max_enqueued_batches { value: 0 }", "max_enqueued_batches must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: [2, 4]",
            "must match max_batch_size; last entry was 4; expected 8",
        ),
        ("allowed_batch_sizes: [4, 2, 1000]", r"increasing; were \[4, 2, 1000\]"),
        (
            "max_batch_size { value: 8 } max_execution_batch_size { value: 9 } "
            "enable_large_batch_splitting { value: true }",
            "max_execution_batch_size must not exceed max_batch_size; was 9",
        ),
    ],
)
def test_a_file_that_the_stock_server_would_refuse_is_refused(tmp_path, text, words):
    path = tmp_path / "batching.config"
    path.write_text(text, "latin-1")
    with pytest.raises(UserError, match=words):
        read_batching_parameters(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read .*missing: No such file"):
        read_batching_parameters(tmp_path / "missing")

"""The parameters of server-side batching, and the file that the stock server reads them from.

Source:
    tensorflow_serving/servables/tensorflow/session_bundle_config.proto (`BatchingParameters`),
    tensorflow_serving/servables/tensorflow/bundle_factory_util.{h,cc} and
    tensorflow/core/kernels/batching_util/shared_batch_scheduler.h, read for names, defaults and
    what is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from tfllm.errors import UserError

# The fields that are messages with a value, so that a zero can be told from what is left out.
_WRAPPERS = {
    "max_batch_size": "Int64Value",
    "batch_timeout_micros": "Int64Value",
    "max_enqueued_batches": "Int64Value",
    "num_batch_threads": "Int64Value",
    "max_execution_batch_size": "Int64Value",
    "enable_large_batch_splitting": "BoolValue",
    "thread_pool_name": "StringValue",
}


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class BatchingParameters:
    """How requests merge into batches; the defaults are the stock server's.

    Attributes:
        max_batch_size: Rows of a batch, and of a request.
        batch_timeout_micros: Microseconds that a request waits for others while a thread is idle.
        max_enqueued_batches: Batches of one signature that may wait; UNAVAILABLE beyond.
        num_batch_threads: Batches of one version of a model that run at the same time. (The stock
            server has this number of threads for all models together.)
        allowed_batch_sizes: Batches are filled up to the next of these sizes with copies of a row;
            increasing, the last one being the largest batch. Empty allows every size.
        pad_variable_length_inputs: Whether inputs that differ in other dimensions than the first
            are made equal, with copies of their first element.
        enable_large_batch_splitting: Whether a request may be cut to fill several batches.
        max_execution_batch_size: With splitting, rows of a batch; `max_batch_size` is then the
            limit of a request alone. None is `max_batch_size`.
        thread_pool_name: Name of the threads.

    Raises:
        UserError: a number out of its range, or allowed sizes that do not fit.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = field(default_factory=_num_processors)
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int | None = None
    thread_pool_name: str = "batch_threads"

    def __post_init__(self):
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads", "largest"):
            if (value := getattr(self, name)) < 1:
                raise UserError(f"{name} must be positive; was {value}")
        if self.batch_timeout_micros < 0:
            raise UserError(
                f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}"
            )
        if self.largest > self.max_batch_size:
            raise UserError(
                f"max_execution_batch_size must not exceed max_batch_size; was {self.largest}; "
                f"max_batch_size is {self.max_batch_size}"
            )
        sizes = self.allowed_batch_sizes
        if not sizes:
            return
        if sizes[0] < 1 or list(sizes) != sorted(set(sizes)):
            raise UserError(
                f"allowed_batch_sizes must be positive and increasing; were {list(sizes)}"
            )
        if sizes[-1] != self.largest:
            raise UserError(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
                f"{sizes[-1]}; expected {self.largest}"
            )

    @property
    def largest(self) -> int:
        """Rows of the largest batch."""
        if self.enable_large_batch_splitting and self.max_execution_batch_size is not None:
            return self.max_execution_batch_size
        return self.max_batch_size

    def padded(self, rows: int) -> int:
        """The allowed batch size for a number of rows."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)


def read_batching_parameters(path: str | os.PathLike) -> BatchingParameters:
    """The parameters of a `--batching_parameters_file`: the text form of `BatchingParameters`.

    Raises:
        UserError: a file that cannot be read or parsed, or as `BatchingParameters`.
    """
    message = _message_class()()
    try:
        text_format.Parse(Path(path).read_bytes(), message)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not the text form of BatchingParameters, with lines such as "
            f"`max_batch_size {{ value: 8 }}`: {error}"
        ) from error
    given: dict[str, Any] = {
        "allowed_batch_sizes": tuple(message.allowed_batch_sizes),
        "pad_variable_length_inputs": message.pad_variable_length_inputs,
    }
    for name in _WRAPPERS:
        if message.HasField(name):
            given[name] = getattr(message, name).value
    return BatchingParameters(**given)


def _message_class():
    """`BatchingParameters`, which the wheel of the API lacks; in text, numbers do not matter."""
    file = descriptor_pb2.FileDescriptorProto(
        name="batching_parameters.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    message = file.message_type.add(name="BatchingParameters")
    message.field.add(name="allowed_batch_sizes", number=1, label=3, type=3)  # repeated int64
    message.field.add(name="pad_variable_length_inputs", number=2, label=1, type=8)  # bool
    for number, (name, wrapper) in enumerate(_WRAPPERS.items(), 3):
        type_name = f".google.protobuf.{wrapper}"
        message.field.add(name=name, number=number, label=1, type=11, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("tensorflow.serving.BatchingParameters")
    )

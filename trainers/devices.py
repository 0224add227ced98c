"""What devices can do at most: a table of accelerators, and a measurement of this CPU."""

import dataclasses
import functools
import math
import os
import time
from typing import NamedTuple

import tensorflow as tf

from tfllm.errors import UserError
from tfllm.trainers.surroundings import accelerators

_GiB, _GB = 2**30, 10**9


@dataclasses.dataclass(frozen=True)
class Device:
    """The peaks of one accelerator, or of a machine's CPU.

    Attributes:
        name: For people.
        flops: Floating-point operations per second of products of matrices, by precision, without
            sparsity.
        memory_bytes: Of its own.
        memory_bytes_s: Bytes per second from and to its memory.
        interconnect_bytes_s: Bytes per second that it sends to its neighbours in one machine or
            pod, in one direction, over all links together.
        source: Where the numbers come from.
        is_shared: Whether all replicas share one, as logical CPUs do.
    """

    name: str
    flops: dict[str, float]
    memory_bytes: int
    memory_bytes_s: float
    interconnect_bytes_s: float
    source: str
    is_shared: bool = False


def _tpu(name, teraflops, gigabytes, memory, interconnect, page):
    # XLA multiplies float32 in bfloat16 passes by default, so one peak is for both.
    flops = {"float32": teraflops * 1e12, "bfloat16": teraflops * 1e12}
    source = f"https://cloud.google.com/tpu/docs/{page}"
    return Device(name, flops, gigabytes * _GiB, memory * _GB, interconnect * _GB, source)


def _gpu(name, tf32, bfloat16, memory, nvlink, page):
    # TensorFlow multiplies float32 as TF32 on these; NVLink's number counts both directions.
    flops = {"float32": tf32 * 1e12, "bfloat16": bfloat16 * 1e12}
    source = f"https://www.nvidia.com/en-us/data-center/{page}"
    return Device(name, flops, 80 * _GB, memory * _GB, nvlink / 2 * _GB, source)


# Google gives 2400, 1600 and 4800 Gbit/s of interconnect per chip, one way over all links.
DEVICES = {
    "v4": _tpu("TPU v4", 275, 32, 1200, 300, "v4"),
    "v5e": _tpu("TPU v5e", 197, 16, 819, 200, "v5e"),
    "v5p": _tpu("TPU v5p", 459, 95, 2765, 600, "v5p"),
    "a100": _gpu("NVIDIA A100 80 GB SXM", 156, 312, 2039, 600, "a100"),
    "h100": _gpu("NVIDIA H100 SXM", 494.7, 989.4, 3350, 900, "h100"),
}
# As in the names that drivers and Google Cloud's machines give.
_KNOWN_BY = {"A100": "a100", "H100": "h100", "v5litepod": "v5e", "v5p": "v5p", "v4": "v4"}

_PRODUCT_SIDE = 1024
_COPY_BYTES = 256 * 2**20  # more than the caches hold
_MEASURED_S = 0.25


def device_named(name: str) -> Device:
    """A device of the table, or `cpu`: this machine's, measured.

    Raises:
        UserError: for another name.
    """
    if name == "cpu":
        return measured_cpu()
    if name not in DEVICES:
        raise UserError(f"device must be cpu, {', '.join(DEVICES)}: got {name!r}.")
    return DEVICES[name]


class Peak(NamedTuple):
    """What one device of this machine can do at most.

    Attributes:
        flops: Floating-point operations per second.
        source: Where that is from.
        is_shared: Whether it is a CPU, which its logical devices share.
    """

    flops: float
    source: str
    is_shared: bool


def peak_flops(precision: str) -> Peak | None:
    """Of this machine.

    A CPU is measured once in a process, a quarter of a second long. None for an accelerator
    that is not in the table.

    Args:
        precision: "float32" or "bfloat16".
    """
    kind = os.environ.get("TPU_ACCELERATOR_TYPE", "")
    names = [name for name in (*accelerators(), kind) if name]
    if not names:
        flops = measured_product_flops(precision)
        return Peak(flops, "measured: a product of matrices on this CPU", is_shared=True)
    for mark, known in _KNOWN_BY.items():
        if any(mark in name for name in names):
            device = DEVICES[known]
            return Peak(device.flops[precision], f"{device.name}, {device.source}", is_shared=False)
    return None


@functools.cache
def measured_product_flops(precision: str) -> float:
    """Operations per second of the fastest of some products [1024, 1024] · [1024, 1024]."""
    with tf.device("CPU:0"):
        a = tf.cast(tf.random.stateless_uniform([_PRODUCT_SIDE] * 2, seed=[0, 0]), precision)
        return 2 * _PRODUCT_SIDE**3 / _fastest(lambda: tf.matmul(a, a))


def measured_cpu() -> Device:
    """This machine's CPU with the threads that TensorFlow has: its products, copies and memory."""
    with tf.device("CPU:0"):
        block = tf.ones([_COPY_BYTES // 4])
        copied = 2 * _COPY_BYTES / _fastest(lambda: -block)  # read and written
    return Device(
        name="this CPU",
        flops={name: measured_product_flops(name) for name in ("float32", "bfloat16")},
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        memory_bytes_s=copied,
        interconnect_bytes_s=copied,  # replicas on one CPU share its memory
        source="measured now",
        is_shared=True,
    )


def _fastest(compute) -> float:
    """Seconds of the fastest of some calls, if all threads had a core to themselves.

    In CPU time, because other work on the machine takes nothing away from what it can do.
    """
    threads = tf.config.threading.get_intra_op_parallelism_threads() or math.inf
    cores = min(threads, len(os.sched_getaffinity(0)))
    compute()
    times: list[float] = []
    while len(times) < 2 or sum(times) < _MEASURED_S:
        began = time.process_time()
        compute()
        times.append(time.process_time() - began)
    return min(times) / cores

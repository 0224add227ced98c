"""What devices can do at most: a table of accelerators, and a measurement of this CPU."""

import dataclasses
import functools
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
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
            pod, in one direction, over all links together. None: the replicas are in one process
            and add their gradients up in its memory.
        source: Where the numbers come from.
        is_shared: Whether all replicas share one, as logical CPUs and processes of a machine do.
        elements_s: Elements per second of kinds of operations whose arithmetic takes longer than
            the memory.
        runtime_bytes: What each process holds beside the step, without the code of its libraries.
    """

    name: str
    flops: dict[str, float]
    memory_bytes: int
    memory_bytes_s: float
    interconnect_bytes_s: float | None
    source: str
    is_shared: bool = False
    elements_s: dict[str, float] = dataclasses.field(default_factory=dict)
    runtime_bytes: int = 0

    def processes(self, replicas: int) -> int:
        """How many of them train so many replicas."""
        if not self.is_shared or self.interconnect_bytes_s is None:
            return 1
        return replicas


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
_ELEMENTS = 2**20
# As the matrices of a small model, which are summed one by one: a larger one goes faster.
_SENT_BYTES, _SENT_TENSORS = 2**20, 16
_MEASURED_S = 0.25
# Without the code of the libraries, which processes share. 370 MiB are there once TensorFlow and
# Keras are imported; the rest are traced graphs, what XLA compiled, threads and the pipeline.
_RUNTIME_BYTES = 640 * 2**20


def device_named(name: str) -> Device:
    """A device of the table; or this machine's CPU, measured.

    Args:
        name: Of the table; or `cpu`, whose replicas are logical CPUs of one process; or
            `cpu_workers`, where each is a process of its own and sends over 127.0.0.1.

    Raises:
        UserError: for another name.
    """
    if name == "cpu":
        return measured_cpu()
    if name == "cpu_workers":
        return dataclasses.replace(
            measured_cpu(),
            name="processes of this CPU",
            interconnect_bytes_s=measured_loopback_bytes_s(),
        )
    if name not in DEVICES:
        raise UserError(f"device must be cpu, cpu_workers, {', '.join(DEVICES)}: got {name!r}.")
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
        interconnect_bytes_s=None,
        source="measured now",
        is_shared=True,
        elements_s={kind: _ELEMENTS / _fastest(compute) for kind, compute in _slow_arithmetic()},
        runtime_bytes=_RUNTIME_BYTES,
    )


def _slow_arithmetic() -> Iterator[tuple[str, Callable]]:
    """Kinds of elementwise operations of a step that are slower than the memory of a CPU."""
    x = tf.fill([_ELEMENTS], 0.5)
    yield "Erfc", lambda: tf.math.erfc(x)
    yield "StatelessRandomUniformV2", lambda: tf.random.stateless_uniform([_ELEMENTS], [0, 1])


def measured_loopback_bytes_s() -> float:
    """Bytes per second that two of TensorFlow's servers in this process send to each other, in all.

    By the sum of gradients of `MultiWorkerMirroredStrategy`, which is a ring. The two take turns
    to work, so it is processor time of one core. The servers stay until the process ends.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        addresses = [f"127.0.0.1:{held.getsockname()[1]}" for held in (one, other)]
    cluster = tf.train.ClusterSpec({"worker": addresses})
    options = tf.compat.v1.ConfigProto()
    options.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
    servers = [tf.distribute.Server(cluster, "worker", task, config=options) for task in (0, 1)]
    with tf.Graph().as_default():
        sums = [_sum_over_two(task, i) for task in (0, 1) for i in range(_SENT_TENSORS)]
        with tf.compat.v1.Session(servers[0].target, config=options) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            seconds = _fastest(lambda: session.run([one.op for one in sums]), cores=1)
    return 2 * _SENT_TENSORS * _SENT_BYTES / seconds  # each sends 2 (n - 1) / n of it, n = 2


def _sum_over_two(task: int, number: int) -> tf.Tensor:
    with tf.device(f"/job:worker/task:{task}/cpu:0"):
        part = tf.compat.v1.get_variable(
            f"part_{task}_{number}", initializer=tf.ones([_SENT_BYTES // 4]), use_resource=True
        )
        return tf.raw_ops.CollectiveReduce(
            input=part, group_size=2, group_key=1, instance_key=number, merge_op="Add",
            final_op="Id", subdiv_offsets=[0], communication_hint="ring",
        )  # fmt: skip


def _fastest(compute, cores: float = 0) -> float:
    """Seconds of the fastest of some calls, if all threads had a core to themselves.

    In CPU time, because other work on the machine takes nothing away from what it can do.

    Args:
        compute: What is called.
        cores: On how many it works at once; 0 = as many as TensorFlow's threads have.
    """
    threads = tf.config.threading.get_intra_op_parallelism_threads() or math.inf
    cores = cores or min(threads, len(os.sched_getaffinity(0)))
    compute()
    times: list[float] = []
    while len(times) < 2 or sum(times) < _MEASURED_S:
        began = time.process_time()
        compute()
        times.append(time.process_time() - began)
    return min(times) / cores

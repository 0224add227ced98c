"""Where a run computes: one device, several of the machine, several machines, or a TPU."""

import functools
import json
import os
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfllm.errors import UserError

LOGICAL_CPUS = "TFLLM_LOGICAL_CPUS"
CLUSTER = "TF_CONFIG"


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """The `tf.distribute` strategy of a run.

    Args:
        name: One of
            `one`: the first GPU, else the CPU.
            `mirrored`: every GPU; without any, every logical CPU. The environment variable
                `TFLLM_LOGICAL_CPUS=2` splits the CPU in two, if TensorFlow has not started yet.
            `multiworker`: the devices of several processes that run the same program. Each is told
                of all by the environment variable `TF_CONFIG`, in TensorFlow's own form, and waits
                here until all are there. It has to be the first thing that TensorFlow does.
            `tpu`: the TPU of this machine, or the one that `TPU_NAME` names.
            `auto`: `tpu` if there is one, `multiworker` if `TF_CONFIG` names several workers,
                `mirrored` if there are several GPUs, else `one`.

    Raises:
        UserError: for another name, for hardware that is not there, and when a
            `keras.distribution` is set, which Keras on TensorFlow silently ignores.
    """
    if keras.distribution.distribution() is not None:
        raise UserError(
            "keras.distribution does nothing on TensorFlow, and one is set. "
            "Take it back by keras.distribution.set_distribution(None) and choose a strategy here."
        )
    if name == "auto":
        name = _choose()
    if name not in _STRATEGIES:
        raise UserError(f"strategy must be auto, {', '.join(_STRATEGIES)}: got {name!r}.")
    return _STRATEGIES[name]()


def _choose() -> str:
    if "TPU_NAME" in os.environ or tf.config.list_physical_devices("TPU"):
        return "tpu"
    if CLUSTER in os.environ and len(_workers(_cluster())) > 1:
        return "multiworker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one"


def _one() -> tf.distribute.Strategy:
    # The default strategy, not OneDeviceStrategy: Keras then compiles and places as without any.
    return tf.distribute.get_strategy()


def _mirrored() -> tf.distribute.Strategy:
    if LOGICAL_CPUS in os.environ:
        _split_cpu(os.environ[LOGICAL_CPUS])
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1 and devices[0].device_type == "CPU":
        raise UserError(
            "strategy mirrored needs several devices: this machine has one CPU and no GPU. "
            f"Set {LOGICAL_CPUS}=2 to split the CPU in two, or use the strategy one."
        )
    return _mirrored_over(devices[0].device_type, tuple(device.name for device in devices))


# TensorFlow numbers the collective operations of every strategy from the same start, so a second
# strategy over the same devices meets the shapes of the first one's and aborts. One strategy for
# the process avoids that, and on CPUs so does summing without collectives, which also bears the
# strategies that others make.
@functools.cache
def _mirrored_over(device_type: str, names: tuple[str, ...]) -> tf.distribute.Strategy:
    summing = tf.distribute.ReductionToOneDevice() if device_type == "CPU" else None
    return tf.distribute.MirroredStrategy(list(names), cross_device_ops=summing)


def _split_cpu(count: str) -> None:
    if not count.isdecimal() or int(count) < 1:
        raise UserError(f"{LOGICAL_CPUS} must be a whole number of at least 1: got {count!r}.")
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * int(count)
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) == len(parts):
        return
    try:
        tf.config.set_logical_device_configuration(cpu, parts)
    except RuntimeError:  # TensorFlow has started
        raise UserError(
            f"{LOGICAL_CPUS}={count} comes too late: TensorFlow already runs. Make the strategy "
            "before the first tensor of the process."
        ) from None


@functools.cache  # its servers cannot be started twice
def _multiworker() -> tf.distribute.Strategy:
    cluster = _cluster()
    task = cluster.get("task", {})
    if not _workers(cluster) or (task.get("type"), task.get("index")) not in _workers(cluster):
        raise UserError(
            f"{CLUSTER} must name the workers and which of them this process is, "
            f"{_EXAMPLE}: got {os.environ[CLUSTER]}"
        )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise UserError(
            "The strategy multiworker comes too late: TensorFlow already runs. Make it before the "
            "first tensor of the process."
        ) from None


_EXAMPLE = (
    'as in {"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def _cluster() -> dict[str, Any]:
    if CLUSTER not in os.environ:
        raise UserError(f"strategy multiworker needs {CLUSTER}, {_EXAMPLE}.")
    try:
        found = json.loads(os.environ[CLUSTER])
    except ValueError as error:
        raise UserError(f"{CLUSTER} must be JSON, {_EXAMPLE}: {error}.") from None
    return found if isinstance(found, dict) else {}


def _workers(cluster: dict[str, Any]) -> list[tuple[str, int]]:
    """The (type, index) of each, the chief first."""
    jobs = cluster.get("cluster", {})
    return [(job, i) for job in ("chief", "worker") for i in range(len(jobs.get(job, ())))]


def is_chief(name: str) -> bool:
    """Whether this process speaks for its run, which it does unless it is one of many workers.

    Args:
        name: The strategy, as of `make_strategy`.
    """
    if name not in ("auto", "multiworker") or CLUSTER not in os.environ:
        return True
    task = _cluster().get("task", {})
    return [(task.get("type"), task.get("index"))] == _workers(_cluster())[:1]


def _tpu() -> tf.distribute.Strategy:
    address = os.environ.get("TPU_NAME", "local")  # "local" on the virtual machine of a TPU
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
        if address != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.NotFoundError, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"No TPU at {address!r} ({reason}). Run on a TPU machine with its TensorFlow "
            "(pip install tensorflow-tpu), or set TPU_NAME."
        ) from None
    return tf.distribute.TPUStrategy(resolver)


_STRATEGIES: dict[str, Callable[[], tf.distribute.Strategy]] = {
    "one": _one,
    "mirrored": _mirrored,
    "multiworker": _multiworker,
    "tpu": _tpu,
}

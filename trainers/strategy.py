"""Where a run computes: one device, the GPUs of the machine, its logical CPUs, or a TPU."""

import functools
import os

import keras
import tensorflow as tf

from tfllm.errors import UserError

LOGICAL_CPUS = "TFLLM_LOGICAL_CPUS"


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """The `tf.distribute` strategy of a run.

    Args:
        name: One of
            `one`: the first GPU, else the CPU.
            `mirrored`: every GPU; without any, every logical CPU. The environment variable
                `TFLLM_LOGICAL_CPUS=2` splits the CPU in two, if TensorFlow has not started yet.
            `tpu`: the TPU of this machine, or the one that `TPU_NAME` names.
            `auto`: `tpu` if there is one, `mirrored` if there are several GPUs, else `one`.

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


_STRATEGIES = {"one": _one, "mirrored": _mirrored, "tpu": _tpu}

"""The choice of a strategy and what is refused."""

import json
import os
import subprocess
import sys

import keras
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.trainers.strategy import is_chief, make_strategy


def test_auto_on_a_machine_without_accelerators_is_one_device():
    assert make_strategy("auto") is tf.distribute.get_strategy()


def test_mirrored_without_gpus_takes_the_logical_cpus():
    strategy = make_strategy("mirrored")
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == len(tf.config.list_logical_devices("CPU")) == 2


def test_an_unknown_name_is_refused_with_the_choices():
    with pytest.raises(
        UserError, match="must be auto, one, mirrored, multiworker, tpu: got 'miror'"
    ):
        make_strategy("miror")


def test_a_missing_tpu_is_said_with_its_address(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "local")
    with pytest.raises(UserError, match=r"No TPU at 'local' \(TPUs not found"):
        make_strategy("auto")


WORKERS = ["127.0.0.1:1", "127.0.0.1:2"]


def told(cluster, **task):
    return json.dumps({"cluster": cluster, "task": task})


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (None, "multiworker needs TF_CONFIG, as in {"),
        ("workers", "TF_CONFIG must be JSON, as in {.*: Expecting value"),
        (told({}), "must name the workers and which of them this process is"),
        (told({"worker": WORKERS}, type="worker", index=2), "which of them this process is.*: got"),
        (told({"worker": WORKERS}, type="evaluator", index=0), "which of them this process is"),
        (told({"worker": WORKERS}, type="worker", index=0), "multiworker comes too late: Tens"),
    ],
)
def test_several_workers_that_are_not_told_of_each_other_are_refused(monkeypatch, told, words):
    tf.zeros(1)
    if told is not None:
        monkeypatch.setenv("TF_CONFIG", told)
    with pytest.raises(UserError, match=words):
        make_strategy("multiworker")


def test_auto_takes_several_workers_and_leaves_one_alone(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", told({"worker": WORKERS[:1]}, type="worker", index=0))
    assert make_strategy("auto") is tf.distribute.get_strategy()
    monkeypatch.setenv("TF_CONFIG", told({"worker": WORKERS}, type="worker", index=0))
    with pytest.raises(UserError, match="multiworker comes too late"):
        make_strategy("auto")


@pytest.mark.parametrize(
    ("name", "cluster", "task", "speaks"),
    [
        ("auto", {"worker": WORKERS}, ("worker", 0), True),
        ("auto", {"worker": WORKERS}, ("worker", 1), False),
        ("one", {"worker": WORKERS}, ("worker", 1), True),
        ("multiworker", {"chief": WORKERS[:1], "worker": WORKERS[1:]}, ("chief", 0), True),
        ("multiworker", {"chief": WORKERS[:1], "worker": WORKERS[1:]}, ("worker", 0), False),
    ],
)
def test_one_process_of_a_run_speaks_for_it(monkeypatch, name, cluster, task, speaks):
    monkeypatch.setenv("TF_CONFIG", told(cluster, type=task[0], index=task[1]))
    assert is_chief(name) is speaks


def test_a_keras_distribution_is_refused():
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=["cpu:0"]))
    try:
        with pytest.raises(UserError, match=r"keras\.distribution does nothing on TensorFlow"):
            make_strategy("one")
    finally:
        keras.distribution.set_distribution(None)


@pytest.mark.parametrize("count", ["0", "two"])
def test_a_senseless_number_of_logical_cpus_is_refused(monkeypatch, count):
    monkeypatch.setenv("TFLLM_LOGICAL_CPUS", count)
    with pytest.raises(UserError, match=f"whole number of at least 1: got '{count}'"):
        make_strategy("mirrored")


def test_splitting_the_cpu_after_the_start_is_refused(monkeypatch):
    tf.zeros(1)
    monkeypatch.setenv("TFLLM_LOGICAL_CPUS", "3")
    with pytest.raises(UserError, match="TFLLM_LOGICAL_CPUS=3 comes too late"):
        make_strategy("mirrored")


@pytest.mark.parametrize(
    ("environment", "answer"),
    [({"TFLLM_LOGICAL_CPUS": "2"}, "2"), ({}, "this machine has one CPU and no GPU")],
)
def test_a_fresh_process_splits_its_cpu_when_asked(environment, answer):
    code = (
        "from tfllm.trainers.strategy import make_strategy as make, UserError\n"
        "try: print(make('mirrored').num_replicas_in_sync)\n"
        "except UserError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer in run.stdout

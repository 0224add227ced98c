"""One table: each feature of training on one device, on two replicas and in two processes."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import alike
import numpy as np
import pytest
import tensorflow as tf

from tfllm.trainers import make_strategy


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def started_workers(folder):
    """Two processes of `alike.main`."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    for worker in range(2):
        task = {"type": "worker", "index": worker}
        cluster = {"cluster": {"worker": addresses}, "task": task}
        (folder / f"tmp-{worker}").mkdir()
        yield subprocess.Popen(
            [sys.executable, Path(__file__).with_name("alike.py"), folder, str(worker)],
            env=os.environ
            | {"TF_CONFIG": json.dumps(cluster), "TMPDIR": str(folder / f"tmp-{worker}")},
            stderr=subprocess.PIPE,
            text=True,
        )


def differences(found, expected, tolerance):
    """What is not alike: losses relative to their size, weights absolutely."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        slack = {"atol": tolerance} if name.startswith("weight") else {"rtol": tolerance}
        try:
            np.testing.assert_allclose(found[name], value, **{"rtol": 0, **slack})
        except AssertionError as error:
            yield f"{name}: {error}"


@pytest.mark.slow
def test_every_feature_trains_alike_on_one_device_two_replicas_and_two_processes(
    tiny, train, tmp_path
):
    recipe = dataclasses.replace(tiny, patience=9, ema=0.5, sample_prompts=())
    (tmp_path / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe)))
    processes = list(started_workers(tmp_path))
    one = [alike.trained(row, tf.distribute.get_strategy()) for row in alike.ROWS.values()]
    two = [alike.trained(row, make_strategy("mirrored")) for row in alike.ROWS.values()]
    result, losses = train(recipe, "one", strategy="one")
    said = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, -signal.SIGKILL], said

    wrong = []
    for place, (name, row) in enumerate(alike.ROWS.items()):
        columns = {"mirrored": two[place]}
        for worker in range(2):
            with np.load(tmp_path / f"row-{place}-worker-{worker}.npz") as found:
                columns[f"worker {worker}"] = dict(found)
        for column, found in columns.items():
            for difference in differences(found, one[place], row.tolerance):
                wrong.append(f"{name}, {column}: {difference}")
    assert not wrong, "\n".join(wrong)

    told = [json.loads((tmp_path / f"told-by-{worker}.json").read_text()) for worker in range(2)]
    a_signal_to_one_worker_stops_all_and_they_go_on_together(told, result, losses, tmp_path)
    a_lost_worker_is_told_and_another_number_of_them_goes_on(told, losses, train, recipe, tmp_path)


def a_signal_to_one_worker_stops_all_and_they_go_on_together(told, result, losses, folder):
    for words in told:
        assert words["exit code"] == 143
        stopped, resumed, finished = words["losses"][:3]
        np.testing.assert_allclose([*stopped, *resumed], losses, rtol=1e-5)
        assert (len(stopped), finished) == (3, [])
        assert words["stopped"] == told[0]["stopped"]  # the chief's, and the run is there
        assert words["stopped"]["best_step"] == result.best_step
        assert words["stopped"]["validation_loss"] == pytest.approx(
            result.validation_loss, rel=1e-5
        )
    assert (folder / "stopped" / "preset" / "config.json").is_file()
    assert not list(folder.glob("tmp-0/tfllm-worker-*"))  # the chief writes the run's folder
    assert len(list(folder.glob("tmp-1/tfllm-worker-*"))) == 1  # that of the kill


def a_lost_worker_is_told_and_another_number_of_them_goes_on(told, losses, train, recipe, folder):
    assert "Another worker of this run is gone" in told[0]["failure"]
    np.testing.assert_allclose(told[0]["losses"][3], losses[:5], rtol=1e-5)
    (folder / "on-one").mkdir()
    (folder / "killed").rename(folder / "on-one" / "run")
    _, resumed = train(recipe, "on-one", strategy="one")
    np.testing.assert_allclose(resumed, losses[4:], rtol=1e-5)

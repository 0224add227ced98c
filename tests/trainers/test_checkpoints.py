"""Checkpoints: what comes back, what is kept, and what happens to damaged ones."""

import threading

import keras
import numpy as np
import pytest

from tfllm.errors import Failure
from tfllm.optimizers import AdamW
from tfllm.trainers.checkpoints import UNWRITABLE, Checkpoints

X, Y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")


def make_model(seed, units=4, frozen_layers=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(1)(keras.layers.Dense(units)(inputs))
    for _ in range(frozen_layers):
        outputs = keras.layers.Dense(1, trainable=False)(outputs)
    model = keras.Model(inputs, outputs)
    model.compile(AdamW(0.1), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def trained(tmp_path):
    """A model after four steps, with a checkpoint of each of them; two are kept."""
    model = make_model(seed=0)
    checkpoints = Checkpoints(tmp_path / "checkpoints", model, keep=2)
    for step in range(1, 5):
        model.fit(X, Y, verbose=0)
        checkpoints.save(step)
    return model, checkpoints


def state(model):
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


def test_weights_optimizer_and_step_come_back(trained):
    model, checkpoints = trained
    other = make_model(seed=5)
    assert Checkpoints(checkpoints.folder, other, keep=2).restore() == 4
    for restored, saved in zip(state(other), state(model), strict=True):
        np.testing.assert_array_equal(restored, saved)
    assert other.optimizer.iterations.numpy() == 4


def test_the_newest_are_kept(trained):
    _, checkpoints = trained
    assert checkpoints.steps() == [3, 4]
    assert len(list(checkpoints.folder.iterdir())) == 2


def test_without_checkpoints_a_run_starts_at_step_0(tmp_path):
    assert Checkpoints(tmp_path / "none", make_model(seed=0), keep=2).restore() == 0


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)


def remove(path):
    path.unlink()


FILES = ["checkpoint.index", "checkpoint.data-00000-of-00001"]


@pytest.mark.parametrize("damage", [truncate, halve, empty, flip, remove])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_newest_one_is_skipped_and_said(trained, damage, file, capsys):
    _, checkpoints = trained
    damage(checkpoints.folder / "step-00000004" / file)
    other = make_model(seed=5)
    assert Checkpoints(checkpoints.folder, other, keep=2).restore() == 3
    assert other.optimizer.iterations.numpy() == 3
    assert "step-00000004 is skipped: " in capsys.readouterr().err


def test_an_empty_folder_is_skipped(trained):
    model, checkpoints = trained
    for file in FILES:
        (checkpoints.folder / "step-00000004" / file).unlink()
    assert Checkpoints(checkpoints.folder, model, keep=2).restore() == 3


@pytest.mark.parametrize("file", FILES)
def test_whatever_byte_is_flipped_no_other_state_is_restored(trained, file):
    model, checkpoints = trained
    path = checkpoints.folder / "step-00000004" / file
    whole, right = path.read_bytes(), state(model)
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            checkpoints.read(4)
        except Failure:
            continue
        for restored, saved in zip(state(model), right, strict=True):
            np.testing.assert_array_equal(restored, saved)


def test_a_snapshot_is_of_its_moment_though_the_training_goes_on(trained):
    model, checkpoints = trained
    expected = state(model)
    write = checkpoints.snapshot(5)
    model.fit(X, Y, verbose=0)
    thread = threading.Thread(target=write)
    thread.start()
    model.fit(X, Y, verbose=0)
    thread.join()
    assert Checkpoints(checkpoints.folder, model, keep=2).restore() == 5
    for restored, saved in zip(state(model), expected, strict=True):
        np.testing.assert_array_equal(restored, saved)


@pytest.mark.parametrize("largest", [0, 200])
def test_one_that_the_disk_refuses_leaves_the_older_ones_and_takes_no_room(
    trained, files_of_at_most, largest
):
    _, checkpoints = trained
    with files_of_at_most(largest), pytest.raises(UNWRITABLE, match="File too large"):
        checkpoints.save(5)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == [
        "step-00000003",
        "step-00000004",
    ]
    checkpoints.save(5)
    assert checkpoints.steps() == [4, 5]


def test_a_damaged_one_makes_room_for_its_step_and_does_not_count_as_kept(trained):
    model, checkpoints = trained
    truncate(checkpoints.folder / "step-00000004" / "checkpoint.index")
    checkpoints.restore()
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == [
        "damaged-step-00000004",
        "step-00000003",
    ]
    checkpoints.save(4)
    assert checkpoints.steps() == [3, 4]
    assert Checkpoints(checkpoints.folder, model, keep=2).restore() == 4


def test_one_that_was_being_written_is_cleared_away(trained):
    _, checkpoints = trained
    (checkpoints.folder / "step-00000004").rename(checkpoints.folder / ".writing-step-00000004")
    assert checkpoints.restore() == 3
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000003"]


def test_when_none_can_be_read_the_run_is_refused(trained, capsys):
    _, checkpoints = trained
    other = Checkpoints(checkpoints.folder, make_model(seed=0, units=5), keep=2)
    with pytest.raises(Failure, match="None of the checkpoints .* can be read"):
        other.restore()
    assert capsys.readouterr().err.count("is skipped") == 2


def test_a_model_with_more_variables_is_not_restored_in_part(trained):
    _, checkpoints = trained
    larger = make_model(seed=0, frozen_layers=1)
    with pytest.raises(Failure, match="None of the checkpoints"):
        Checkpoints(checkpoints.folder, larger, keep=2).restore()

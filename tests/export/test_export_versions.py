"""Version folders, without a model: `write` is a text file."""

import os

import pytest

from tfllm.errors import UserError
from tfllm.export.versions import publish, publish_export


def write(folder):
    (folder / "saved_model.pb").write_text("graph")


def names(base):
    return sorted(entry.name for entry in base.iterdir())


def test_versions_count_on(tmp_path):
    base = tmp_path / "models" / "lm"
    assert [publish(base, [write])[0].name for _ in range(3)] == ["1", "2", "3"]
    assert names(base) == ["1", "2", "3"]


def test_the_next_version_is_one_above_the_highest_whatever_else_is_there(tmp_path):
    for name in ("7", "0003", "99-old", "v8", ".writing-1", "-9"):
        (tmp_path / name).mkdir()
    assert publish(tmp_path, [write]) == [tmp_path / "8"]


def test_a_version_appears_whole(tmp_path):
    def look(folder):
        write(folder)
        assert not [name for name in names(tmp_path) if name.isdecimal()]

    (version,) = publish(tmp_path, [look])
    assert names(version) == ["saved_model.pb"]
    assert version.stat().st_mode & 0o777 == 0o755  # a server of another user reads it


def test_a_write_that_fails_leaves_no_folder(tmp_path):
    def fail(folder):
        write(folder)
        raise OSError("No space left on device")

    publish(tmp_path, [write])
    with pytest.raises(OSError, match="No space left"):
        publish(tmp_path, [fail])
    assert names(tmp_path) == ["1"]


def test_of_several_none_appears_before_all_are_written(tmp_path):
    def look(folder):
        write(folder)
        assert not [name for name in names(tmp_path) if name.isdecimal()]

    assert publish(tmp_path, [write, look]) == [tmp_path / "1", tmp_path / "2"]
    assert names(tmp_path) == ["1", "2"]


def test_of_several_a_write_that_fails_leaves_none(tmp_path):
    def fail(_):
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        publish(tmp_path, [write, fail])
    assert names(tmp_path) == []


def test_a_kill_between_two_renames_leaves_the_earlier_version(tmp_path, monkeypatch):
    replace = os.replace

    def replace_once(source, target):
        if names(tmp_path)[-1] == "1":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_once)
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path, [write, write])
    assert names(tmp_path) == ["1"]


def test_of_two_exports_at_once_the_second_takes_the_next_number(tmp_path):
    def write_while_another_publishes(folder):
        write(folder)
        assert publish(tmp_path, [write]) == [tmp_path / "1"]

    assert publish(tmp_path, [write_while_another_publishes]) == [tmp_path / "2"]


def test_a_number_taken_at_the_last_moment_is_passed_over(tmp_path, monkeypatch):
    publish(tmp_path, [write])
    numbers = iter([1, 2])
    monkeypatch.setattr("tfllm.export.versions.next_version", lambda _: next(numbers))
    assert publish(tmp_path, [write]) == [tmp_path / "2"]
    assert names(tmp_path) == ["1", "2"]


def test_a_base_that_is_a_file_or_a_version_is_refused(tmp_path):
    (version,) = publish(tmp_path, [write])
    with pytest.raises(UserError, match=r"1 must be the folder that holds the versions .* not a v"):
        publish(version, [write])
    with pytest.raises(UserError, match="not a file"):
        publish(version / "saved_model.pb", [write])
    assert names(version) == ["saved_model.pb"]


def export(folder, text="graph"):
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(text)
    (folder / "variables" / "variables.index").write_text("index")
    return folder


def test_an_export_is_published_as_the_next_version(tmp_path):
    base = tmp_path / "served" / "lm"
    for number, text in ((9, "newest"), (10, "newer")):
        export(tmp_path / "models" / str(number), text)

    assert publish_export(tmp_path / "models" / "9", base) == base / "1"
    assert publish_export(tmp_path / "models", base) == base / "2"
    assert publish_export(base / "1", base) == base / "3"

    texts = [(base / name / "saved_model.pb").read_text() for name in names(base)]
    assert texts == ["newest", "newer", "newest"]
    assert (base / "3" / "variables" / "variables.index").read_text() == "index"
    assert (base / "3").stat().st_mode & 0o777 == 0o755


def test_what_is_no_export_is_not_published(tmp_path):
    (tmp_path / "empty" / "3").mkdir(parents=True)
    for folder in ("empty", "missing"):
        with pytest.raises(UserError, match=f"No SavedModel in .*{folder}: name an export"):
            publish_export(tmp_path / folder, tmp_path / "base")
    os.mkfifo(export(tmp_path / "odd") / "pipe")
    with pytest.raises(UserError, match="odd cannot be copied whole: .*pipe.* is a named pipe"):
        publish_export(tmp_path / "odd", tmp_path / "base")
    assert names(tmp_path / "base") == []

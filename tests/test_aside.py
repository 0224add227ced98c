"""What is written aside: on the disk before it has its name, and locked while it is written."""

import errno
import fcntl
import os
import signal

import pytest

from tfllm.aside import install, locked, make_folder, write_file
from tfllm.errors import UserError


@pytest.fixture
def events(monkeypatch):
    """What was synced and renamed, in order, by the inodes that the paths have in the end."""
    found = []
    fsync, replace = os.fsync, os.replace

    def log_fsync(descriptor):
        found.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def log_replace(old, new):
        found.append("renamed")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", log_fsync)
    monkeypatch.setattr(os, "replace", log_replace)
    return found


def test_every_file_and_folder_is_on_the_disk_before_the_name_and_the_name_too(tmp_path, events):
    aside, target = tmp_path / "aside", tmp_path / "target"
    (aside / "deep").mkdir(parents=True)
    (aside / "deep" / ".file").write_text("text")

    install(aside, target)

    renamed = events.index("renamed")
    inside = [target, target / "deep", target / "deep" / ".file"]
    assert set(events[:renamed]) == {path.stat().st_ino for path in inside}
    assert events[renamed + 1 :] == [tmp_path.stat().st_ino]


def test_a_file_replaces_a_file(tmp_path, events):
    (tmp_path / "aside").write_text("new")
    (tmp_path / "target").write_text("old")

    install(tmp_path / "aside", tmp_path / "target")

    assert (tmp_path / "target").read_text() == "new"
    assert events == [(tmp_path / "target").stat().st_ino, "renamed", tmp_path.stat().st_ino]


def test_a_folder_in_the_way_stays_unless_there_is_a_place_for_it(tmp_path):
    for name in ("aside", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")

    with pytest.raises(OSError, match="not empty"):
        install(tmp_path / "aside", tmp_path / "target")
    assert os.listdir(tmp_path / "target") == ["target"]

    install(tmp_path / "aside", tmp_path / "target", replaced=tmp_path / "old")
    assert os.listdir(tmp_path / "target") == ["aside"]
    assert os.listdir(tmp_path / "old") == ["target"]


def test_what_was_there_comes_back_when_the_second_rename_fails(tmp_path):
    target = tmp_path / "aside" / "target"  # nothing can be moved into itself
    target.mkdir(parents=True)

    with pytest.raises(OSError, match="Invalid argument"):
        install(tmp_path / "aside", target, replaced=tmp_path / "old")

    assert target.is_dir()
    assert not (tmp_path / "old").exists()


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        with locked(tmp_path, "busy"):
            os.write(writing, b"held")
            signal.pause()
    assert os.read(reading, 4) == b"held"
    with pytest.raises(UserError, match="^busy$"), locked(tmp_path, "busy"):
        pass

    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    for _ in range(2):  # a block that ended has let go
        with locked(tmp_path, "busy"):
            pass


def test_where_a_folder_cannot_be_locked_a_warning_says_so(tmp_path, monkeypatch, caplog):
    def as_on_nfs(*_):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    with locked(tmp_path, "busy"):
        pass
    assert "cannot be locked (Bad file descriptor): let no other process" in caplog.text


def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path):
    assert make_folder(tmp_path / "a" / "b") == make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=rf"Cannot make the folder {folder} \(.*\): name anot"):
            make_folder(folder)


def test_a_file_keeps_its_old_bytes_until_the_new_ones_are_on_the_disk(tmp_path, events):
    path = tmp_path / "a.json"
    path.write_text("old")
    (tmp_path / ".a.json").write_text("of a process that was killed, and longer than the next")
    write_file(path, "é")
    assert path.read_bytes() == "é".encode()
    assert events == [path.stat().st_ino, "renamed", tmp_path.stat().st_ino]
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]
    write_file(path, b"\xff")
    assert path.read_bytes() == b"\xff"

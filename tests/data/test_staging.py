import os
import signal

import pytest

from tfllm.data.staging import new_folder
from tfllm.errors import UserError


def is_ours(name):
    return name in ("file", "half")


def write(out, text, overwrite=False):
    with new_folder(out, overwrite=overwrite, ours=is_ours) as folder:
        (folder / "file").write_text(text)


def fail(out, seen):
    with new_folder(out, overwrite=True, ours=is_ours) as folder:
        (folder / "file").write_text("half")
        seen.append((out / "file").read_text())
        raise KeyError("failed")


def test_the_folder_appears_when_it_is_complete(tmp_path):
    parent = tmp_path / "deep" / "er"
    write(parent / "out", "new")
    assert (parent / "out" / "file").read_text() == "new"
    assert os.listdir(parent) == ["out"]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    out, seen = tmp_path / "out", []
    write(out, "old")
    with pytest.raises(KeyError, match="failed"):
        fail(out, seen)
    assert seen == ["old"]
    assert (out / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_killed_run_leaves_no_folder_and_the_next_one_clears_up(tmp_path):
    out = tmp_path / "out"
    if (child := os.fork()) == 0:
        with new_folder(out, overwrite=False, ours=is_ours) as folder:
            (folder / "half").mkdir()
            (folder / "half" / "written").write_text("half")
            (folder / "other").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert os.listdir(tmp_path) == [".out.partial"]
    write(out, "new")
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(out) == ["file"]


def test_two_writers_to_one_folder_are_refused(tmp_path):
    out = tmp_path / "out"
    with new_folder(out, overwrite=False, ours=is_ours) as folder:
        (folder / "file").write_text("first")
        with pytest.raises(UserError, match="Another process is writing to .*out"):
            write(out, "second")
    assert (out / "file").read_text() == "first"


def test_a_folder_with_something_in_it_is_replaced_only_when_asked(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write(out, "one")
    with pytest.raises(UserError, match=r"out is not empty.*overwrite=True \(--overwrite\)"):
        write(out, "two")
    assert (out / "file").read_text() == "one"
    write(out, "two", overwrite=True)
    assert (out / "file").read_text() == "two"
    assert os.listdir(tmp_path) == ["out"]


def test_files_of_others_are_never_deleted(tmp_path):
    out = tmp_path / "out"
    write(out, "one")
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"files that prepare did not write \(thesis.tex\)"):
        write(out, "two", overwrite=True)


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="out is a file: name a folder"):
        write(tmp_path / "out", "text")
    with pytest.raises(UserError, match="Cannot make the folder .*out"):
        write(tmp_path / "out" / "below", "text")

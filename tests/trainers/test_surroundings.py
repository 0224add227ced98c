"""Each process that trains a run leaves a line that says what it ran on."""

import json
import os
import subprocess
import sys

import keras
import pytest

from tfllm.trainers.surroundings import PROCESSES, git_state, processes, record_process

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of one commit, which is the current folder; a function that calls git."""
    monkeypatch.chdir(tmp_path)

    def git(*arguments):
        done = subprocess.run([*GIT, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "recipe.py").write_text("one")
    git("add", "recipe.py")
    git("commit", "-q", "-m", "one")
    return git


def test_each_process_adds_a_line_with_its_command_packages_and_machine(tmp_path):
    record_process(tmp_path)
    record_process(tmp_path)
    first, second = processes(tmp_path)
    assert first["command"] == second["command"] == sys.argv
    assert first["process"] == os.getpid()
    assert first["versions"]["keras"] == keras.__version__
    assert first["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert first["machine"]["memory_bytes"] > 2**28
    assert first["started_at"].endswith("Z")


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    record_process(tmp_path)
    with (tmp_path / PROCESSES).open("a") as file:
        file.write('{"command": ["tf')
    assert len(processes(tmp_path)) == 1


def test_a_run_without_a_record_has_no_processes(tmp_path):
    assert processes(tmp_path) == []


def test_the_state_of_git_is_the_commit_and_whether_tracked_files_changed(repository, tmp_path):
    (tmp_path / "new.txt").write_text("not tracked")
    assert git_state() == {"commit": repository("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "recipe.py").write_text("two")
    assert git_state()["dirty"]


@pytest.mark.parametrize("path", ["/nowhere", os.environ["PATH"]], ids=["no git", "no repository"])
def test_without_git_or_a_repository_there_is_no_state(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("PATH", path)
    assert git_state() is None


def test_a_run_has_a_line_for_each_process_that_trained_it(finished):
    lines = (finished[0] / "run" / PROCESSES).read_text().splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["command"] == sys.argv

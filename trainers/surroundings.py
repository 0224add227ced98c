"""What a process trains with: its command, code, packages and machine, for the run's folder."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfllm.trainers.saying import reason, say

PROCESSES = "processes.jsonl"

_PACKAGES = ("tfllm", "tensorflow", "tensorflow-text", "keras", "keras-hub", "numpy")
_GIT_TIMEOUT_S = 10


def record_process(folder: Path) -> None:
    """Adds a line to the run's `processes.jsonl`: what `surroundings` says of this process.

    On a full disk the line is lost, which is said, and the run goes on.
    """
    line = json.dumps(surroundings(), ensure_ascii=False) + "\n"
    try:
        with (folder / PROCESSES).open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        say(f"{folder / PROCESSES} cannot be written ({reason(error)}): the run goes on.")


def processes(folder: Path) -> list[dict[str, Any]]:
    """The processes that trained a run, in order; [] for a run without a record of them.

    A line that a full disk or a kill cut short is left out.
    """
    try:
        lines = (folder / PROCESSES).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def surroundings() -> dict[str, Any]:
    """This process and what it runs on.

    Returns:
        `started_at` (ISO 8601, UTC), `process` (its id), `command`, `folder` (the current one),
        `git` (`commit` and whether it is `dirty`; None outside of a repository), `versions` of
        Python and packages, and `machine`: `host`, `cpu`, `cores` that the process may use,
        `memory_bytes`, and the names of its `accelerators`.
    """
    return {
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "process": os.getpid(),
        "command": sys.argv,
        "folder": os.getcwd(),
        "git": git_state(),
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {
            "host": platform.node(),
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "accelerators": accelerators(),
        },
    }


def git_state() -> dict[str, Any] | None:
    """The commit of the current folder's repository, and whether tracked files differ from it."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changes)}


def _git(*arguments: str) -> str | None:
    """What git says; None without git, a repository or a commit."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=True, timeout=_GIT_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # tensorflow-cpu has the same module
            continue
    return found


def cpu_name() -> str:
    """As Linux calls it; elsewhere as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def accelerators() -> list[str]:
    """The names of the GPUs and TPU cores of this machine."""
    found = []
    for device in tf.config.list_physical_devices():
        if device.device_type in ("GPU", "TPU"):
            details = tf.config.experimental.get_device_details(device)
            found.append(details.get("device_name", device.device_type))
    return found

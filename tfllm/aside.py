"""Folders and files that appear whole or not at all: locked, written aside, synced, renamed.

Every package writes what must survive a kill or a power cut by these. Like the contract they need
nothing but the standard library.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tfllm.errors import UserError

_logger = logging.getLogger(__name__)


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Makes a folder and those above it, where they are not there yet.

    Raises:
        UserError: it cannot be made, as below a file or without the permission.
    """
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"Cannot make the folder {folder} ({error.strerror}): name another one."
        ) from error
    return Path(folder)


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str], busy: str) -> Iterator[None]:
    """Holds a folder for this process while the block runs; the lock ends with the process.

    So what a killed process left in the folder can be told from what one is writing.

    Args:
        folder: An existing folder. Nothing is written to it.
        busy: What to say when another process has it.

    Raises:
        UserError: `busy`.

    Source:
        flock(2) of Linux.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(busy) from error
        except OSError as error:  # some network file systems cannot lock a folder
            _logger.warning(
                "%s cannot be locked (%s): let no other process write to it.",
                folder,
                error.strerror,
            )
        yield
    finally:
        os.close(descriptor)


def write_folder(
    folder: str | os.PathLike[str],
    write: Callable[[str], None],
    kind: str,
    is_one: Callable[[Path], bool],
) -> None:
    """Lets `write` fill a folder beside `folder`, which then takes its place.

    A kill while `write` works leaves the old folder as it was. Folders cannot be exchanged in one
    step: a kill between the two renames leaves the old one beside, in `.NAME-old-…/replaced`.

    Args:
        folder: Where it shall be; an older one of the same kind there is replaced.
        write: Called with the path to write into.
        kind: What is written, for the refusal: "preset".
        is_one: Whether a folder that is there and not empty is of this kind.

    Raises:
        UserError: there is something at `folder` that is not of this kind.
    """
    target = Path(folder)
    entries = target.iterdir() if target.is_dir() else [target]
    if target.exists() and any(entries) and not is_one(target):
        raise UserError(
            f"{target} exists and is no {kind} (it has no config.json of one): choose another "
            "folder."
        )
    parent = make_folder(target.parent)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=parent))
    try:
        aside.chmod(0o755)
        write(str(aside))
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=parent))
            install(aside, target, replaced=old / "replaced")
            shutil.rmtree(old)
        else:
            install(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def install(
    aside: str | os.PathLike[str],
    target: str | os.PathLike[str],
    replaced: str | os.PathLike[str] | None = None,
) -> None:
    """Gives a complete file or folder its name. After a power cut it has all its bytes or no name.

    Folders cannot be exchanged in one step: a kill between the two renames leaves no `target`, and
    the older folder at `replaced`.

    Args:
        aside: What was written, on the same file system as `target`.
        target: Its name. A file or an empty folder there is replaced.
        replaced: Where a folder at `target` goes, for the caller to remove.

    Raises:
        OSError: of rename(2), as ENOTEMPTY; what is at `target` is then what was there.

    Source:
        rename(2) of POSIX, which is atomic; the entry of a name in its folder needs an fsync(2) of
        its own.
    """
    sync_tree(aside)
    if replaced is None or not os.path.exists(target):
        os.replace(aside, target)
    else:
        os.replace(target, replaced)
        try:
            os.replace(aside, target)
        finally:
            if not os.path.exists(target):
                os.replace(replaced, target)
    _sync(os.path.dirname(os.path.abspath(target)))


def write_file(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file, a text as UTF-8: the old one or the new one is there, whole.

    Of what a killed process left, a hidden file of that name, the next one writes over.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}")
    aside.write_bytes(content.encode() if isinstance(content, str) else content)
    install(aside, path)


def sync_tree(path: str | os.PathLike[str]) -> None:
    """Waits until a file, or a folder with all that is in it, is on the disk."""
    for folder, _, files in os.walk(path):
        for name in files:
            _sync(os.path.join(folder, name))
        if folder != os.fspath(path):
            _sync(folder)
    _sync(path)


def _sync(path: str | os.PathLike[str]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

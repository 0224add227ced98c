"""Version folders of a model base: numbered, written aside, renamed."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from tfllm.aside import install, make_folder
from tfllm.errors import UserError


def next_version(base: Path) -> int:
    """One more than the highest number there is; a server does not try a failed number again.

    Args:
        base: The folder that a server watches; may not exist yet.
    """
    numbers = [int(entry.name) for entry in base.glob("*") if entry.name.isdecimal()]
    return max(numbers, default=0) + 1


def publish(base: Path, writes: Iterable[Callable[[Path], None]]) -> list[Path]:
    """Lets each of `writes` fill a folder; these then become the next versions, in that order.

    A server polls each second and would load a half-written version, which then fails every
    request. Until the renames the folders' names are no numbers, so no server looks at them. All
    are complete before the first is renamed: when one of `writes` raises, all are removed, and who
    sees a version sees those before it. A kill between two renames leaves the earlier ones.

    Args:
        base: The folder that a server watches.
        writes: Called with the folder to write into, each before the next is taken.

    Returns:
        The version folders.

    Raises:
        UserError: `base` is a file, or is itself a version folder.
    """
    if base.is_file() or (base / "saved_model.pb").exists():
        raise UserError(
            f"{base} must be the folder that holds the versions (as models/gpt), not "
            f"{'a file' if base.is_file() else 'a version'}."
        )
    with contextlib.ExitStack() as cleaning:
        written = []
        for write in writes:
            aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=make_folder(base)))
            cleaning.callback(shutil.rmtree, aside, ignore_errors=True)
            aside.chmod(0o755)
            write(aside)
            written.append(aside)
        return [_rename_to_next(aside, base) for aside in written]


def publish_export(export: str | os.PathLike[str], base: str | os.PathLike[str]) -> Path:
    """Copies an export below a base path, as its next version.

    It is copied aside, on the same file system, and then renamed: no server sees a part of it, as
    it would of a plain copy.

    Args:
        export: A version folder, as models/gpt/3, or a base path, whose newest version is meant.
        base: The folder that a server watches; made if it is not there.

    Returns:
        The version folder.

    Raises:
        UserError: there is no SavedModel in `export`, it holds what is no file, or as `publish`.
    """
    source = Path(export)
    if not _is_saved_model(source):
        source /= str(next_version(source) - 1)
    if not _is_saved_model(source):
        raise UserError(f"No SavedModel in {export}: name an export, as models/gpt/1.")

    def copy(folder: Path) -> None:
        try:
            shutil.copytree(source, folder, dirs_exist_ok=True)
        except shutil.Error as error:
            failed = "; ".join(f"{path}: {reason}" for path, _, reason in error.args[0])
            raise UserError(f"{source} cannot be copied whole: {failed}") from None

    return publish(Path(base), [copy])[0]


def _is_saved_model(folder: Path) -> bool:
    return any((folder / f"saved_model.{form}").is_file() for form in ("pb", "pbtxt"))


def _rename_to_next(aside: Path, base: Path) -> Path:
    """Of two exporters at once, who comes second finds the number taken and takes the next."""
    while True:
        version = base / str(next_version(base))
        try:
            install(aside, version)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            return version

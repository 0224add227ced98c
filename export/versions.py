"""Version folders of a model base: numbered, written aside, renamed."""

import contextlib
import errno
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

"""Version folders of a model base: numbered, written aside, renamed."""

import errno
import shutil
import tempfile
from collections.abc import Callable
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


def publish(base: Path, write: Callable[[Path], None]) -> Path:
    """Lets `write` fill a folder, which then becomes the next version.

    A server polls each second and would load a half-written version, which then fails every
    request. Until the rename the folder's name is no number, so no server looks at it; when
    `write` raises, it is removed.

    Args:
        base: The folder that a server watches.
        write: Called with the folder to write into.

    Returns:
        The version folder.

    Raises:
        UserError: `base` is a file, or is itself a version folder.
    """
    if base.is_file() or (base / "saved_model.pb").exists():
        raise UserError(
            f"{base} must be the folder that holds the versions (as models/gpt), not "
            f"{'a file' if base.is_file() else 'a version'}."
        )
    make_folder(base)
    aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=base))
    try:
        aside.chmod(0o755)
        write(aside)
        return _rename_to_next(aside, base)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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

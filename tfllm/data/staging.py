"""A folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tfllm.aside import install, locked, make_folder
from tfllm.errors import UserError


@contextlib.contextmanager
def new_folder(
    out: str | os.PathLike[str], *, overwrite: bool, ours: Callable[[str], bool]
) -> Iterator[Path]:
    """A folder beside `out` to write into, which becomes `out` when the block ends well.

    What a killed run left beside `out` is removed by the next one. A folder that is replaced
    stays until the new one is complete.

    Args:
        out: The folder to be.
        overwrite: Whether to replace a folder that is there.
        ours: Whether a file of that name may be deleted with the folder that is replaced.

    Raises:
        UserError: if `out` is a file, or a folder that is not empty without `overwrite`, or one
            with files that are not ours, or cannot be made, or if another process is writing to it.
    """
    out = Path(out).expanduser().resolve()
    _check_replaceable(out, overwrite, ours)
    make_folder(out.parent)  # first: an error shall name what the user named
    partial = make_folder(out.with_name(f".{out.name}.partial"))
    replaced = out.with_name(f".{out.name}.replaced")
    with (
        locked(partial, f"Another process is writing to {out}: wait for it to end."),
        contextlib.ExitStack() as on_failure,
    ):
        on_failure.callback(shutil.rmtree, partial, ignore_errors=True)
        _empty(partial)
        yield partial
        if out.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        install(partial, out, replaced)
        on_failure.pop_all()  # the next process may be writing there by now
        shutil.rmtree(replaced, ignore_errors=True)


def _check_replaceable(out: Path, overwrite: bool, ours: Callable[[str], bool]) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file: name a folder to write to.")
    names = os.listdir(out)
    if names and not overwrite:
        raise UserError(
            f"{out} is not empty: name another folder, or pass overwrite=True (--overwrite)."
        )
    if strangers := sorted(name for name in names if not ours(name)):
        raise UserError(
            f"{out} has files that prepare did not write ({', '.join(strangers[:3])}): "
            "name another folder."
        )


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()

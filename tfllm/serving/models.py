"""Which models to serve, from where: what the embedded and the stock server are given alike."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tfllm.errors import UserError

Models = (
    Mapping[str, "str | os.PathLike | ServedModel"]
    | Sequence["str | os.PathLike"]
    | str
    | os.PathLike
)


@dataclass(frozen=True)
class ServedModel:
    """One model.

    Attributes:
        base_path: The folder of its version folders.
        latest: How many of the newest versions are served; None serves all.
        labels: Version numbers that clients may ask for by name.
        versions: The numbers that are served, whatever `latest` says; None leaves it to `latest`.
    """

    base_path: str
    latest: int | None = 1
    labels: Mapping[str, int] = field(default_factory=dict)
    versions: frozenset[int] | None = None

    def wanted(self, found: Iterable[int]) -> list[int]:
        """Those of the found versions that are served, the newest first."""
        if self.versions is not None:
            found = self.versions.intersection(found)
            return sorted(found, reverse=True)
        return sorted(found, reverse=True)[: self.latest]


def served_models(models: Models) -> dict[str, ServedModel]:
    """The models by name.

    Args:
        models: Base paths by name, or one base path or a list of them, each named for its folder.
            A base path must exist; that of a `ServedModel` may come later.

    Raises:
        UserError: a base path that is not a folder or is a version folder, the same name twice, or
            an empty list. (An empty mapping is for a server that waits to be told.)
    """
    if isinstance(models, str | os.PathLike):
        models = [models]
    if isinstance(models, Mapping):
        named = list(models.items())
    else:
        named = [(Path(os.path.abspath(path)).name, path) for path in models]
    if not named and not isinstance(models, Mapping):
        raise UserError("there is no model to serve: give the base path of at least one.")
    served: dict[str, ServedModel] = {}
    for name, model in named:
        if name in served:
            raise UserError(f"two models are named {name!r}: give each a name of its own.")
        served[name] = model if isinstance(model, ServedModel) else _at(Path(model))
    return served


def _at(path: Path) -> ServedModel:
    if not path.is_dir():
        raise UserError(f"the base path of a model must be a folder: there is none at {path}.")
    if (path / "saved_model.pb").exists():
        raise UserError(
            f"{path} is a version of a model: give the folder that holds it, {path.parent}."
        )
    return ServedModel(os.path.abspath(path))

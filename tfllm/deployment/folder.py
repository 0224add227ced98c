"""The folder that runs exports on the stock server."""

from __future__ import annotations

import os
import re
import shutil
import string
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tfllm.aside import write_folder
from tfllm.deployment.exported import Exported, read_export
from tfllm.deployment.flags import flags, listed
from tfllm.deployment.gateway import gateway_values
from tfllm.deployment.sizes import Sizes
from tfllm.errors import UserError

_STABLE = "stable"
_KEYS = "keys.txt"  # written by the user
_SERVERS = 2  # so that one may go
_SIZES = (
    "batch_threads",
    "batch_timeout_micros",
    "cpus",
    "enqueued_batches",
    "intra_op_threads",
    "max_batch_size",
    "memory_mib",
    "queue_micros",
    "slots_mib",
    "start_s",
    "timeout_s",
    "weights_mib",
    "working_mib",
)


class _Template(string.Template):
    """Fills @{name}: dollars and braces are PromQL's and Grafana's."""

    delimiter = "@"


def write_deployment(
    folder: str | os.PathLike,
    models: Sequence[str | os.PathLike],
    *,
    cpus: int = 4,
    servers: int | None = None,
    image: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes what runs the stock server: for Docker Compose, Kubernetes, Prometheus and Grafana.

    All values are chosen from the exports, and each stands below its reason. The folder appears
    when it is complete.

    Args:
        folder: What to write.
        models: Base paths, as models/gpt; the newest version of each gets the label "stable".
        cpus: Cores of a server.
        servers: In Kubernetes, of models with sessions; default 2. The others' number is left to
            an autoscaler.
        image: Of the stock server; default that of the TensorFlow that wrote the exports.
        overwrite: Whether to replace an older such folder, its labels and their history included,
            but not its `keys.txt`.

    Returns:
        `folder`, `image`, the served `version` of each model by name, and `memory_mib` of a server.

    Raises:
        UserError: a model that is no export of tfllm, two of one name, a number of servers that
            cannot be, or a folder that must not be replaced.
    """
    exports = [read_export(base) for base in models]
    return write_exports(
        folder, exports, cpus=cpus, servers=servers, image=image, overwrite=overwrite
    )


def write_exports(
    folder: str | os.PathLike,
    exports: Sequence[Exported],
    *,
    cpus: int = 4,
    servers: int | None = None,
    image: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """As `write_deployment`, of exports that were read."""
    target = Path(os.path.abspath(folder))
    _check(target, exports, overwrite)
    sizes = Sizes(exports, cpus)
    image = image or f"tensorflow/serving:{max(e.tensorflow for e in exports)}"
    values = _values(target, exports, sizes, image)
    if sizes.has_sessions:
        if servers is not None and servers < 1:
            raise UserError(f"servers must be at least 1, got {servers}.")
        values |= gateway_values(sizes, servers or _SERVERS, _STABLE)
    elif servers is not None:
        raise UserError("The autoscaler chooses the number of servers of models without sessions.")

    def write(aside: str) -> None:
        _fill(Path(aside), "sessions" if sizes.has_sessions else "batched", values)
        if (target / _KEYS).is_file():
            shutil.copy2(target / _KEYS, aside)

    write_folder(target, write, "deployment", _is_ours)
    return {
        "folder": str(folder),
        "image": image,
        "versions": {export.name: export.version for export in exports},
        "memory_mib": sizes.memory_mib,
    }


def _check(target: Path, exports: Sequence[Exported], overwrite: bool) -> None:
    if not exports:
        raise UserError("there is no model to deploy: give the base path of at least one.")
    names = [export.name for export in exports]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two models are named {twice[0]!r}: their folders must differ in name.")
    for export in exports:
        if not re.fullmatch(r"[\w.-]+", export.name, re.ASCII):
            raise UserError(
                f"{export.base} must be named in letters, digits, -, _ and .: it is the model's "
                "name in paths and addresses."
            )
        if target in (export.base, *export.base.parents):
            raise UserError(f"{export.base} is inside {target}, which is replaced as a whole.")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        if not _is_ours(target):
            raise UserError(f"{target} holds something else: choose another folder.")
        if not overwrite:
            raise UserError(
                f"{target} is there already: --overwrite replaces it, with its labels and their "
                "history; `tfllm promote` serves another version."
            )


def _is_ours(folder: Path) -> bool:
    return (folder / "compose.yaml").is_file() and (folder / "models.config").is_file()


def _fill(folder: Path, kind: str, values: dict[str, Any]) -> None:
    """Writes the templates of `all` and of a kind, whose parts take the lines of their names."""
    templates = resources.files("tfllm.deployment") / "templates"
    with resources.as_file(templates) as root:
        parts = {path.stem: "" for path in root.glob("parts/*/*")}
        for path in (root / "parts" / kind).iterdir():
            parts[path.stem] = path.read_text(encoding="utf-8")
        for origin in (root / "all", root / kind):
            for path in sorted(path for path in origin.rglob("*") if path.is_file()):
                text = path.read_text(encoding="utf-8")
                for name, part in parts.items():
                    text = text.replace(f"@{{{name}}}\n", part)
                written = folder / path.relative_to(origin)
                written.parent.mkdir(exist_ok=True)
                written.write_text(_Template(text).substitute(values), encoding="utf-8")


def _values(target: Path, exports: Sequence[Exported], sizes: Sizes, image: str) -> dict[str, Any]:
    first = exports[0]
    ragged = [f"{export.name}/{name}" for export in exports for name in export.ragged]
    return {name: getattr(sizes, name) for name in _SIZES} | {
        "image": image,
        "model": first.name,
        "version": first.version,
        "label": _STABLE,
        "models": _models_config(exports),
        "mounts": "\n".join(_mount(export, target) for export in exports),
        "compose_flags": listed(flags(sizes), 6),
        "kubernetes_flags": listed(flags(sizes), 12),
        "what": "\n".join(_described(export) for export in exports),
        "ragged": ", ".join(ragged) or "none",
        "alone_ms": f"{1000 * sizes.alone_s:.3g}",
        "alone_micros": round(1e6 * sizes.alone_s),
        "allowed_batch_sizes": "\n".join(
            f"allowed_batch_sizes: {size}" for size in sizes.batch_sizes
        ),
        "startup_failures": sizes.start_s // 5,
        "before": "the gateway, " if sizes.has_sessions else "",
        "kind": "StatefulSet" if sizes.has_sessions else "Deployment",
        "dashboard": "gateway.json" if sizes.has_sessions else "serving.json",
        "grace_s": sizes.timeout_s + 5,
        "slow_micros": sizes.timeout_s * 500_000,
    }


def _models_config(exports: Sequence[Exported]) -> str:
    config = model_server_config_pb2.ModelServerConfig()
    for export in exports:
        entry = config.model_config_list.config.add(
            name=export.name, base_path=f"/models/{export.name}", model_platform="tensorflow"
        )
        entry.model_version_policy.specific.versions.append(export.version)
        entry.version_labels[_STABLE] = export.version
    return text_format.MessageToString(config).rstrip("\n")


def _mount(export: Exported, target: Path) -> str:
    base = os.path.relpath(export.base, target)  # target is no parent, so it begins with ..
    return f'      - "{base}:/models/{export.name}:ro"'


def _described(export: Exported) -> str:
    megabytes = export.weights_bytes / 1e6
    return (
        f"- `{export.name}`, version {export.version}: {export.precision}, "
        f"{megabytes:.3g} MB of weights, written by TensorFlow {export.tensorflow}"
    )

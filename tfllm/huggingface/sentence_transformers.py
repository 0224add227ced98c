"""What sentence-transformers lays beside a checkpoint: the longest text, pooling, projections."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from tfllm.errors import UserError
from tfllm.huggingface.checkpoint import Checkpoint
from tfllm.huggingface.configuration import size
from tfllm.huggingface.json_files import read_json
from tfllm.huggingface.mapping import linear, load, stored
from tfllm.huggingface.stored import StoredTensor
from tfllm.huggingface.weight_files import write_weights
from tfllm.models import TextEmbedder

_MODULES = "modules.json"
_SETTINGS = "sentence_bert_config.json"

# The older names of the poolings, which newer versions still read.
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_KNOWN_POOLINGS = ("mean", "cls", "max")

_ACTIVATIONS = {
    "Identity": "linear",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
}
_CLASSES = {
    "linear": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
    "silu": "torch.nn.modules.activation.SiLU",
}


class Modules(NamedTuple):
    """What stands behind the encoder.

    Attributes:
        max_seq_length: Tokens of a text at most; None if it is not said.
        pooling: As of `TextEmbedder`.
        projections: As of `TextEmbedder`.
        dense: The checkpoint of each projection.
    """

    max_seq_length: int | None
    pooling: str
    projections: list[tuple[int, str, bool]]
    dense: list[Checkpoint]


def read_modules(folder: Path) -> Modules | None:
    """Reads modules.json and what it names; None where there is no such file.

    Raises:
        UserError: a file is damaged, or a module is one that `TextEmbedder` has not.
    """
    if not (folder / _MODULES).exists():
        return None
    modules = _listed(folder / _MODULES)
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    middle = kinds[2:-1] if kinds[-1] == "Normalize" else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or set(middle) - {"Dense"} or modules[0]["path"]:
        raise UserError(
            f"{folder / _MODULES} lists {', '.join(kinds)}; expected a Transformer in the same "
            "folder, Pooling, and perhaps Dense and Normalize."
        )
    dense = [
        Checkpoint(folder / module["path"])
        for module, kind in zip(modules, kinds, strict=True)
        if kind == "Dense"
    ]
    settings = _optional(folder / _SETTINGS)
    _refuse(folder / _SETTINGS, settings, do_lower_case=False)
    _refuse(
        folder / "config_sentence_transformers.json",
        _optional(folder / "config_sentence_transformers.json"),
        default_prompt_name=None,
    )
    return Modules(
        settings.get("max_seq_length"),
        _pooling(folder / modules[1]["path"] / "config.json"),
        [_projection(checkpoint) for checkpoint in dense],
        dense,
    )


def load_projections(model: TextEmbedder, modules: Modules) -> None:
    """Reads the weights of the dense layers."""
    for layer, checkpoint in zip(model.projection_layers, modules.dense, strict=True):
        load(checkpoint, linear("linear", layer))


def _listed(path: Path) -> list[dict[str, str]]:
    try:
        modules = json.loads(path.read_bytes())
        if not all(isinstance(module[key], str) for module in modules for key in ("type", "path")):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path} is damaged: expected a list of modules.") from None
    return modules


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _refuse(path: Path, config: dict[str, Any], **expected: Any) -> None:
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise UserError(f"{path}: {name} is {config[name]!r}, only {value!r} is supported.")


def _pooling(path: Path) -> str:
    config = read_json(path)
    _refuse(path, config, include_prompt=True)
    modes = config.get("pooling_mode") or [
        mode for key, mode in _POOLINGS.items() if config.get(key)
    ]
    modes = [modes] if isinstance(modes, str) else modes
    if len(modes) != 1 or modes[0] not in _KNOWN_POOLINGS:
        raise UserError(
            f"{path} asks for the pooling {', '.join(modes) or 'none'}; expected one of "
            f"{', '.join(_KNOWN_POOLINGS)}."
        )
    return modes[0]


def _projection(checkpoint: Checkpoint) -> tuple[int, str, bool]:
    config, path = checkpoint.config, checkpoint.folder / "config.json"
    _refuse(
        path,
        config,
        use_residual=False,
        module_input_name="sentence_embedding",
        module_output_name="sentence_embedding",
    )
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in _ACTIVATIONS:
        raise UserError(
            f"{path}: activation_function is {activation}; known are {', '.join(_ACTIVATIONS)}."
        )
    return size(checkpoint, "out_features"), _ACTIVATIONS[activation], config.get("bias", True)


def write_modules(model: TextEmbedder, folder: Path) -> None:
    """Writes what makes a checkpoint a folder of sentence-transformers."""
    names = ["Transformer", "Pooling", *["Dense"] * len(model.projections), "Normalize"]
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(names) if i)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    _write(folder / _MODULES, modules)
    _write(
        folder / _SETTINGS,
        {"max_seq_length": model.preprocessor.sequence_length, "do_lower_case": False},
    )
    width = model.backbone.hidden_dim
    _write(
        folder / paths[1] / "config.json",
        {
            "word_embedding_dimension": width,
            **{key: mode == model.pooling for key, mode in list(_POOLINGS.items())[:4]},
        },
    )
    for path, projection, layer in zip(
        paths[2:-1], model.projections, model.projection_layers, strict=True
    ):
        config = {
            "in_features": width,
            "out_features": projection.units,
            "bias": projection.use_bias,
            "activation_function": _CLASSES[projection.activation],
        }
        _write(folder / path / "config.json", config)
        entries = list(linear("linear", layer))
        layout = {entry.name: StoredTensor(entry.shape, "float32") for entry in entries}
        write_weights(folder / path, layout, stored(entries))
        width = projection.units
    (folder / paths[-1]).mkdir()


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

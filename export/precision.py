"""The precision of an export: which matrices are rounded, and how."""

import contextlib
import fnmatch
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.layers import BFloat16Matrix, Float32Matrix, Int8Matrix, ServedMatrix

_MATRICES: dict[str, type[ServedMatrix]] = {
    "float32": Float32Matrix,
    "bfloat16": BFloat16Matrix,
    "int8": Int8Matrix,
}
PRECISIONS = tuple(_MATRICES)


class Served(NamedTuple):
    """What a model computes with in an export.

    Attributes:
        precision: One of `PRECISIONS`.
        variables: All that its graphs read.
        kinds: Of its matrices, those with ops that not every machine has.
    """

    precision: str
    variables: list[tf.Variable]
    kinds: list[type[ServedMatrix]]

    @property
    def internal_ops(self) -> list[str]:
        """The ops that no public function of TensorFlow makes, sorted."""
        return sorted({op for kind in self.kinds for op in kind.ops})


def require_servable(model, precision: str | None, keep: Sequence[str] = ()) -> str:
    """The precision that is meant, if the model can be served in it.

    Args:
        model: A task of `tfllm.models`.
        precision: As of `served_in`.
        keep: As of `served_in`.

    Raises:
        UserError: no such precision, or none that the model can be served in; or nothing to keep.
    """
    own = model.backbone.dtype_policy.compute_dtype
    precision = precision or own
    if precision not in PRECISIONS:
        raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    if precision != own != "float32":
        raise UserError(
            f"This model computes in {own}, which cannot become {precision}: load its preset with "
            'dtype="float32".'
        )
    if keep and precision == own:
        raise UserError(f"keep names what stays in float32: there is nothing to keep in {own}.")
    return precision


@contextlib.contextmanager
def served_in(model, precision: str | None, keep: Sequence[str] = ()) -> Iterator[Served]:
    """Inside `with`, a model multiplies in a precision of exports; its graphs are traced there.

    Norms, softmax, position tables and what is added stay in float32. In int8 the task's
    `sensitive_layers` are in bfloat16.

    Args:
        model: A task of `tfllm.models`.
        precision: One of `PRECISIONS`; None means as the model computes.
        keep: Patterns of `fnmatch` for the paths of layers whose matrices stay in float32, such as
            "*/feed_forward/outer".

    Raises:
        UserError: no such precision, or none that the model can be served in; or a pattern that no
            layer with a matrix has.
    """
    precision = require_servable(model, precision, keep)
    own = model.backbone.dtype_policy.compute_dtype
    if own != "float32":
        yield Served(own, [variable.value for variable in model.variables], [])
        return
    serving = _Serving(precision, keep)
    try:
        serving.begin(model)
        yield serving.served(model)
    finally:
        serving.end()


def machines_for(ops: Collection[str]) -> str:
    """What can run a graph of ours, in plain words.

    Args:
        ops: The names of all ops in the graph.
    """
    kinds = [kind for kind in _MATRICES.values() if not kind.ops.isdisjoint(ops)]
    if not kinds:
        return "any that runs TensorFlow"
    needs = "; and ".join(f"{kind.processor}, for {', '.join(sorted(kind.ops))}" for kind in kinds)
    return (
        f"{needs}; with oneDNN in TensorFlow, as in its x86-64 releases. Elsewhere it fails to load"
    )


class _Serving:
    def __init__(self, precision: str, keep: Sequence[str]):
        self._precision = precision
        self._keep, self._unmatched = keep, set(keep)
        self._paths: set[str] = set()
        self._layers: list[Any] = []
        self._matrices: list[ServedMatrix] = []
        self._replaced: set[int] = set()

    def begin(self, model) -> None:
        self._sensitive = model.sensitive_layers
        finished: set[int] = set()
        # An adapter of ours is no layer, and serves those of its model.
        ours = isinstance(model, keras.layers.Layer)
        for layer in model._flatten_layers() if ours else [model]:  # from the outermost inwards
            if hasattr(layer, "serve") and id(layer) not in finished:
                self._layers.append(layer)
                finished |= {id(inner) for inner in layer.serve(self._make)}
        if self._unmatched:
            raise UserError(
                f"keep: no layer with a matrix has a path like {', '.join(sorted(self._unmatched))}"
                f"; there are {', '.join(sorted(self._paths)[:8])}, …"
            )

    def _make(self, variables, *, bias=None, transposed=False, as_matrix=np.asarray):
        paths = {variable.path.rpartition("/")[0] for variable in variables}
        self._paths |= paths
        patterns = {p for p in self._keep if any(fnmatch.fnmatchcase(path, p) for path in paths)}
        self._unmatched -= patterns
        if patterns:
            return None
        kinds = {self._kind_at(path) for path in paths}
        if len(kinds) > 1:
            return None
        matrix = np.concatenate([as_matrix(variable.numpy()) for variable in variables], -1)
        made = kinds.pop()(
            matrix,
            bias=None if bias is None else np.concatenate([variable.numpy() for variable in bias]),
            transposed=transposed,
            name="served",
        )
        self._matrices.append(made)
        self._replaced |= {id(variable) for variable in (*variables, *(bias or ()))}
        return made

    def _kind_at(self, path: str) -> type[ServedMatrix]:
        finer = self._precision == "int8" and any(
            fnmatch.fnmatchcase(path, pattern) for pattern in self._sensitive
        )
        return _MATRICES["bfloat16" if finer else self._precision]

    def served(self, model) -> Served:
        kept = [v.value for v in model.variables if id(v) not in self._replaced]
        own = [variable for matrix in self._matrices for variable in matrix.variables]
        used = {type(matrix) for matrix in self._matrices}
        kinds = [kind for kind in _MATRICES.values() if kind in used and kind.ops]
        return Served(self._precision, kept + own, kinds)

    def end(self) -> None:
        for layer in self._layers:
            for name in [name for name in vars(layer) if name.startswith("served")]:
                delattr(layer, name)

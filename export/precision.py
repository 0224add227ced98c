"""The precision of an export: which matrices are rounded, and how."""

import contextlib
import fnmatch
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.layers import BFloat16Matrix, Int8Matrix, ServedMatrix

_MATRICES: dict[str, type[ServedMatrix]] = {"bfloat16": BFloat16Matrix, "int8": Int8Matrix}
PRECISIONS = ("float32", *_MATRICES)


class Served(NamedTuple):
    """What a model computes with in an export.

    Attributes:
        precision: One of `PRECISIONS`.
        variables: All that its graphs read.
        internal_ops: The ops that no public function of TensorFlow makes, sorted.
    """

    precision: str
    variables: list[tf.Variable]
    internal_ops: list[str]


@contextlib.contextmanager
def served_in(model, precision: str | None, keep: Sequence[str] = ()) -> Iterator[Served]:
    """Inside `with`, a model multiplies in a precision of exports; its graphs are traced there.

    Norms, softmax, position tables and what is added stay in float32.

    Args:
        model: A task of `tfllm.models`.
        precision: One of `PRECISIONS`; None means as the model computes.
        keep: Patterns of `fnmatch` for the paths of layers whose matrices stay in float32, such as
            "*/feed_forward/outer".

    Raises:
        UserError: no such precision, or none that the model can be served in; or a pattern that no
            layer with a matrix has.
    """
    own = model.backbone.dtype_policy.compute_dtype
    if precision not in (None, *PRECISIONS):
        raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    if precision not in (None, own) and own != "float32":
        raise UserError(
            f"This model computes in {own}, which cannot become {precision}: load its preset with "
            'dtype="float32".'
        )
    if precision in (None, own):
        if keep:
            raise UserError(f"keep names what stays in float32: there is nothing to keep in {own}.")
        yield Served(own, [variable.value for variable in model.variables], [])
        return
    if not isinstance(model, keras.layers.Layer):
        raise UserError(
            f"A model of KerasHub cannot be served in {precision}; it can in bfloat16: load its "
            'preset with dtype="bfloat16" and export it without a precision.'
        )
    serving = _Serving(precision, keep)
    try:
        serving.begin(model)
        yield serving.served(model)
    finally:
        serving.end()


class _Serving:
    def __init__(self, precision: str, keep: Sequence[str]):
        self._precision, self._kind = precision, _MATRICES[precision]
        self._keep, self._unmatched = keep, set(keep)
        self._paths: set[str] = set()
        self._layers: list[keras.layers.Layer] = []
        self._matrices: list[ServedMatrix] = []
        self._replaced: set[int] = set()

    def begin(self, model) -> None:
        finished: set[int] = set()
        for layer in model._flatten_layers():  # from the outermost inwards
            if hasattr(layer, "serve") and id(layer) not in finished:
                self._layers.append(layer)
                finished |= {id(inner) for inner in layer.serve(self._make)}
        if self._unmatched:
            raise UserError(
                f"keep: no layer with a matrix has a path like {', '.join(sorted(self._unmatched))}"
                f"; there are {', '.join(sorted(self._paths)[:8])}, …"
            )

    def _make(self, variables, *, transposed=False):
        paths = {variable.path.rpartition("/")[0] for variable in variables}
        self._paths |= paths
        patterns = {p for p in self._keep if any(fnmatch.fnmatchcase(path, p) for path in paths)}
        self._unmatched -= patterns
        if patterns:
            return None
        matrix = np.concatenate([variable.numpy() for variable in variables], -1)
        made = self._kind(matrix, transposed=transposed, name="served")
        self._matrices.append(made)
        self._replaced |= {id(variable) for variable in variables}
        return made

    def served(self, model) -> Served:
        kept = [v.value for v in model.variables if id(v) not in self._replaced]
        own = [variable for matrix in self._matrices for variable in matrix.variables]
        return Served(self._precision, kept + own, sorted(set(self._kind.ops)))

    def end(self) -> None:
        for layer in self._layers:
            for name in [name for name in vars(layer) if name.startswith("served")]:
                delattr(layer, name)

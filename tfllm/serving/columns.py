"""Values that can be sent: arrays of the dtype that a signature has, strings as bytes objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfllm import contract
from tfllm.errors import UserError

# From which kinds of numpy array a dtype is taken: a bool is no number and 1.5 no whole one.
_KINDS = {"b": "b", "i": "iu", "u": "iu", "c": "iufc"}


def arrays(signature_name: str, columns: Mapping[str, Sequence]) -> dict[str, np.ndarray]:
    """Checked columns, one value for each row, as those inputs of a signature of the contract."""
    fields = {field.name: field for field in contract.SIGNATURES[signature_name].inputs}
    return {name: tensor(column, fields[name].dtype, name) for name, column in columns.items()}


def tensor(value: Any, dtype: str | None, name: str) -> np.ndarray:
    """An input of any signature as an array that can be sent.

    Args:
        value: An array, which keeps its dtype, or a Python value or list.
        dtype: What the signature has; None when it is not known.
        name: The input's name, for the message.

    Raises:
        UserError: a value that is not of that dtype.
    """
    if isinstance(value, np.ndarray | np.generic) or dtype is None:
        array = np.asarray(value)
    elif dtype == "string":
        array = np.array(value, object)
    else:
        return _numbers(value, np.dtype(dtype), name)
    if array.dtype.kind in "OSU":
        flat = np.empty(array.size, object)
        flat[:] = [v if isinstance(v, bytes) else _utf8(v, name) for v in array.ravel().tolist()]
        array = flat.reshape(array.shape)
    return array


def _numbers(value: Any, dtype: np.dtype, name: str) -> np.ndarray:
    """`value` as `dtype`, refused where that would change it."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    is_kind = array.dtype.kind in _KINDS.get(dtype.kind, "iuf")
    is_whole = dtype.kind in "iu"
    is_exact = not is_whole or (is_kind and np.array_equal(array, array.astype(dtype)))
    if array.size and not (is_kind and is_exact):
        raise UserError(f"{name} must hold {dtype} values: got {value!r}.")
    return array.astype(dtype)


def _utf8(value: Any, name: str) -> bytes:
    if not isinstance(value, str):
        raise UserError(f"{name} must hold str or bytes: got {type(value).__name__}.")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{name} is not Unicode text: {error.reason}.") from error

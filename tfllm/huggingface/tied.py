"""Tensors that a checkpoint may hold once for several names, or once for each of them."""

import numpy as np

from tfllm.huggingface.checkpoint import Checkpoint


def first_of(checkpoint: Checkpoint, *names: str) -> str:
    """The first of the names that the checkpoint has; the first of all if it has none."""
    return next((name for name in names if name in checkpoint), names[0])


def are_the_same(checkpoint: Checkpoint, one: str, other: str) -> bool:
    """Whether two names stand for the same numbers, as those of tied tensors do in older files.

    Raises:
        UserError: there is no tensor of one of the names.
    """
    if one == other:
        return True
    tensor = checkpoint.stored(one)
    if tensor != checkpoint.stored(other):
        return False
    pairs = zip(
        checkpoint.take_rows(one, tensor.shape),
        checkpoint.take_rows(other, tensor.shape),
        strict=True,
    )
    return all(np.array_equal(*pair) for pair in pairs)

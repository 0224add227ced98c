"""The moving averages of the weights, in the place of the weights."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Inside `with`, the trained weights of a model are their moving averages, if it keeps any.

    Behind it they are what they were, to the bit.

    Args:
        model: A model, compiled with a built optimizer; with `use_ema` it keeps averages.
    """
    if not model.optimizer.use_ema:
        yield
        return
    before = [variable.numpy() for variable in model.trainable_variables]
    use_averages(model)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, before, strict=True):
            variable.assign(value)


def use_averages(model: keras.Model) -> None:
    """The same for good, as Keras does at the end of `fit`."""
    model.optimizer.finalize_variable_values(model.trainable_variables)

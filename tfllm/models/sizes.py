"""Refuses sizes that no model has, by name, before Keras fails on them somewhere inside."""

from tfllm.errors import UserError


def require_sizes(**sizes: int) -> None:
    """Every size is a whole number of at least 1.

    Raises:
        UserError: one is not; naming it.
    """
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UserError(f"{name} must be a whole number of at least 1, got {size!r}.")

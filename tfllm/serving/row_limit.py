"""Refusing requests for too many rows, before anything of theirs is decoded."""

from __future__ import annotations

from tfllm.serving.status import Code, ServingError


def check_rows(request, max_rows: int | None) -> None:
    """Raises INVALID_ARGUMENT if a request of the PredictionService is for more rows.

    Rows are dimension 0 of an input, or examples.
    """
    if max_rows is None:
        return
    if hasattr(request, "inputs"):
        shapes = (proto.tensor_shape.dim for proto in request.inputs.values())
        num_rows = max((dim[0].size for dim in shapes if dim), default=0)
    else:
        sent = request.input
        several = sent.example_list_with_context.examples or sent.example_list.examples
        num_rows = len(several)
    if num_rows > max_rows:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"A request may be for {max_rows} rows at most, this one is for {num_rows}: send it as "
            "several.",
        )

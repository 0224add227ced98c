"""Rows to a model in batches, and what it refused told apart."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tqdm import tqdm

from tfllm.errors import UserError

Row = Mapping[str, Any]


def batches(rows: Iterable[Row], batch_size: int) -> Iterator[list[Row]]:
    """Lists of `batch_size` rows, the last one shorter.

    Raises:
        UserError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}.")
    rows = iter(tqdm(rows, desc="evaluating", unit=" rows", disable=None))
    while batch := [row for _, row in zip(range(batch_size), rows, strict=False)]:
        yield batch


def needed(row: Row, number: int, *names: str) -> Any:
    """The first of the named fields that a row has.

    Args:
        row: A row.
        number: Which it is, from 1, for the refusal.
        *names: Names of one field.

    Raises:
        UserError: it has none of them.
    """
    for name in names:
        if name in row:
            return row[name]
    raise UserError(
        f"Row {number} has no {' and no '.join(map(repr, names))}; it has "
        f"{', '.join(map(repr, row)) or 'nothing'}."
    )


class Asked:
    """The rows that a model was asked, as they come.

    Attributes:
        predictions: One per row, in order.
        refused: How many of them the model refused.
    """

    def __init__(self) -> None:
        self.predictions: list[dict[str, Any]] = []
        self.refused = 0

    def keep(self, row: Row, answer: Mapping[str, Any], error: str) -> bool:
        """Adds a row with its answer, or with the reason it has none; whether it has one."""
        self.predictions.append({**row, **({"error": error} if error else answer)})
        self.refused += bool(error)
        return not error

    def counts(self) -> dict[str, int]:
        """Rows, those answered and those refused.

        Raises:
            UserError: there are no rows, or none was answered.
        """
        rows = len(self.predictions)
        if not rows:
            raise UserError("There are no rows to evaluate.")
        if self.refused == rows:
            raise UserError(
                f"The model refused every one of {rows} rows, the first because: "
                f"{self.predictions[0]['error']}."
            )
        return {"rows": rows, "answered": rows - self.refused, "refused": self.refused}

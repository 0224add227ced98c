"""Arguments of a user to columns of a request, and columns of an answer to typed rows.

Live models and the client take and give the same things; this is where that is written once. Like
the contract it needs nothing but the standard library.
"""

import numbers
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from tfllm import contract
from tfllm.errors import UserError

Row = TypeVar("Row", bound=tuple)


def text_rows(value: str | Sequence[str], name: str) -> list[str]:
    """One text or several, as a list.

    Raises:
        UserError: it is anything else.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise UserError(f"{name} must be a str or a list of them, got {type(value).__name__}.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"{name} must hold str: number {i} is {type(text).__name__}.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{name} must be valid Unicode: number {i}: {error}.") from None
    return list(texts)


def same_number(**columns: Sequence) -> None:
    """Refuses columns of different length.

    Raises:
        UserError: they differ.
    """
    if len({len(column) for column in columns.values()}) > 1:
        found = ", ".join(f"{len(column)} {name}" for name, column in columns.items())
        raise UserError(f"One row needs one of each, got {found}.")


def setting_columns(signature: str, num_rows: int, settings: Mapping[str, Any]) -> dict[str, list]:
    """Inputs of a signature that have defaults, one value per row.

    Args:
        signature: Its name in the contract.
        num_rows: Of the request.
        settings: Each a value for all rows, or a list or array of one per row. `stop` is up to
            four strings that end the text, for all rows; or a list of such lists, one per row.
            None is left out.

    Raises:
        UserError: a list of another length, a value of another type, an unknown setting.
    """
    fields = optional_inputs(signature)
    for name in settings:
        if name not in fields:
            raise UserError(f"No setting {name!r}: there are {', '.join(fields)}.")

    def column(name, value):
        field = fields[name]
        return _stops(value, num_rows) if field.shape else _column(field, value, num_rows)

    return {n: column(n, value) for n, value in settings.items() if value is not None}


def optional_inputs(signature: str) -> dict[str, contract.Field]:
    """Those inputs of a signature of the contract that have defaults, by name."""
    inputs = contract.SIGNATURES[signature].inputs
    return {field.name: field for field in inputs if field.default is not None}


def known_columns(
    columns: Mapping[str, list], known: Collection[str], model: str
) -> dict[str, list]:
    """Columns without the settings that an export of an earlier version lacks.

    Args:
        columns: Of a request.
        known: The inputs that the export has.
        model: What a message calls it.

    Raises:
        UserError: a row asks for one of them.
    """
    defaults = {field.name: field.default for field in contract.SAMPLING}
    lacking = {name for name in contract.LATER_SAMPLING if name in columns and name not in known}
    for name in sorted(lacking):
        if any(value != defaults[name] for value in columns[name]):
            raise UserError(
                f"{model} was exported by an earlier version of tfllm and has no {name}: export it "
                f"again, or leave {name} at {defaults[name]:g}."
            )
    return {name: column for name, column in columns.items() if name not in lacking}


def _stops(stop: Any, num_rows: int) -> list[list[str]]:
    stop = [text for text in stop if text] if isinstance(stop, tuple) else stop
    per_row = isinstance(stop, list | tuple) and any(isinstance(s, list | tuple) for s in stop)
    rows = [text_rows(texts, "stop") for texts in (stop if per_row else [stop] * num_rows)]
    if len(rows) != num_rows:
        raise UserError(f"stop has {len(rows)} lists for {num_rows} rows.")
    for texts in rows:
        if len(texts) > contract.MAX_STOP_STRINGS:
            raise UserError(f"At most {contract.MAX_STOP_STRINGS} stop strings, got {len(texts)}.")
    return [texts + [""] * (contract.MAX_STOP_STRINGS - len(texts)) for texts in rows]


def _column(field: contract.Field, value: Any, num_rows: int) -> list:
    value = value.tolist() if hasattr(value, "tolist") else value  # arrays and their scalars
    values = list(value) if isinstance(value, list | tuple) else [value] * num_rows
    if field.dtype == "string":
        values = text_rows(values, field.name)
    if len(values) != num_rows:
        raise UserError(f"{field.name} has {len(values)} values for {num_rows} rows.")
    if field.dtype == "string":
        return values
    whole = field.dtype.startswith("int")
    kind = numbers.Integral if whole else numbers.Real
    for number in values:
        if isinstance(number, bool) or not isinstance(number, kind):
            wanted = "a whole number" if whole else "a number"
            raise UserError(f"{field.name} must be {wanted}, got {number!r}.")
        if whole and not -(2 ** (bits := int(field.dtype[3:]) - 1)) <= number < 2**bits:
            raise UserError(f"{field.name} must fit in {field.dtype}, got {number}.")
    return values


def token_rows(token_ids: Sequence) -> tuple[list[list[int]], bool]:
    """Lists of token ids filled up with `contract.PADDING`, and whether it was one list.

    Raises:
        UserError: there is none, or a value that is no whole number of 32 bits.
    """
    if len(token_ids) == 0:
        raise UserError("token_ids must not be empty: [] could be one text or a list of none.")
    is_one = not hasattr(token_ids[0], "__len__")
    several = [list(ids) for ids in ([token_ids] if is_one else token_ids)]
    for ids in several:
        for number in ids:
            whole = isinstance(number, numbers.Integral) and not isinstance(number, bool)
            if not whole or not -(2**31) <= number < 2**31:
                raise UserError(f"token_ids must be whole numbers of 32 bits, got {number!r}.")
    longest = max(map(len, several))
    return [ids + [contract.PADDING] * (longest - len(ids)) for ids in several], is_one


def answers(row: type[Row], columns: Mapping[str, Any]) -> list[Row]:
    """Rows of an answer.

    Args:
        row: A class of the contract, as `Generation`; its fields name the columns.
        columns: Arrays with `.tolist()`, one value per row; texts as bytes.

    Returns:
        One typed row each.
    """
    lists = [columns[field].tolist() for field in row._fields]  # type: ignore[attr-defined]
    return [row(*map(plain, values)) for values in zip(*lists, strict=True)]


def refusal(answer: Any) -> str:
    """Why a model did not answer a row, in its words; "" where it did."""
    if hasattr(answer, "error"):
        return answer.error
    reason = answer.finish_reason
    reason = reason if isinstance(reason, str) else reason[0]  # of the best beam
    is_error = reason.startswith(contract.ERROR_PREFIX)
    return reason.removeprefix(contract.ERROR_PREFIX) if is_error else ""


def plain(value: Any) -> Any:
    """A value of an array's `tolist()` with bytes as text, or surrogates where they are none."""
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value

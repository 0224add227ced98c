"""How the rows of a file ask a model, and what is written down of its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tfllm import contract, rows
from tfllm.errors import UserError
from tfllm.serving.served import Served
from tfllm.serving.status import Code, ServingError

# What a model is asked by default: the first that it has.
_FIRST = (
    contract.GENERATE,
    contract.CLASSIFY,
    contract.FILL_MASK,
    contract.EMBED,
    contract.ANSWER,
)
# What would be said of every row: the run ends, and goes on when the cause is gone.
_OF_ALL = (
    Code.UNAVAILABLE,
    Code.UNAUTHENTICATED,
    Code.PERMISSION_DENIED,
    Code.NOT_FOUND,
    Code.UNIMPLEMENTED,
    Code.CANCELLED,
)
_MESSAGES = "messages"


class Asked(NamedTuple):
    """One line of the input; `row` is None and `wrong` says why where it is no JSON object."""

    line: int
    row: dict[str, Any] | None
    wrong: str = ""


class Question:
    """What is asked of a model, and how a line of a file asks it.

    Args:
        model: A `Client`, or a live model.
        signature: One of the contract, or any other of a served model.
        settings: For all rows that have none of their own.

    Raises:
        UserError: the model does not know the signature, or the settings are not its own.
    """

    def __init__(self, model: Any, signature: str, settings: Mapping[str, Any]):
        self.model = model
        self.signature = signature
        self.settings = dict(settings)
        known = contract.SIGNATURES.get(signature)
        served = model.metadata().signatures if isinstance(model, Served) else {}
        if served and signature not in served:
            raise UserError(f"{model.model} has no {signature}: it has {', '.join(served)}.")
        self._call = getattr(model, signature, None) if known else None
        if self._call is None and not served:
            raise UserError(f"A {type(model).__name__} cannot {signature}.")
        if known is None:
            self.required = list(served[signature].inputs)
            self.optional: list[str] = []
        else:
            self.required = [f.name for f in known.inputs if f.default is None]
            self.optional = list(rows.optional_inputs(signature))
        unknown = settings.keys() - {*self.optional, "num_return_sequences"}
        if unknown or (settings and signature not in (contract.GENERATE, contract.BEAM_SEARCH)):
            raise UserError(f"{signature} has no setting {', '.join(unknown or settings)}.")

    def own(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Which inputs a row has; rows that have the same ones can go together."""
        chats = self.signature == contract.GENERATE and "prompt" not in row
        required = [_MESSAGES] if chats else self.required
        own = [name for name in [*required, *self.optional] if name in row]
        # The stop strings of a chat are for all of a call.
        return (*own, repr(row["stop"])) if chats and "stop" in row else tuple(own)

    def records(self, batch: Sequence[Asked]) -> list[dict[str, Any]]:
        """The records of lines; where a request fails each of its lines is asked alone.

        Raises:
            ServingError: what would be said of every line.
        """
        if batch[0].row is None:
            return [_record(asked, None, asked.wrong) for asked in batch]
        try:
            answers = self._answers([asked.row for asked in batch if asked.row is not None])
        except (UserError, ServingError) as error:
            if isinstance(error, ServingError) and error.code in _OF_ALL:
                raise
            if len(batch) > 1:
                return [record for asked in batch for record in self.records([asked])]
            return [_record(batch[0], None, str(error))]
        return [
            _record(asked, *_told(answer)) for asked, answer in zip(batch, answers, strict=True)
        ]

    def _answers(self, batch: list[dict[str, Any]]) -> list[Any]:
        own = [name for name in self.own(batch[0]) if name in batch[0]]
        columns = {name: [row[name] for row in batch] for name in own}
        if self._call is None:
            outputs = self.model.predict(columns, self.signature)
            return _rows_of(outputs, len(batch))
        settings = self.settings | {name: columns[name] for name in own if name in self.optional}
        if _MESSAGES in own:
            if "stop" in own:
                settings["stop"] = batch[0]["stop"]
            return self._chats(columns[_MESSAGES], settings)
        if "stop" in own:
            settings["stop"] = [[s] if isinstance(s, str) else s for s in columns["stop"]]
        missing = [name for name in self.required if name not in own]
        if missing:
            has = ", ".join(batch[0]) or "nothing"
            raise UserError(f"The line has no {' and no '.join(missing)}; it has {has}.")
        return self._call(*(columns[name] for name in self.required), **settings)

    def _chats(self, talks: list, settings: dict[str, Any]) -> list[Any]:
        if not all(isinstance(talk, list) for talk in talks):
            raise UserError("messages must be a list of objects with role and content.")
        return self.model.chat(talks, **settings)


def _rows_of(outputs: Mapping[str, Any], num_rows: int) -> list[dict[str, Any]]:
    """Arrays of any signature row by row; of one row an output may be without that dimension.

    Raises:
        UserError: of several rows one is, so that nobody can say whose it is.
    """
    lists = {name: rows.plain(array.tolist()) for name, array in outputs.items()}
    odd = [name for name, array in outputs.items() if array.shape[:1] != (num_rows,)]
    if odd and num_rows > 1:
        raise UserError(f"The outputs {', '.join(odd)} have not one value per line.")
    return [
        {name: column if name in odd else column[i] for name, column in lists.items()}
        for i in range(num_rows)
    ]


def task_of(model: Any) -> str:
    """What a model is asked by default."""
    if isinstance(model, Served):
        there = set(model.metadata().signatures)
        return next((name for name in _FIRST if name in there), contract.SERVING_DEFAULT)
    for name in _FIRST:
        if hasattr(model, name):
            return name
    raise UserError(f"A {type(model).__name__} answers no texts.")


def _told(answer: Any) -> tuple[Any, str]:
    """An answer as JSON has it, and why there is none."""
    if isinstance(answer, list) and answer and isinstance(answer[0], tuple):
        reason = next(filter(None, map(rows.refusal, answer)), "")
        return [each._asdict() for each in answer], reason
    if isinstance(answer, tuple):
        return answer._asdict(), rows.refusal(answer)  # type: ignore[attr-defined]
    return answer, ""


def _record(asked: Asked, output: Any, error: str) -> dict[str, Any]:
    told = {"error": error} if error else {"output": output}
    return {"line": asked.line, "input": asked.row, **told}

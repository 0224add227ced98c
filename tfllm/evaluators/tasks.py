"""The kinds of evaluation, and which of them fits a model and its data."""

import contextlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tfllm import calls, contract
from tfllm.data.tables import Field, label, number, texts
from tfllm.errors import UserError
from tfllm.evaluators.analogies import analogies
from tfllm.evaluators.classification import classification
from tfllm.evaluators.generation import generation
from tfllm.evaluators.language_model import language_model
from tfllm.evaluators.multiple_choice import multiple_choice
from tfllm.evaluators.result import Evaluation
from tfllm.evaluators.similarity import similarity
from tfllm.evaluators.span_qa import span_qa


class Task(NamedTuple):
    """One kind of evaluation.

    Attributes:
        evaluator: Takes the model and the rows.
        signature: What a model must answer.
        fields: Of a row.
        one_of: Fields of which a row has one.
    """

    evaluator: Callable[..., Evaluation]
    signature: str
    fields: tuple[Field, ...]
    one_of: tuple[str, ...] = ()

    @property
    def required(self) -> list[str]:
        """The fields that every row has."""
        return [field.name for field in self.fields if not field.optional]


def as_it_is(value: object) -> object:
    """Of a field whose evaluator says what it must be."""
    return value


def right_answers(value: object) -> object:
    """As it is; of a table, which has no objects and no lists, what its JSON says."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            found = json.loads(value)
            return found if isinstance(found, dict | list) else value
    return value


TEXT, _PAIR = Field("text"), Field("text_pair")
PROMPTS = ("source", "prompt")
COMPLETION = "completion"  # another name of `target`

# Of the tasks that a model can do, the first whose fields the data has is chosen.
TASKS: dict[str, Task] = {
    "classification": Task(
        classification,
        contract.CLASSIFY,
        (TEXT, _PAIR._replace(optional=True), Field("label", label)),
    ),
    "span_qa": Task(
        span_qa,
        contract.ANSWER,
        (
            Field("question"),
            Field("context"),
            Field("answers", right_answers, optional=True),
            Field("answer", optional=True),
        ),
    ),
    "analogies": Task(analogies, contract.EMBED, tuple(Field(name) for name in "abcd")),
    "similarity": Task(similarity, contract.EMBED, (TEXT, _PAIR, Field("score", number))),
    "multiple_choice": Task(
        multiple_choice,
        contract.SCORE,
        (Field("choices", texts), Field("label", as_it_is)),
        PROMPTS,
    ),
    "generation": Task(generation, contract.GENERATE, (Field("target", texts),), PROMPTS),
    "language_model": Task(language_model, contract.SCORE, (TEXT,)),
}


def choose(task: str | None, model: Any, there: set[str] | None) -> str:
    """The name of the evaluation that fits.

    Args:
        task: The one that is wanted, if any.
        model: Live or a client.
        there: The fields of the data; None where it is no table but text.

    Raises:
        UserError: the model cannot do it, or the data fits nothing that the model can do.
    """
    signatures = signatures_of(model)
    if task is not None and task not in TASKS:
        raise UserError(f"task must be one of {', '.join(TASKS)}, got {task!r}.")
    answers = ", ".join(sorted(signatures))
    if task is not None and TASKS[task].signature not in signatures:
        raise UserError(
            f"{task} needs a model that answers {TASKS[task].signature}; this one answers "
            f"{answers}."
        )
    able = {name: kind for name, kind in TASKS.items() if kind.signature in signatures}
    if not able:
        raise UserError(f"No evaluation fits a model that answers {answers or 'nothing known'}.")
    if task in (None, "language_model") and "language_model" in able and _is_seq2seq(model):
        # It scores a target after its source; a text alone is neither.
        del able["language_model"]
    if task is not None and task not in able:
        raise UserError(
            "language_model needs a causal language model; this one writes targets after sources: "
            "generation measures it."
        )
    if task is not None:
        return task
    if there is None and "language_model" in able:
        return "language_model"
    there = there or set()
    for name, kind in able.items():
        if set(kind.required) <= there and (not kind.one_of or there & set(kind.one_of)):
            return name
    expected = "; ".join(
        f"{name}: {', '.join([*kind.required, ' or '.join(kind.one_of)]).removesuffix(', ')}"
        for name, kind in able.items()
    )
    raise UserError(
        f"The data has {', '.join(sorted(there)) or 'no known field'}, expected the fields of one "
        f"of these ({expected}). Say which column is which: --column FIELD=COLUMN."
    )


def _is_seq2seq(model: Any) -> bool:
    """Whether it is an encoder–decoder; most exports do not say."""
    if hasattr(model, "describe"):
        return model.describe("task") == "seq2seq_lm"
    from tfllm.models import Seq2SeqLM  # a client needs no model

    return isinstance(model, Seq2SeqLM)


def signatures_of(model: Any) -> set[str]:
    """What a model answers, by the contract's names."""
    if hasattr(model, "metadata"):  # a client makes every call; the server says what there is
        return set(model.metadata().signatures)
    kinds = {
        calls.GeneratorCalls: {contract.GENERATE, contract.BEAM_SEARCH, contract.SCORE},
        calls.ClassifierCalls: {contract.CLASSIFY},
        calls.MaskedLMCalls: {contract.FILL_MASK},
        calls.EmbedderCalls: {contract.EMBED},
        calls.SpanQACalls: {contract.ANSWER},
    }
    return {name for kind, names in kinds.items() if isinstance(model, kind) for name in names}

"""Questions with given choices: the one that a language model finds most probable."""

from collections.abc import Iterable
from typing import Any

from tfllm.errors import UserError
from tfllm.evaluators.asking import Asked, Row, batches, needed
from tfllm.evaluators.perplexity import Scorer
from tfllm.evaluators.result import Evaluation


def multiple_choice(
    model: Scorer, rows: Iterable[Row], *, batch_size: int = 16, delimiter: str = " "
) -> Evaluation:
    """The fraction of rows whose right choice has the greatest log-probability after the prompt.

    Args:
        model: A live model or a client of one.
        rows: `prompt` (or `source`), `choices`, a list of texts, and `label`: the number of the
            right one from 0; or, as a text, the right one itself or that number.
        batch_size: Rows per call; each is as many scores as it has choices.
        delimiter: What stands between the prompt and a choice.

    Returns:
        `Evaluation` with `accuracy`, and `accuracy_normalized`, where the log-probability is
        divided by the number of characters of the choice.

    Raises:
        UserError: a row lacks a field or its label is none of its choices, or no row was answered.

    Source:
        `acc` and `acc_norm` of lm-eval, https://github.com/EleutherAI/lm-evaluation-harness
    """
    asked = Asked()
    right = {"accuracy": 0, "accuracy_normalized": 0}
    for batch in batches(rows, batch_size):
        first = len(asked.predictions) + 1
        prompts = [needed(row, first + i, "prompt", "source") for i, row in enumerate(batch)]
        choices = [_choices(row, first + i) for i, row in enumerate(batch)]
        labels = [_label(row, first + i, choices[i]) for i, row in enumerate(batch)]
        scores = iter(
            model.score(
                [prompt for prompt, each in zip(prompts, choices, strict=True) for _ in each],
                [delimiter + choice for each in choices for choice in each],
            )
        )
        for row, each, label in zip(batch, choices, labels, strict=True):
            found = [next(scores) for _ in each]
            logprobs = [score.logprob for score in found]
            per_character = [x / len(text) for x, text in zip(logprobs, each, strict=True)]
            said = {"predicted": each[_first_best(logprobs)], "logprobs": logprobs}
            if asked.keep(row, said, next((s.error for s in found if s.error), "")):
                right["accuracy"] += _first_best(logprobs) == label
                right["accuracy_normalized"] += _first_best(per_character) == label
    counts = asked.counts()
    numbers = {name: count / counts["answered"] for name, count in right.items()}
    return Evaluation(
        "multiple_choice", numbers, counts, {"delimiter": delimiter}, asked.predictions
    )


def _choices(row: Row, number: int) -> list[str]:
    choices = needed(row, number, "choices")
    if (
        not isinstance(choices, list)
        or not choices
        or not all(isinstance(choice, str) and choice for choice in choices)
    ):
        raise UserError(f"Row {number}: choices must be a list of texts, got {choices!r}.")
    return choices


def _label(row: Row, number: int, choices: list[str]) -> int:
    label: Any = needed(row, number, "label")
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(choices):
        return label
    label = str(label)
    if label in choices:
        return choices.index(label)
    if label.isdecimal() and int(label) < len(choices):
        return int(label)
    raise UserError(f"Row {number} has the label {label!r}, its choices are {choices!r}.")


def _first_best(values: list[float]) -> int:
    return values.index(max(values))

"""Objectives by name, with settings of plain values as a recipe holds them."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args, get_type_hints

from tfllm.data.objectives.examples import AnswerSpans, Labels, TextPairs
from tfllm.data.objectives.masked_lm import MaskedLM
from tfllm.data.objectives.next_token import NextToken
from tfllm.data.objectives.pairs import Pairs
from tfllm.data.objectives.prefix_lm import PrefixLM
from tfllm.data.objectives.skip_gram import SkipGram
from tfllm.data.objectives.span_corruption import SpanCorruption
from tfllm.errors import UserError
from tfllm.tokenizers import Tokenizer

# From the stored columns of a global batch and int64[2] (the run's seed, the step) to
# (x, y, weight).
Objective = Callable[[Mapping[str, Any], Any], tuple[Any, Any, Any]]

OBJECTIVES = {
    "next_token": NextToken,
    "masked_lm": MaskedLM,
    "span_corruption": SpanCorruption,
    "prefix_lm": PrefixLM,
    "pairs": Pairs,
    "skip_gram": SkipGram,
    "labels": Labels,
    "answer_spans": AnswerSpans,
    "text_pairs": TextPairs,
}


def make_objective(
    name: str, settings: Mapping[str, Any], tokenizer: Tokenizer | None
) -> Objective:
    """An objective of `OBJECTIVES`.

    Args:
        name: Its name there.
        settings: Its arguments beside the tokenizer; a whole number may stand for a fraction.
        tokenizer: That of the prepared data; None where they are texts.

    Raises:
        UserError: there is no such objective or setting (the nearest is offered), or the value of
            one is none.
    """
    _require(name, OBJECTIVES, "an objective")
    cls = OBJECTIVES[name]
    hints = get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls) if field.name != "tokenizer"]
    for setting, value in settings.items():
        _require(setting, fields, f"a setting of the objective {name}")
        allowed = get_args(hints[setting]) or (hints[setting],)
        if type(value) not in allowed and not (type(value) is int and float in allowed):
            wanted = " or ".join(kind.__name__ for kind in allowed).replace("NoneType", "None")
            raise UserError(f"{setting} of the objective {name} must be {wanted}; got {value!r}.")
    return cls(tokenizer, **settings)


def _require(name: str, known: Iterable[str], what: str) -> None:
    known = list(known)
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known)}."
        raise UserError(f"{name!r} is not {what}; {hint if known else 'it has none.'}")

"""The bias report: what changes in a model's answer when a sentence is about another group."""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tfllm import contract
from tfllm.calls import MaskedLMCalls
from tfllm.errors import UserError
from tfllm.evaluators.report import aligned
from tfllm.evaluators.tasks import signatures_of
from tfllm.reports.bootstrap import crossed_interval
from tfllm.reports.paired_templates import PairedTemplates
from tfllm.reports.pseudo_likelihood import pseudo_likelihoods
from tfllm.reports.report import Report, number

_LIMITS = (
    "That a model is fair where the difference is small: it is measured with these templates and "
    "words alone, and templates are not what people write.",
    "Harm: what a difference does to people depends on where the model is used.",
    "All uncertainty: the interval is that of other templates, terms and words like these, not of "
    "another training of the model.",
)
_OF_SENTENCES = (
    "Only what the model thinks of the groups: the log-probability of a sentence has that of the "
    "group's own word in it, so a rare or long word lowers it. Compare templates that differ in "
    "their terms alone.",
)


class Comparison(NamedTuple):
    """Two groups by one measure.

    Attributes:
        groups: Their names.
        measure: "log-probability", "pseudo-log-likelihood" or "score of LABEL".
        mean_difference: Of the first group − of the second.
        interval: Of the mean, by the crossed bootstrap; None with one pair.
        pairs: Of sentences.
        share_preferring_first: Pairs in which the first has more; ties are not among them.
        ties: Pairs in which both have the same.
        by_template: Mean difference by template.
        differences: float[r, c], of each sentence with each pair of words.
    """

    groups: tuple[str, str]
    measure: str
    mean_difference: float
    interval: tuple[float, float] | None
    pairs: int
    share_preferring_first: float
    ties: int
    by_template: dict[str, float]
    differences: np.ndarray


def bias(
    model: Any,
    templates: PairedTemplates | Mapping[str, Any],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int = 16,
) -> Report:
    """Compares a model's answers to sentences that differ in the group alone.

    A language model (live or served) is asked for the log-probability of the sentence, a live
    `MaskedLM` for its pseudo-log-likelihood, a classifier for the score of each label.

    Args:
        model: One of these, or a client.
        templates: Templates and words, see `PairedTemplates`.
        resamples: Of the bootstrap.
        confidence: Of its interval, in (0, 1).
        seed: Of its draws.
        batch_size: Rows per call.

    Returns:
        `Report`; its details have every pair.

    Raises:
        UserError: the model answers nothing that can be compared, refuses a sentence, or an
            argument is none.
    """
    if not isinstance(templates, PairedTemplates):
        templates = PairedTemplates.of(templates)
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}.")
    sentences = {group: templates.sentences(group) for group in templates.groups}
    found = [
        _compared(
            pair, measure, differences, templates,
            resamples=resamples, confidence=confidence, seed=seed,
        )
        for pair, measure, differences in _differences(model, sentences, batch_size)
    ]  # fmt: skip
    is_of_sentences = found[0].measure == "log-probability"
    return Report(
        "bias",
        {
            "interval": f"{_percent(confidence)} percentile, crossed bootstrap of {resamples} "
            "resamples",
            "comparisons": [_numbers(each) for each in found],
        },
        (*(_OF_SENTENCES if is_of_sentences else ()), *_LIMITS),
        _table(found, confidence),
        {"pairs": [pair for each in found for pair in _pairs(each, sentences)]},
    )


def _differences(model: Any, sentences: dict[str, list[list[str]]], batch_size: int):
    """(two groups, measure, float[r, c]) of every two groups."""
    shape = np.shape(next(iter(sentences.values())))
    flat = {group: [text for row in rows for text in row] for group, rows in sentences.items()}
    pairs = list(itertools.combinations(sentences, 2))
    if isinstance(model, MaskedLMCalls) and hasattr(model, "backbone"):
        for first, second in pairs:
            sums = np.array(pseudo_likelihoods(model, flat[first], flat[second], batch_size))
            yield (
                (first, second),
                "pseudo-log-likelihood",
                (sums[:, 0] - sums[:, 1]).reshape(shape),
            )
        return
    signatures = signatures_of(model)
    if contract.SCORE in signatures:
        ask, measures = _logprob, ["log-probability"]
    elif contract.CLASSIFY in signatures:
        labels = _answered(model.classify([flat[pairs[0][0]][0]]), flat[pairs[0][0]])[0].labels
        ask, measures = _scores, [f"score of {label}" for label in labels]
    else:
        raise UserError(
            "Bias is measured on a model that scores or classifies, or on a preset of a masked "
            f"language model; this one answers {', '.join(sorted(signatures)) or 'nothing known'}."
        )
    values = {
        group: np.concatenate(
            [ask(model, texts[at : at + batch_size]) for at in range(0, len(texts), batch_size)]
        )
        for group, texts in flat.items()
    }
    for first, second in pairs:
        for i, measure in enumerate(measures):
            yield (
                (first, second),
                measure,
                (values[first] - values[second])[:, i].reshape(shape),
            )


def _logprob(model: Any, texts: list[str]) -> np.ndarray:
    answers = _answered(model.score([""] * len(texts), texts), texts)
    return np.array([[answer.logprob] for answer in answers])


def _scores(model: Any, texts: list[str]) -> np.ndarray:
    return np.array([answer.scores for answer in _answered(model.classify(texts), texts)])


def _answered(answers: list, texts: list[str]) -> list:
    for answer, text in zip(answers, texts, strict=False):
        if answer.error:
            raise UserError(f"The model refused {text!r}: {answer.error}.")
    return answers


def _compared(groups, measure, differences, templates, **options) -> Comparison:
    numbers = np.array([number for number, _ in templates.rows()])
    return Comparison(
        groups,
        measure,
        float(differences.mean()),
        crossed_interval(differences, **options),
        differences.size,
        float((differences > 0).mean()),
        int((differences == 0).sum()),
        {
            template: float(differences[numbers == i].mean())
            for i, template in enumerate(templates.templates)
        },
        differences,
    )


def _numbers(found: Comparison) -> dict[str, Any]:
    numbers = found._asdict()
    del numbers["differences"]
    interval = None if found.interval is None else list(found.interval)
    return numbers | {"groups": list(found.groups), "interval": interval}


def _pairs(found: Comparison, sentences: dict[str, list[list[str]]]):
    first, second = found.groups
    for (row, column), difference in np.ndenumerate(found.differences):
        yield {
            "measure": found.measure,
            first: sentences[first][row][column],
            second: sentences[second][row][column],
            "difference": float(difference),
        }


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


def _table(found: list[Comparison], confidence: float) -> str:
    percent = _percent(confidence)
    names = ("measure", "mean difference", f"{percent} from", "to", "prefers first", "pairs")
    rows = [
        (
            " − ".join(each.groups),
            each.measure,
            number(each.mean_difference),
            *map(number, each.interval or (None, None)),
            number(each.share_preferring_first),
            str(each.pairs),
        )
        for each in found
    ]
    templates = [
        (template, each.measure, " − ".join(each.groups), number(mean))
        for each in found
        for template, mean in each.by_template.items()
    ]
    return "\n".join(
        [
            aligned([("groups", *names), *rows]),
            aligned([("template", "measure", "groups", "mean difference"), *templates]),
        ]
    )

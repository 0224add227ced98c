"""Written texts against the texts that should have been written."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from tfllm import contract, metrics
from tfllm.errors import UserError
from tfllm.evaluators.asking import Asked, Row, batches, needed
from tfllm.evaluators.result import Evaluation
from tfllm.rows import refusal

MEASURES = ("bleu", "chrf", "rouge1", "rouge2", "rouge_l", "exact_match")


class Writer(Protocol):
    """A `CausalLM`, a `Seq2SeqLM` or a `Client`."""

    def generate(self, prompt: list[str], **settings: Any) -> Any:
        """A list of one `Generation` per row."""

    def beam_search(self, prompt: list[str], **settings: Any) -> Any:
        """A list of one `Beams` per row."""


def generation(  # noqa: PLR0913 - the ways to write and the ways to compare
    model: Writer,
    rows: Iterable[Row],
    *,
    batch_size: int = 16,
    beam_search: bool = False,
    settings: Mapping[str, Any] | None = None,
    measures: Sequence[str] = MEASURES,
    bleu_tokenizer: str = "13a",
    rouge_tokenizer: str = "english",
) -> Evaluation:
    """BLEU, chrF, ROUGE and exact match of what a model writes.

    Args:
        model: A live model or a client of one.
        rows: `source` or `prompt`, and `target`: the right text, or a list of several.
        batch_size: Rows per call.
        beam_search: Whether the best beam is measured instead of `generate`.
        settings: Of `generate`, as {"max_new_tokens": 128}; or of `beam_search`. What is left out
            is as the model has it.
        measures: Which of `MEASURES`.
        bleu_tokenizer: See `tfllm.metrics.bleu`.
        rouge_tokenizer: See `tfllm.metrics.rouge`; "english" reads nothing but a-z and 0-9.

    Returns:
        `Evaluation`; BLEU and chrF in [0, 100] as sacrebleu has them, the others in [0, 1]. The
        exact match leaves white space at both ends out. `cut_at_limit` counts the texts that had
        no end within the limit of new tokens.

    Raises:
        UserError: a measure or a setting is unknown, a row has no prompt or no target, or none
            was answered.
    """
    for name in measures:
        if name not in MEASURES:
            raise UserError(f"There is no measure {name!r}; there are {', '.join(MEASURES)}.")
    settings = dict(settings or {})
    _known(settings, contract.BEAM_SEARCH if beam_search else contract.GENERATE)
    asked, cut = Asked(), 0
    written: list[str] = []
    references: list[list[str]] = []
    for batch in batches(rows, batch_size):
        first = len(asked.predictions) + 1
        prompts = [needed(row, first + i, "source", "prompt") for i, row in enumerate(batch)]
        targets = [_several(row, first + i) for i, row in enumerate(batch)]
        write = model.beam_search if beam_search else model.generate
        for row, target, answer in zip(batch, targets, write(prompts, **settings), strict=True):
            text, reason = _best(answer) if beam_search else (answer.text, answer.finish_reason)
            said = {"predicted": text, "finish_reason": reason}
            if asked.keep(row, said, refusal(answer)):
                written.append(text)
                references.append(target)
                cut += reason == contract.LENGTH
    counts = asked.counts() | {"cut_at_limit": cut}
    numbers, details = _compared(written, references, measures, bleu_tokenizer, rouge_tokenizer)
    how = {"search": "beam_search" if beam_search else "generate", "settings": settings}
    return Evaluation("generation", numbers, counts, how | details, asked.predictions)


def _known(settings: Mapping[str, Any], signature: str) -> None:
    known = [f.name for f in contract.SIGNATURES[signature].inputs if f.default is not None]
    for name in settings:
        if name not in known:
            raise UserError(f"{signature} has no setting {name!r}; it has {', '.join(known)}.")


def _several(row: Row, number: int) -> list[str]:
    target = needed(row, number, "target")
    several = [target] if isinstance(target, str) else list(target)
    if not several:
        raise UserError(f"Row {number} has no text in 'target'.")
    return several


def _best(beams: contract.Beams) -> tuple[str, str]:
    return beams.text[0], beams.finish_reason[0]


def _compared(
    written: list[str],
    references: list[list[str]],
    measures: Sequence[str],
    bleu_tokenizer: str,
    rouge_tokenizer: str,
) -> tuple[dict[str, float], dict[str, Any]]:
    numbers: dict[str, float] = {}
    details: dict[str, Any] = {}
    if "bleu" in measures:
        numbers["bleu"], details["bleu"] = metrics.bleu(
            written, references, tokenizer=bleu_tokenizer
        )
    if "chrf" in measures:
        numbers["chrf"], details["chrf"] = metrics.chrf(written, references)
    if any(name.startswith("rouge") for name in measures):
        found = metrics.rouge(written, references, tokenizer=rouge_tokenizer)._asdict()
        numbers |= {name: value for name, value in found.items() if name in measures}
        details["rouge"] = f"tok:{rouge_tokenizer}"
    if "exact_match" in measures:
        same = [
            text.strip() in [right.strip() for right in several]
            for text, several in zip(written, references, strict=True)
        ]
        numbers["exact_match"] = sum(same) / len(same)
    return numbers, details

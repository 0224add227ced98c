"""The memorisation report: what a model repeats of its training texts, and of canaries in them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tfllm.errors import UserError
from tfllm.evaluators.report import aligned
from tfllm.reports.exposure import Canary, Exposure, exposure
from tfllm.reports.report import Report, number
from tfllm.reports.verbatim import Verbatim, draw, verbatim

_OF_TEXTS = (
    "All that is memorised: other prompts, longer ones, sampling and text changed by a word find "
    "more. What is found is a lower bound.",
    "That a repeated text was memorised from this corpus: phrases that occur everywhere are "
    "repeated too. Compare with texts that were held out.",
    "That the model is safe to publish where nothing was found: the interval says how much a "
    "sample of this size may have missed.",
)
_WITHOUT_BASE = (
    "How much is repeated of texts that the model never saw: no held-out texts were given.",
)
_OF_CANARIES = (
    "What becomes of real secrets: exposure is that of these canaries, as often as they were put "
    "among the training texts, and read as texts of their own.",
    "More than log2 of the candidates, where not all secrets were compared: exposure is then the "
    "approximation by sampling, and `extrapolated` trusts that a skew-normal distribution fits.",
)


def memorisation(  # noqa: PLR0913 - one keyword per option of the command
    model: Any,
    texts: Iterable[str] = (),
    held_out: Iterable[str] = (),
    *,
    canaries: Sequence[str | Canary] = (),
    prefix_tokens: int = 50,
    continuation_tokens: int = 50,
    limit: int | None = 1000,
    sample: int = 1000,
    seed: int = 0,
    batch_size: int = 16,
) -> Report:
    """How much of its training texts a model repeats, and how well it knows canaries.

    Args:
        model: A `CausalLM` or `Seq2SeqLM`, or a client of one.
        texts: Documents that it was trained on. Those that are held out too are left out.
        held_out: Documents that it was not, for the base rate.
        canaries: Secrets put among the training texts, in braces, as "the code is {281-265}".
        prefix_tokens: Of a document, shown to the model.
        continuation_tokens: That it may repeat.
        limit: Documents at most, of each; None = all.
        sample: Other secrets that each canary is compared with.
        seed: Of what is drawn.
        batch_size: Rows per call.

    Returns:
        `Report`; its details have every document.

    Raises:
        UserError: there are neither texts nor canaries; or as `verbatim` and `exposure`.
    """
    not_trained: set[int] = set()
    kinds = {"held_out": draw(_noted(held_out, not_trained), limit, seed)}
    trained = (text for text in texts if hash(text) not in not_trained)
    kinds = {"training": draw(trained, limit, seed)} | kinds
    if not (kinds["training"] or canaries):
        raise UserError("There is nothing to report: give training texts, or canaries.")
    found = {
        name: verbatim(
            model,
            documents,
            prefix_tokens=prefix_tokens,
            continuation_tokens=continuation_tokens,
            batch_size=batch_size,
        )
        for name, documents in kinds.items()
        if documents
    }
    exposed = [
        exposure(model, canary, sample=sample, seed=seed, batch_size=batch_size)
        for canary in canaries
    ]
    limits: tuple[str, ...] = _OF_TEXTS if found else ()
    limits += () if "held_out" in found or not found else _WITHOUT_BASE
    limits += _OF_CANARIES if exposed else ()
    return Report(
        "memorisation",
        {
            "prefix_tokens": prefix_tokens,
            "continuation_tokens": continuation_tokens,
            **{name: _numbers(each) for name, each in found.items()},
            "canaries": [each._asdict() for each in exposed],
        },
        limits,
        "\n".join([*_texts_table(found), *_canaries_table(exposed)]),
        {"documents": {n: [each._asdict() for each in v.repeated] for n, v in found.items()}},
    )


def _noted(texts: Iterable[str], hashes: set[int]) -> Iterator[str]:
    """The texts, each noted on its way; hashes, as a corpus need not fit in memory."""
    for text in texts:
        hashes.add(hash(text))
        yield text


def _numbers(found: Verbatim) -> dict[str, Any]:
    numbers = found._asdict()
    del numbers["repeated"]
    return numbers | {"interval": list(found.interval)}


def _texts_table(found: dict[str, Verbatim]) -> list[str]:
    if not found:
        return []
    names = ("repeated exactly", "share", "95 % from", "to", "mean tokens", "of documents")
    rows = [
        (
            name.replace("_", " "),
            str(each.exact),
            number(each.share),
            *map(number, each.interval),
            number(each.mean_matched_tokens),
            str(each.documents),
        )
        for name, each in found.items()
    ]
    return [aligned([("texts", *names), *rows])]


def _canaries_table(exposed: list[Exposure]) -> list[str]:
    if not exposed:
        return []
    rows = [
        (
            each.canary,
            number(each.exposure),
            number(each.extrapolated),
            f"{each.rank} of {each.candidates}",
            "all" if each.is_exact else f"a sample of {each.space}",
        )
        for each in exposed
    ]
    return [aligned([("canary", "exposure", "extrapolated", "rank", "compared with"), *rows])]

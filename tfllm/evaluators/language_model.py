"""The perplexity of texts as an evaluation beside the others."""

from collections.abc import Iterable

from tfllm.evaluators.perplexity import Scorer, perplexity, served_context_length
from tfllm.evaluators.result import Evaluation


def language_model(
    model: Scorer,
    texts: Iterable[str],
    *,
    batch_size: int = 16,
    context_length: int | None = None,
    stride: int | None = None,
) -> Evaluation:
    """Perplexity and bits per byte, see `perplexity`.

    Args:
        model: A live model or a client of one.
        texts: Documents.
        batch_size: Windows per call.
        context_length: Tokens; default the model's own.
        stride: Tokens that the window moves on; default half the context.

    Returns:
        `Evaluation`, without predictions.

    Raises:
        UserError: as `perplexity`.
    """
    if context_length is None:
        backbone = getattr(model, "backbone", None)  # a served model has none here
        context_length = (
            served_context_length(model) if backbone is None else backbone.max_sequence_length
        )
    found = perplexity(
        model, texts, context_length=context_length, stride=stride, batch_size=batch_size
    )
    return Evaluation(
        "language_model",
        {
            "perplexity": found.perplexity,
            "bits_per_byte": found.bits_per_byte,
            "logprob_per_token": found.logprob_per_token,
        },
        {"tokens": found.num_tokens, "bytes": found.num_bytes},
        {
            "context_length": context_length,
            "stride": context_length // 2 if stride is None else stride,
        },
    )

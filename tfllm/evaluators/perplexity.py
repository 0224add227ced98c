"""Perplexity and bits per byte of texts, under a live model or a served one."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm

from tfllm.errors import UserError
from tfllm.evaluators.windows import Tokens, windows


class Scorer(Tokens, Protocol):
    """A `CausalLM` or a `Client`: both answer the same calls."""

    def score(self, prompts: list[str], completions: list[str], /) -> Any:
        """A list of one `Score` per row."""


class Perplexity(NamedTuple):
    """How well a model predicts texts.

    Attributes:
        perplexity: exp of the mean negative log-probability per token.
        bits_per_byte: Bits per UTF-8 byte, comparable across tokenizers and with compressors.
        logprob_per_token: Mean log-probability, natural logarithm.
        num_tokens: Tokens predicted.
        num_bytes: UTF-8 bytes of the texts.
    """

    perplexity: float
    bits_per_byte: float
    logprob_per_token: float
    num_tokens: int
    num_bytes: int


class ScoredPiece(NamedTuple):
    """A piece of a text and how likely it is after what stands before it.

    Attributes:
        text: Number of the text, from 0.
        piece: The piece.
        logprob: Summed over its tokens, natural logarithm.
        num_tokens: Their number.
    """

    text: int
    piece: str
    logprob: float
    num_tokens: int


def perplexity(
    scorer: Scorer,
    texts: Iterable[str],
    *,
    context_length: int,
    stride: int | None = None,
    batch_size: int = 16,
) -> Perplexity:
    """Scores every text by a window that slides over it.

    The end of a text is not predicted.

    Args:
        scorer: A live model or a client.
        texts: Documents; each is scored alone.
        context_length: Tokens that the model reads at once.
        stride: Tokens that the window moves on, and that are predicted at a time; each from at
            least the `context_length − stride` before it. Default half the context. A smaller one
            gives a better perplexity and costs `context_length / stride` times the computation.
        batch_size: Windows per call.

    Returns:
        `Perplexity` over all texts.

    Raises:
        UserError: a number is too small or the stride too large, there is no text, or the model's
            context is shorter than `context_length`.
    """
    logprob, num_tokens, num_bytes = 0.0, 0, 0
    progress = tqdm(desc="scoring", unit="B", unit_scale=True, disable=None)
    for scored in score_pieces(scorer, texts, context_length, stride, batch_size):
        size = len(scored.piece.encode())
        logprob += scored.logprob
        num_tokens += scored.num_tokens
        num_bytes += size
        progress.update(size)
    progress.close()
    if not num_tokens:
        raise UserError("There is no text to score.")
    mean = logprob / num_tokens
    # Above 700 e^loss is no float.
    return Perplexity(
        math.inf if mean < -700 else math.exp(-mean),
        -logprob / math.log(2) / num_bytes,
        mean,
        num_tokens,
        num_bytes,
    )


def score_pieces(
    scorer: Scorer,
    texts: Iterable[str],
    context_length: int,
    stride: int | None = None,
    batch_size: int = 16,
) -> Iterator[ScoredPiece]:
    """The pieces of all texts with their scores, in order; see `perplexity`."""
    if context_length < 2:
        raise UserError(f"context_length must be at least 2, got {context_length}.")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}.")
    stride = context_length // 2 if stride is None else stride
    if not 1 <= stride <= context_length:
        raise UserError(
            f"stride must be from 1 to the {context_length} tokens of the context, got {stride}."
        )
    pieces = (
        (number, before, piece)
        for number, text in enumerate(texts)
        for before, piece in windows(scorer, text, context_length, stride)
    )
    while batch := [piece for _, piece in zip(range(batch_size), pieces, strict=False)]:
        numbers, before, here = map(list, zip(*batch, strict=True))
        for number, piece, score in zip(numbers, here, scorer.score(before, here), strict=True):
            if score.error:
                raise UserError(
                    f"The model refused a window of {context_length} tokens: {score.error}. "
                    "Give the model's own context length."
                )
            yield ScoredPiece(number, piece, score.logprob, score.num_tokens)


def served_context_length(scorer: Scorer) -> int:
    """Tokens that a served model reads at once, as it says when it refuses a text.

    Raises:
        UserError: it refuses no text of a megabyte.
    """
    (score,) = scorer.score([""], [" a" * 2**19])
    limit = re.search(r"the model takes (\d+)", score.error)
    if not limit:
        raise UserError("The model does not say its context length: give it.")
    return int(limit[1]) - 1  # the last token of a scored text is not read

"""Perplexity and bits per byte of texts, under a live model or a served one."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm

from tfllm.errors import UserError


class Scorer(Protocol):
    """A `CausalLM` or a `Client`: both answer the same calls."""

    def score(self, prompts: list[str], completions: list[str]) -> Any:
        """A list of one `Score` per row."""

    def tokenize(self, texts: list[str], /) -> Any:
        """A list of the token ids of each text."""

    def detokenize(self, token_ids: list[list[int]]) -> Any:
        """A list of the texts of the lists of token ids."""


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


def perplexity(
    scorer: Scorer, texts: Iterable[str], *, context_length: int, batch_size: int = 16
) -> Perplexity:
    """Scores every text piece by piece, each piece after the one before it.

    A piece is half a context, so that a token is predicted from at least its own piece and the
    whole piece before it. The end of a text is not predicted.

    Args:
        scorer: A live model or a client.
        texts: Documents; each is scored alone.
        context_length: Tokens that the model reads at once.
        batch_size: Pieces per call.

    Returns:
        `Perplexity` over all texts.

    Raises:
        UserError: a number is too small, there is no text, or the model's context is shorter than
            `context_length`.
    """
    if context_length < 2:
        raise UserError(f"context_length must be at least 2, got {context_length}.")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}.")
    logprob, num_tokens, num_bytes = 0.0, 0, 0
    pieces = _pieces(scorer, texts, context_length // 2)
    progress = tqdm(desc="scoring", unit="B", unit_scale=True, disable=None)
    while batch := [piece for _, piece in zip(range(batch_size), pieces, strict=False)]:
        before, here = map(list, zip(*batch, strict=True))
        for piece, score in zip(here, scorer.score(before, here), strict=True):
            if score.error:
                raise UserError(
                    f"The model refused a piece of half of {context_length} tokens: {score.error}. "
                    "Give the model's own context length."
                )
            logprob += score.logprob
            num_tokens += score.num_tokens
            num_bytes += len(piece.encode())
            progress.update(len(piece.encode()))
    progress.close()
    if not num_tokens:
        raise UserError("There is no text to score.")
    mean = logprob / num_tokens
    return Perplexity(
        math.exp(-mean), -logprob / math.log(2) / num_bytes, mean, num_tokens, num_bytes
    )


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


def _pieces(scorer: Scorer, texts: Iterable[str], size: int) -> Iterator[tuple[str, str]]:
    """(the piece before, the piece) of every text, each of `size` tokens at most."""
    for text in texts:
        before = ""
        for piece in _split(scorer, text, size):
            yield before, piece
            before = piece


def _split(scorer: Scorer, text: str, size: int) -> Iterator[str]:
    """Cuts a text every `size` tokens, but never inside a character."""
    (ids,) = scorer.tokenize([text])
    while ids:
        for length in range(min(size, len(ids)), 0, -1):
            (piece,) = scorer.detokenize([ids[:length]])
            # Tokens may be bytes; a cut inside a character decodes to something else.
            if piece and text.startswith(piece):
                break
        else:
            raise UserError(f"The tokenizer does not give back the text: {text[:40]!r}…")
        yield piece
        text, ids = text[len(piece) :], ids[length:]

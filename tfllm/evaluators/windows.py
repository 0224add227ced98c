"""Long texts as windows that a language model can read."""

from collections.abc import Iterator
from typing import Any, Protocol

from tfllm.errors import UserError

_BYTES = 3  # of a character, beside its first


class Tokens(Protocol):
    """A `CausalLM` or a `Client`."""

    def tokenize(self, texts: list[str], /) -> Any:
        """A list of the token ids of each text."""

    def detokenize(self, token_ids: list[list[int]], /) -> Any:
        """A list of the texts of the lists of token ids."""


def windows(
    model: Tokens, text: str, context_length: int, stride: int
) -> Iterator[tuple[str, str]]:
    """(what stands before, piece) of a text: the pieces follow each other and are the text.

    Args:
        model: Whose tokens are counted.
        text: A text.
        context_length: Tokens of both at most, once each is tokenized for itself.
        stride: Tokens of a piece at most, but for a character of more. What stands before has the
            rest of the context, so that every token is predicted from at least
            `context_length − stride` tokens, where there are as many before it.

    Raises:
        UserError: the tokenizer does not give back the text.
    """
    (ids,) = model.tokenize([text])
    end = at = 0  # tokens and characters before the piece
    while end < len(ids):
        length, piece = _piece(model, text, at, ids[end : end + stride + _BYTES], stride)
        begin = max(0, end - (context_length - stride))
        yield _longest(model, ids[begin:end], text, at, piece, context_length), piece
        end, at = end + length, at + len(piece)


def last_part(model: Tokens, text: str, after: str, context_length: int) -> str:
    """The end of a text, as much as fits before another text.

    Args:
        model: Whose tokens are counted.
        text: What is cut, at its beginning.
        after: What follows it.
        context_length: Tokens of both at most.
    """
    ids, others = model.tokenize([text, after])
    begin = max(0, len(ids) + len(others) - context_length)
    return _longest(model, ids[begin:], text, len(text), after, context_length) if begin else text


def _piece(model: Tokens, text: str, at: int, ids: list[int], stride: int) -> tuple[int, str]:
    """How many of the tokens make a piece of the text, and that piece."""
    longer = range(stride + 1, len(ids) + 1)  # only a character may need them
    for length in (*range(min(stride, len(ids)), 0, -1), *longer):
        (piece,) = model.detokenize([ids[:length]])
        # Tokens may be bytes; a cut inside a character decodes to something else.
        if piece and text.startswith(piece, at):
            return length, piece
        # Some tokenizers drop the space before a first word.
        if piece and text.startswith(" " + piece, at):
            return length, " " + piece
    raise UserError(f"The tokenizer does not give back the text: {text[at : at + 40]!r}…")


def _longest(
    model: Tokens, ids: list[int], text: str, at: int, after: str, context_length: int
) -> str:
    """The most of the tokens before place `at` of a text that fits before another text."""
    for begin in range(len(ids)):
        (before,) = model.detokenize([ids[begin:]])
        if not text.endswith(before, 0, at):
            continue
        # Cut where it was not cut before, a text may have another token or two.
        if sum(map(len, model.tokenize([before, after]))) <= context_length:
            return before
    return ""

"""Prompts with completions, and conversations, as tokens of which only some are targets.

A served model reads a rendered conversation as one text. So a row is tokenized as one text too,
and what its targets are is found by tokenizing the text up to each border once more: as far as
both have the same tokens, they are those of the text before it. Offsets would say the same, but
tokenizers that normalize have none, and no tokenizer tells them for tokens without text.

Where a token holds the end of one part and the beginning of the next, it is a target if one of the
two is: the model must be able to write it. (What it reads when it is asked ends before such a
token. A prompt that ends with a line break or a special token has none.)
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tfllm.chat import ChatTemplate, checked
from tfllm.data.tables import anything
from tfllm.errors import UserError
from tfllm.tokenizers import Tokenizer

Parts = list[tuple[str, bool]]  # texts, and whether the model shall write each

_BATCH = 64  # rows that are tokenized together
_SHARE_GPT = {"human": "user", "gpt": "assistant"}


class Weighted(NamedTuple):
    """A row as a model learns it.

    Attributes:
        token_ids: All of it.
        is_target: For each token 1 if it is to be predicted, else 0.
    """

    token_ids: list[int]
    is_target: list[int]


def messages(value: object) -> list[dict[str, Any]]:
    """A conversation of a row: dicts with role and content, or with ShareGPT's from and value.

    In a table, whose cells are texts, the JSON of that.

    Raises:
        ValueError: it is none; with what was expected.
    """
    if isinstance(value, list) or isinstance(value, str) and value.lstrip().startswith("["):
        value = anything(value)
    if isinstance(value, list):
        value = [_of_share_gpt(each) for each in value]
    try:
        return checked(value)
    except UserError as error:
        raise ValueError(f"messages with role and content ({error})") from None


def _of_share_gpt(message: object) -> object:
    if isinstance(message, dict) and {"from", "value"} <= set(message):
        role = message["from"]
        known = _SHARE_GPT.get(role, role) if isinstance(role, str) else role
        return {"role": known, "content": message["value"]}
    return message


def parts_of(row: Mapping[str, Any], template: ChatTemplate | None = None) -> Parts:
    """The texts of a row, and whether the model shall write each.

    Args:
        row: With `messages`, or with `prompt` and `completion`; perhaps `place`, its file and line.
        template: For messages.

    Raises:
        UserError: there is no template, or it refuses the conversation.
    """
    if "messages" not in row:
        return [(row["prompt"], False), (row["completion"], True)]
    if template is None:
        raise UserError("Conversations need a chat template, and the tokenizer has none.")
    try:
        return template.segments(row["messages"])
    except UserError as error:
        named = f"{row['place']}: " if row.get("place") else ""
        raise UserError(f"{named}The conversation {str(row['messages'])[:80]} …: {error}") from None


def weighted_documents(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: Tokenizer,
    template: ChatTemplate | None = None,
    *,
    sequence_length: int | None = None,
    counts: collections.Counter[str] | None = None,
) -> Iterator[Weighted]:
    """Rows as token ids, and which of these are to be predicted.

    The ids are those that `generate` reads: begun with bos where it does that. A completion ends
    with eos, a target too; a conversation ends as its template ends it.

    Args:
        rows: With `messages`, or with `prompt` and `completion`.
        tokenizer: The model's.
        template: For messages; None means the tokenizer's own.
        sequence_length: Tokens that the model reads at most. What is longer loses its end, never
            its beginning: each of the tokens that are left is learned after all that is before it.
        counts: Counts `cut_examples`, and `examples_without_target`, which are left out.

    Raises:
        UserError: see `parts_of`; or the tokenizer has no bos or eos where one is needed.
    """
    template = template or tokenizer.chat_template
    counts = collections.Counter() if counts is None else counts
    rows = iter(rows)
    while batch := list(itertools.islice(rows, _BATCH)):
        several = [parts_of(row, template) for row in batch]
        for row, found in zip(batch, _tokenized(several, tokenizer), strict=True):
            found = _with_ends(found, tokenizer, ends="messages" not in row)
            if sequence_length is not None and len(found.token_ids) > sequence_length + 1:
                counts["cut_examples"] += 1
                found = Weighted(*(column[: sequence_length + 1] for column in found))
            if any(found.is_target):
                yield found
            else:
                counts["examples_without_target"] += 1


def _with_ends(found: Weighted, tokenizer: Tokenizer, *, ends: bool) -> Weighted:
    ids, is_target = found
    # As `generate`, which must read something before it writes.
    if tokenizer.begins_with_bos or not ids or is_target[0]:
        ids, is_target = [_special(tokenizer, "bos"), *ids], [0, *is_target]
    if ends:
        ids, is_target = [*ids, _special(tokenizer, "eos")], [*is_target, 1]
    return Weighted(ids, is_target)


def _special(tokenizer: Tokenizer, name: str) -> int:
    token_id = getattr(tokenizer, f"{name}_id")
    if token_id < 0:
        raise UserError(f"The tokenizer has no {name}_id: a row needs a token for its ends.")
    return token_id


def _tokenized(several: list[Parts], tokenizer: Tokenizer) -> Iterator[Weighted]:
    """Rows as tokens, without bos and eos."""
    texts: list[str] = []
    for parts in several:
        whole = "".join(text for text, _ in parts)
        texts += [whole, *(whole[:border] for border in _borders(parts))]
    encoded = iter(tokenizer.encode_batch(texts))
    for parts in several:
        ids = next(encoded)
        is_target = [0] * len(ids)
        begin, wanted = 0, parts[0][1]
        for number, (_, next_wanted) in enumerate(parts[1:], 1):
            before = next(encoded)
            border = _common(before, ids)
            if wanted:
                shared = border < len(before)
                end = _behind_shared(parts[number:], border, ids, tokenizer) if shared else border
                is_target[begin:end] = [1] * (end - begin)
            begin, wanted = border, next_wanted
        if wanted:
            is_target[begin:] = [1] * (len(ids) - begin)
        yield Weighted(ids, is_target)


def _behind_shared(parts: Parts, border: int, ids: list[int], tokenizer: Tokenizer) -> int:
    """The first token that is of `parts` alone, where the one at `border` is not."""
    rest = tokenizer.encode("".join(text for text, _ in parts))
    return min(len(ids), max(border + 1, len(ids) - _common(rest[::-1], ids[::-1])))


def _borders(parts: Parts) -> list[int]:
    """Where parts but the first begin, in characters."""
    return list(itertools.accumulate(len(text) for text, _ in parts[:-1]))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two lists begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))

"""The merges of byte-pair encoding as arrays that a graph can search."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfllm.errors import UserError

NEVER = np.iinfo(np.int32).max  # a rank that no merge has
MOST_IDS = 1 << 22  # against damaged files: tables have a place for every id below the highest


class MergeTable(NamedTuple):
    """What a merging needs to know about two neighbouring tokens a and b.

    Attributes:
        keys: int64[k], rising: `a * base + b`.
        entries: int32[k + 1, 4], for each key `rank` and `merged` (of the merge of a and b),
            `before_b` and `after_a`; the last row, of `NEVER`s, is for pairs without a key.
            `before_b` is the least rank of a merge of b with a token on its left that ends with
            a; `after_a` the least rank of a merge of a with a token on its right that begins
            with b. "Ends" and "begins" mean the tree of the merges that make the token.
        base: Above every id.
        in_order: Whether every merge comes after the ones that make its two parts, so that
            merging goes through the ranks once. If not, only `rank` and `merged` are filled in.
        reached: bool[base], of each id whether the characters of the token are merged to it; all
            False if not in order, as it is not known then.
    """

    keys: np.ndarray
    entries: np.ndarray
    base: int
    in_order: bool
    reached: np.ndarray


def merge_table(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, ...]]) -> MergeTable:
    """Makes the table.

    Args:
        vocabulary: Id of each token; no two tokens share one.
        merges: Pairs of tokens, the first merge first. Of equal pairs the last one counts.

    Raises:
        UserError: if the ids are not one for each token, a merge is no pair, or it is of, or
            gives, a token that the vocabulary lacks.
    """
    _check(vocabulary, merges)
    base = 1 + max(vocabulary.values(), default=0)
    rank_of = {pair: rank for rank, pair in enumerate(merges)}
    try:
        parts = np.array(
            [(vocabulary[a], vocabulary[b], vocabulary[a + b]) for a, b in rank_of], np.int64
        ).reshape(-1, 3)
    except KeyError as error:
        raise UserError(
            f"The merges and the vocabulary do not fit: a merge needs the token {error}, which "
            "the vocabulary lacks."
        ) from error
    a, b, merged = parts.T
    rank = np.fromiter(rank_of.values(), np.int64, len(rank_of))
    lengths = np.zeros(base, np.int64)
    lengths[list(vocabulary.values())] = list(map(len, vocabulary))
    trees = _trees(a, b, merged, rank, lengths)
    if trees is None:
        return _assembled(np.zeros(base, bool), False, (a, b, rank, merged))
    live, first, last = trees
    a, b, merged, rank = a[live], b[live], merged[live], rank[live]
    before = _along(a, b, rank, last)
    follower, leader, after_rank = _along(b, a, rank, first)
    reached = (lengths == 1) | (first >= 0)
    return _assembled(reached, True, (a, b, rank, merged), before, (leader, follower, after_rank))


def _check(vocabulary, merges):
    ids = list(vocabulary.values())
    if not all(isinstance(i, int) and 0 <= i < MOST_IDS for i in ids) or len(set(ids)) < len(ids):
        raise UserError(
            f"A vocabulary gives each token a number of its own, from 0 to {MOST_IDS - 1}."
        )
    for pair in merges:
        if len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise UserError(f"A merge is a pair of tokens; got {pair!r}.")
        if " " in (joined := pair[0] + pair[1]) or "\n" in joined:
            raise UserError(f"The tokens of a merge are without spaces; got {pair!r}.")


def _trees(a, b, merged, rank, lengths):
    """The merges that can ever happen, and the two parts of the token that each one makes.

    What happens within some characters does not depend on what is around them as long as no
    merge crosses their ends. So a pair can only be merged if its characters, alone, come to be
    just these two tokens; and each token is made in one way. Tables made from a vocabulary of
    ranks list all ways to cut a token in two, of which the others are dead.

    Shorter tokens are settled first. Whether a pair stands to be merged is found backwards in
    time: of the two tokens at the cut the younger one is taken apart, and no merge across the
    cut may have come before its making.

    Returns:
        bool[merges], the first and the last part of each id (int64, -1 where it is not merged);
        or None if a merge that can happen comes before one that makes a part of it.
    """
    base = len(lengths)
    order = np.argsort(a * base + b)
    keys = (a * base + b)[order]
    live = np.zeros(len(a), bool)
    first, last, made = (np.full(base, -1, np.int64) for _ in range(3))
    made[lengths > 1] = NEVER  # until a way to make it is found

    def crossing(x, y):
        """The rank of the merge of x and y that can happen, or NEVER."""
        at = np.minimum(np.searchsorted(keys, x * base + y), len(keys) - 1)
        found = order[at]
        return np.where((keys[at] == x * base + y) & live[found], rank[found], NEVER)

    by_length = np.argsort(lengths[merged], kind="stable")
    cuts = np.flatnonzero(np.diff(lengths[merged][by_length])) + 1
    for some in np.split(by_length, cuts):
        x, y = a[some], b[some]
        possible = (made[x] != NEVER) & (made[y] != NEVER)
        some, x, y = some[possible], x[possible], y[possible]
        x_until, y_until = (np.full(len(some), NEVER) for _ in range(2))
        stands = np.arange(len(some))  # those still to be looked at, all others are decided
        good = np.zeros(len(some), bool)
        while len(stands):
            whole = np.maximum(made[x], made[y]) < 0
            good[stands[whole]] = True
            stands, x, y, x_until, y_until = (
                values[~whole] for values in (stands, x, y, x_until, y_until)
            )
            undo_x = made[x] > made[y]  # of equal ones the left one was made first
            x_until = np.where(undo_x, made[x], x_until)
            y_until = np.where(undo_x, y_until, made[y])
            x, y = np.where(undo_x, last[x], x), np.where(undo_x, y, first[y])
            across = crossing(x, y)
            crossed = (across < x_until) & (across <= y_until)
            stands, x, y, x_until, y_until = (
                values[~crossed] for values in (stands, x, y, x_until, y_until)
            )
        found = some[good]
        if np.any(rank[found] < np.maximum(made[a[found]], made[b[found]])):
            return None
        live[found] = True
        first[merged[found]], last[merged[found]] = a[found], b[found]
        made[merged[found]] = rank[found]
    return live, first, last


def _along(whole, other, rank, part):
    """Each merge of `whole` and `other`, for `whole`, its `part`, the part of that, and so on."""
    levels = []
    while len(whole):
        levels.append((whole, other, rank))
        inner = part[whole]
        whole, other, rank = inner[inner >= 0], other[inner >= 0], rank[inner >= 0]
    return tuple(map(np.concatenate, zip(*levels, strict=True))) if levels else (whole, other, rank)


def _assembled(reached, in_order, merges, before=None, after=None) -> MergeTable:
    base = len(reached)
    a, b, rank, merged = merges
    filled = [(a, b, rank, 0), (a, b, merged, 1)]
    if before is not None:
        filled += [(*before, 2), (*after, 3)]
    keys = np.unique(np.concatenate([a * base + b for a, b, *_ in filled]))
    entries = np.full((len(keys) + 1, 4), NEVER, np.int32)
    for a, b, values, column in filled:
        at = np.searchsorted(keys, a * base + b)
        np.minimum.at(entries[:, column], at, values.astype(np.int32))
    return MergeTable(keys, entries, base, in_order, reached)

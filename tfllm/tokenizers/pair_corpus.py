"""Which pair of neighbours is the most frequent in a corpus while pairs in it are merged."""

import heapq
from collections import Counter, defaultdict
from itertools import pairwise


class PairCorpus:
    """Pieces as lists of ids, and how often each pair of neighbours is in all of them.

    Args:
        pieces: The ids of each different piece.
        times: How often each of them is in the texts.
    """

    def __init__(self, pieces: list[list[int]], times: list[int]):
        self._pieces, self._times = pieces, times
        self._counts: Counter[tuple[int, int]] = Counter()
        self._places = defaultdict(set)  # the pieces that a pair is in, or was
        for place, piece in enumerate(pieces):
            for pair in pairwise(piece):
                self._counts[pair] += times[place]
                self._places[pair].add(place)
        self._queue = [(-count, pair) for pair, count in self._counts.items()]
        heapq.heapify(self._queue)

    def most_frequent(self, least: int) -> tuple[int, int] | None:
        """The pair, of equally frequent ones that of the lower ids; None below `least`."""
        while self._queue:
            frequency, pair = heapq.heappop(self._queue)
            if self._counts[pair] >= least:
                if -frequency == self._counts[pair]:
                    return pair
                heapq.heappush(self._queue, (-self._counts[pair], pair))
        return None

    def merge(self, pair: tuple[int, int], merged: int) -> None:
        changed: Counter[tuple[int, int]] = Counter()
        for place in self._places.pop(pair):
            before = self._pieces[place]
            self._pieces[place], changes = _merged(before, pair, merged)
            for found, change in changes:
                changed[found] += change * self._times[place]
                if change > 0:
                    self._places[found].add(place)
        for found, change in changed.items():
            self._counts[found] += change
            if change > 0:
                heapq.heappush(self._queue, (-self._counts[found], found))


def _merged(piece: list[int], pair: tuple[int, int], merged: int):
    """The piece after a merge, and the pairs that came (1) and went (-1) with it."""
    first, second = pair
    out: list[int] = []
    changes = []
    at, end = 0, len(piece)
    while at < end:
        token = piece[at]
        at += 1
        if token != first or at == end or piece[at] != second:
            out.append(token)
            continue
        at += 1
        changes.append((pair, -1))
        if out:
            changes += [((out[-1], first), -1), ((out[-1], merged), 1)]
        if at < end:
            changes += [((second, piece[at]), -1), ((merged, piece[at]), 1)]
        out.append(merged)
    return out, changes

"""Merging many pairs at once, against byte-pair encoding one pair at a time."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.merge_table import NEVER, merge_table
from tfllm.tokenizers.merging import MergeTensors, merge


def one_by_one(vocabulary, merges, word):
    """The leftmost of the pairs of least rank, again and again."""
    rank_of = {pair: rank for rank, pair in enumerate(merges)}
    tokens = list(word)
    while True:
        ranks = [rank_of.get(pair, NEVER) for pair in pairwise(tokens)]
        if min(ranks, default=NEVER) == NEVER:
            return [vocabulary[token] for token in tokens]
        at = ranks.index(min(ranks))
        tokens[at : at + 2] = [tokens[at] + tokens[at + 1]]


def at_once(vocabulary, merges, words):
    table = MergeTensors.of(merge_table(vocabulary, merges))
    tokens = [vocabulary[character] for word in words for character in word]
    places = [place for place, word in enumerate(words) for _ in word]
    found, places = merge(table, tf.constant(tokens, tf.int32), tf.constant(places, tf.int32))
    return [found.numpy()[places.numpy() == place].tolist() for place in range(len(words))]


def vocabulary_of(alphabet, merges):
    tokens = dict.fromkeys([*alphabet, *(a + b for a, b in merges)])
    return {token: token_id for token_id, token in enumerate(tokens)}


def trained(draw, alphabet, count=14, length=200):
    """As training makes them: what is frequent, one after the other."""
    text, merges = draw.choices(alphabet, k=length), []
    for _ in range(count):
        pair = Counter(pairwise(text)).most_common(1)[0][0]
        merges.append(pair)
        joined, text = text, []
        while joined:
            size = 2 if tuple(joined[:2]) == pair else 1
            text.append("".join(joined[:size]))
            del joined[:size]
    return list(dict.fromkeys(merges))


def grown(draw, alphabet):
    """Of any tokens, and several ways to make one."""
    tokens, merges = list(alphabet), []
    for _ in range(draw.randint(1, 14)):
        pair = draw.choice(tokens), draw.choice(tokens)
        merges.append(pair)
        tokens.append("".join(pair))
    return list(dict.fromkeys(merges))


def shuffled(draw, alphabet):
    """In no order: a merge may be needed by one before it."""
    merges = grown(draw, alphabet)
    draw.shuffle(merges)
    return merges


def all_cuts(draw, alphabet):
    """All ways to cut each token in two, as made from a vocabulary of ranks."""
    tokens = list(dict.fromkeys([*alphabet, *("".join(p) for p in grown(draw, alphabet))]))
    cuts = [(token, at) for token in tokens for at in range(1, len(token))]
    return [(t[:at], t[at:]) for t, at in cuts if t[:at] in tokens and t[at:] in tokens]


@pytest.mark.parametrize("make", [trained, grown, shuffled, all_cuts])
@pytest.mark.parametrize("seed", range(12))
def test_merging_at_once_equals_merging_one_by_one(make, seed):
    draw = random.Random(seed)
    alphabet = "abcd"[: 2 + seed % 3]
    merges = make(draw, alphabet)
    vocabulary = vocabulary_of(alphabet, merges)
    words = ["".join(draw.choices(alphabet, k=draw.randint(1, 40))) for _ in range(20)]
    words += ["a" * 33, "a" * 32, "b" + "a" * 33, "a" * 33 + "b", "ab" * 15, "aab" * 11]

    assert at_once(vocabulary, merges, words) == [
        one_by_one(vocabulary, merges, word) for word in words
    ]


def test_a_run_waits_for_a_neighbour_that_may_join_it():
    """The first bc is made after the others, held back by what f, h and j might become."""
    merges = [*("Ff", "Hh", "Jj"), ("Ff", "b"), ("Hh", "f"), ("Jj", "h"), *("xy", "bc")]
    merges = [*map(tuple, merges), ("bc", "bc")]
    vocabulary = vocabulary_of("FfHhJjbcxy", merges)
    word = "jhfbcbcbcxy"

    found = at_once(vocabulary, merges, [word])

    assert found == [one_by_one(vocabulary, merges, word)]
    assert found[0][3:5] == [vocabulary["bcbc"], vocabulary["bc"]]


def test_nothing_is_merged_across_words():
    vocabulary = vocabulary_of("ab", [("a", "b")])

    assert at_once(vocabulary, [("a", "b")], ["a", "b", "ab"]) == [[0], [1], [2]]


def test_no_tokens_give_none():
    assert at_once(vocabulary_of("ab", [("a", "b")]), [("a", "b")], [""]) == [[]]
    assert at_once(vocabulary_of("ab", []), [], ["ab"]) == [[0, 1]]


@pytest.mark.parametrize(
    ("merges", "in_order"),
    [
        ([("a", "b"), ("ab", "c")], True),
        ([("ab", "c"), ("a", "b")], False),
        # bc is merged first, so ab and then c never stand side by side.
        ([("b", "c"), ("ab", "c"), ("a", "b"), ("a", "bc")], True),
    ],
)
def test_a_table_is_in_order_if_the_merges_that_can_happen_are(merges, in_order):
    assert merge_table(vocabulary_of("abc", merges), merges).in_order == in_order


@pytest.mark.parametrize(
    ("merges", "dead"),
    [
        # bc is merged before ab.
        ([("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")], ("ab", "c")),
        # Of three the left two are merged.
        ([("a", "a"), ("a", "aa"), ("aa", "a")], ("a", "aa")),
        # Of four too, and then the other two.
        ([("a", "a"), ("aa", "a"), ("a", "aa"), ("aa", "aa"), ("aaa", "a")], ("aaa", "a")),
    ],
)
def test_a_merge_that_cannot_happen_is_left_out(merges, dead):
    vocabulary = vocabulary_of("abc", merges)

    table = merge_table(vocabulary, merges)

    ranks = dict(zip(table.keys.tolist(), table.entries[:, 0].tolist(), strict=False))
    found = {
        pair: ranks.get(vocabulary[pair[0]] * table.base + vocabulary[pair[1]], NEVER)
        for pair in merges
    }
    assert dead in [pair for pair, rank in found.items() if rank == NEVER]
    assert found[merges[0]] == 0
    words = ["abc", "ababc", "aaa", "aaaa", "aaaaa", "aaaaaaa", "abcaaabc"]
    assert at_once(vocabulary, merges, words) == [
        one_by_one(vocabulary, merges, word) for word in words
    ]


def rounds(vocabulary, merges, word):
    """How many rounds it takes, by the operations that run: each has one segment_min."""
    count = 0
    original = tf.math.segment_min

    def counted(*arguments):
        nonlocal count
        count += 1
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.math, "segment_min", counted)
        at_once(vocabulary, merges, [word])
    return count


def test_a_long_word_takes_few_rounds():
    draw = random.Random(3)
    merges = trained(draw, "abcdefghij", count=300, length=3000)
    word = "".join(draw.choices("abcdefghij", k=5000))

    assert rounds(vocabulary_of("abcdefghij", merges), merges, word) <= 5


def test_a_run_of_one_letter_takes_two_rounds_and_one_to_see_the_end():
    merges = [("a", "a"), ("aa", "aa")]

    assert rounds(vocabulary_of("a", merges), merges, "a" * 5000) == 3


@pytest.mark.parametrize(
    ("vocabulary", "merges", "words"),
    [
        ({"a": 0, "b": 0}, [], "a number of its own"),
        ({"a": -1}, [], "a number of its own"),
        ({"a": 1 << 22}, [], "from 0 to 4194303"),
        ({"a": "0"}, [], "a number of its own"),
        ({"a": 0}, [("a",)], r"A merge is a pair of tokens; got \('a',\)"),
        ({"a": 0}, [("a", "")], "A merge is a pair of tokens"),
        ({"a": 0}, [("a", " ")], "without spaces"),
        ({"a": 0}, [("a", "b")], "a merge needs the token 'b'"),
        ({"a": 0, "b": 1}, [("a", "b")], "a merge needs the token 'ab'"),
    ],
)
def test_what_does_not_fit_is_refused(vocabulary, merges, words):
    with pytest.raises(UserError, match=words):
        merge_table(vocabulary, merges)


def test_the_bounds_are_those_of_all_that_a_neighbour_may_grow_into():
    merges = [("a", "b"), ("b", "c"), ("ab", "c"), ("c", "ab")]
    vocabulary = vocabulary_of("abc", merges)
    table = merge_table(vocabulary, merges)

    def entry(a, b):
        at = np.searchsorted(table.keys, vocabulary[a] * table.base + vocabulary[b])
        return table.entries[at].tolist()

    # (b, c) itself is of rank 1; b may become ab, whose merge with c is of rank 2.
    assert entry("b", "c") == [1, vocabulary["bc"], 1, 1]
    # (c, a) is no merge, but a may become ab, with which c has one of rank 3.
    assert entry("c", "a") == [NEVER, NEVER, NEVER, 3]

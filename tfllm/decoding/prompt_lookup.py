"""Speculative decoding without a second model: a text may go on as it did before.

Where the last tokens of a row stand in it already, the tokens behind them are read together with
the newest one. Those that the model says itself are kept: a step then writes several tokens. What
is said is what would be said without: guesses cost time at worst.
"""

from typing import NamedTuple

import tensorflow as tf

from tfllm.decoding.decodable import shapes_of
from tfllm.decoding.ngrams import Text, joined
from tfllm.decoding.row_step import Rows, RowStep

_SHORTEST, _LONGEST = 2, 3  # tokens that must be the same
# What a step costs besides its tokens, counted in tokens: beyond it each token is paid for.
_FREE_TOKENS = 5.0
_MOST_ROWS = 6  # of more rows, too many guesses would have to be right
_SHORTEST_PAUSE, _LONGEST_PAUSE = 4, 32  # times what a guess costs


class Pace(NamedTuple):
    """When to guess.

    Attributes:
        wait: int32 scalar, steps until the next guess.
        pause: int32 scalar, how long it is after a guess that did not pay, counted in what the
            guess cost.
    """

    wait: tf.Tensor
    pause: tf.Tensor

    @classmethod
    def begin(cls) -> "Pace":
        """Guesses at once."""
        return cls(tf.constant(0), tf.constant(_SHORTEST_PAUSE))

    def guesses(self, active) -> tf.Tensor:
        """bool scalar, whether to guess what the rows of bool[b] say next."""
        rows = tf.reduce_sum(tf.cast(active, tf.int32))
        return (self.wait == 0) & (rows <= _MOST_ROWS)

    def after(self, guesses, kept, active) -> "Pace":
        """Waits longer and longer while guesses do not pay.

        Args:
            guesses: int32 scalar, tokens that each row was guessed to say; 0 = nothing was guessed.
            kept: int32[b], how many of them were right.
            active: bool[b], rows that count.
        """
        rows = tf.reduce_sum(tf.cast(active, tf.float32))
        won = tf.reduce_sum(tf.cast(tf.where(active, kept, 0), tf.float32)) / tf.maximum(rows, 1.0)
        cost = tf.cast(guesses, tf.float32) * rows / (rows + _FREE_TOKENS)  # in plain steps
        paid, pause = won >= cost, tf.cast(self.pause, tf.float32)
        wait = tf.where(paid, 0, tf.cast(tf.math.ceil(cost * pause), tf.int32))
        longer = tf.minimum(2 * self.pause, _LONGEST_PAUSE)
        guessed = guesses > 0
        return Pace(
            tf.where(guessed, wait, tf.maximum(self.wait - 1, 0)),
            tf.where(guessed, tf.where(paid, _SHORTEST_PAUSE, longer), self.pause),
        )


def continuations(text: Text, num_tokens: int) -> tf.Tensor:
    """What stood behind the last tokens of each row when they were there before.

    The longest match wins, of equals the latest. What goes beyond the end of the text is taken to
    repeat what is between the match and the end.

    Args:
        text: Of each row.
        num_tokens: n.

    Returns:
        int32[b, n]; -1 in rows without a match.

    Source:
        Saxena 2023, "Prompt Lookup Decoding", https://github.com/apoorvumang/prompt-lookup-decoding
    """
    token_ids, count = text
    size = tf.shape(token_ids)[1]
    before = tf.pad(token_ids, [[0, 0], [_LONGEST, 0]], constant_values=-1)
    place = tf.range(size)[None]
    same = place < count[:, None]
    length = tf.zeros_like(token_ids)
    for i in range(1, _LONGEST + 1):
        last = tf.gather(before, count + (_LONGEST - i), batch_dims=1)
        same &= before[:, _LONGEST - i :][:, :size] == last[:, None]
        length += tf.cast(same, tf.int32)
    merit = tf.where(length >= _SHORTEST, length * size + place, -1)
    match = tf.argmax(merit, -1, output_type=tf.int32)
    found = tf.reduce_max(merit, -1) >= 0
    ahead = tf.range(num_tokens)[None] % tf.maximum(count - match, 1)[:, None]
    guessed = tf.gather(token_ids, match[:, None] + ahead, batch_dims=1)
    return tf.where(found[:, None], guessed, -1)


class Lookup(NamedTuple):
    """Guesses what rows say next.

    Attributes:
        text: Of each row, what is looked through besides what it says.
        num_tokens: Tokens that are guessed at once, at least 1.
    """

    text: Text
    num_tokens: int

    def guess(self, rows: Rows, active, pace: Pace) -> tf.Tensor:
        """int32[b, n], what the rows may say next; n is 0 where it does not pay to find out.

        Args:
            rows: What they say so far.
            active: bool[b], rows that count.
            pace: When to guess.
        """

        def nothing():
            return tf.zeros([tf.size(rows.count), 0], tf.int32)

        def look_up():
            text = joined(*self.text, rows.token_ids, rows.count)
            found = continuations(text, self.num_tokens)
            some = tf.reduce_any(active & (found[:, 0] >= 0))
            return tf.cond(some, lambda: tf.maximum(found, 0), nothing)

        return tf.cond(pace.guesses(active), look_up, nothing)

    def say(self, add_token: RowStep, logits, guesses, rows: Rows, pace: Pace) -> tuple[Rows, Pace]:
        """Rows with what they say as long as that was guessed, and one token more.

        Args:
            add_token: The step of the rows.
            logits: float32[b, n + 1, v], after what they say and after each guess.
            guesses: int32[b, n].
            rows: So far.
            pace: So far.
        """
        active, before = add_token.active(rows), rows.count
        expected = tf.pad(guesses, [[0, 0], [0, 1]], constant_values=-1)

        def goes_on(i, right, rows):
            more = tf.reduce_any(right & add_token.active(rows))
            return (i < tf.shape(expected)[1]) & more

        def say_one(i, right, rows):
            rows = add_token(logits[:, i], rows, right)
            return i + 1, right & (rows.last == expected[:, i]), rows

        loop = tf.constant(0), tf.ones_like(active), rows
        *_, rows = tf.while_loop(goes_on, say_one, loop, shape_invariants=shapes_of(loop))
        return rows, pace.after(tf.shape(guesses)[1], rows.count - before - 1, active)

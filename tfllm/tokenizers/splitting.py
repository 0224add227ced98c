"""The patterns by which byte-level BPE cuts texts, as rules on the kinds of characters.

The patterns are regular expressions with a look-ahead, which RE2 lacks. But all that they tell
apart are runs of one kind of character and the ends of such runs, so whether a piece starts at a
character can be said of all characters at once, from what stands beside them and in their run.
"""

import tensorflow as tf

from tfllm.tokenizers.characters import (
    LETTER,
    NEWLINE,
    NUMBER,
    OTHER,
    SPACE,
    WHITE,
    kinds_of,
    later_numbers,
)

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PATTERNS = {
    "gpt2": _GPT2,
    "llama3": _CL100K % "{1,3}",
    "qwen2": _CL100K % "",
    "starcoder": _GPT2,  # after each number has been made a text of its own
}

_LONG_S = 0x17F  # the only character outside ASCII that is, but for its case, one of stmdrevl


def piece_starts(pattern: str, code_points: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Where pieces start.

    Args:
        pattern: A key of `PATTERNS`.
        code_points: int32[n], the characters of all texts in one line.
        rows: int[n], rising: which text each one is of.

    Returns:
        bool[n]. The first character of each text starts a piece.

    Source:
        The pre-tokenizers in the tokenizer.json of GPT-2, Llama 3, Qwen 2 and StarCoder.
    """
    line = _Line(code_points, rows, digits_apart=pattern == "starcoder")
    if pattern in ("gpt2", "starcoder"):
        return _with_contractions(line, _gpt2(line), code_points)
    starts = _cl100k(line, digits=3 if pattern == "llama3" else 1)
    capital = (code_points >= ord("A")) & (code_points <= ord("Z"))
    lower = tf.where(capital, code_points + (ord("a") - ord("A")), code_points)
    lower = tf.where(tf.equal(lower, _LONG_S), ord("s"), lower)
    return _with_contractions(line, starts, lower)


class _Line:
    """The characters of all texts, n in all: which of them are what, as bool[n]."""

    def __init__(self, code_points, rows, digits_apart):
        kind = kinds_of(code_points)
        self.letter = tf.equal(kind, LETTER)
        self.number = tf.equal(kind, NUMBER)
        self.other = tf.equal(kind, OTHER)
        self.white = kind >= WHITE
        self.newline = tf.equal(kind, NEWLINE)
        self.space = tf.equal(kind, SPACE)
        one = tf.ones_like(rows[:1], tf.bool)
        self.begins = tf.concat([one, tf.not_equal(rows[1:], rows[:-1])], 0)  # a text
        if digits_apart:
            digit = self.number | later_numbers(code_points)
            self.begins |= digit | self.before(digit)
        self.ends = tf.concat([self.begins[1:], one], 0)
        kind = tf.minimum(kind, WHITE)
        self.changes = self.begins | tf.not_equal(kind, self.before(kind))  # a run begins

    def before(self, values):
        """Of the character before, in the same text; zero where there is none."""
        shifted = tf.concat([values[:1], values[:-1]], 0)
        return tf.where(self.begins, tf.zeros_like(values), shifted)

    def after(self, values):
        """Of the character after, in the same text; zero where there is none."""
        shifted = tf.concat([values[1:], values[:1]], 0)
        return tf.where(self.ends, tf.zeros_like(values), shifted)

    def last_white(self):
        """The last of some white space before something else."""
        return self.white & ~self.ends & ~self.after(self.white)


def _gpt2(line: _Line) -> tf.Tensor:
    takes_space = ~line.white & line.before(line.space)
    return (line.changes & ~takes_space) | line.last_white()


def _cl100k(line: _Line, digits: int) -> tf.Tensor:
    places = tf.range(tf.size(line.changes))
    run = tf.cumsum(tf.cast(line.changes, tf.int32)) - 1
    firsts = tf.cast(tf.where(line.changes)[:, 0], tf.int32)
    first = tf.gather(firsts, run)
    last = tf.gather(tf.concat([firsts[1:], tf.shape(places)], 0) - 1, run)
    newlines = tf.cumsum(tf.cast(line.newline, tf.int32))  # up to here, with this one
    since = newlines - tf.gather(newlines - tf.cast(line.newline, tf.int32), first)
    more = tf.gather(newlines, last) > newlines  # newlines in this run, after this one

    # [^\s\p{L}\p{N}]+[\r\n]*
    after_other = tf.gather(line.before(line.other), first)
    taken = line.newline & after_other & tf.equal(since, places - first + 1)
    # \s*[\r\n]+, then \s+(?!\S) and what is left of the white space
    rest = line.before(line.newline) & ~line.newline & ~more
    white = line.white & ~taken & (line.changes | line.before(taken) | rest)
    white |= line.last_white() & ~line.newline
    #  ?[^\s\p{L}\p{N}]+
    other = line.other & line.changes & ~line.before(line.space)
    # [^\r\n\p{L}\p{N}]?\p{L}+, where `other` before a letter is a single character
    prefix = (line.white & ~line.newline) | other
    letter = line.letter & line.changes & ~line.before(prefix)
    number = line.number & tf.equal((places - first) % digits, 0)
    return white | other | letter | number


def _with_contractions(line: _Line, starts, lower) -> tf.Tensor:
    """'s 't 'm 'd 're 've 'll, where a piece starts with the apostrophe, are pieces."""
    second = line.after(lower)
    third = line.after(second)
    apostrophe = starts & tf.equal(lower, ord("'"))
    two = apostrophe & _any_of(second, "stmd")
    three = apostrophe & tf.reduce_any(
        tf.equal(second[:, None], _codes("rvl")) & tf.equal(third[:, None], _codes("eel")), 1
    )
    inside = line.before(two | three)
    return (starts & ~inside) | line.before(line.before(two) | line.before(line.before(three)))


def _any_of(code_points, letters: str):
    return tf.reduce_any(tf.equal(code_points[:, None], _codes(letters)), 1)


def _codes(letters: str):
    return tf.constant([list(map(ord, letters))])

"""The classical steps of cleaning a text: normalisation, stop words, lemmas.

They are for word vectors (`prepare_words`) and for a corpus that is to be counted. Contextual
models need the text as it is: case, punctuation, "not" and "was" carry meaning that their layers
read, their tokenizer has a token for every spelling, and what is cut out in training is there when
the model is served. In a table with one vector per word none of that can be used, and a word that
is spelled in four ways shares its few occurrences among four vectors.

Lemmas come from a table (form, lemma), not from a program: the table goes with the tokenizer into
the SavedModel, where a stock server looks the forms up as in training, and no Python program runs
there. Any lemmatizer can write such a table; see the guide.
"""

import os
from collections.abc import Iterable, Iterator, Mapping

import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.text_batches import text_batches
from tfllm.tokenizers.word_normalizer import WordNormalizer

ENGLISH = "english"

# Words that hold sentences together: articles, pronouns, auxiliary verbs, prepositions,
# conjunctions and their negations. With subsampling word vectors need no such list; it is for
# corpora so small, or windows so wide, that these words would crowd out the others.
_ENGLISH = """
    a an the this that these those some any each every either neither no such
    i me my mine myself we us our ours ourselves you your yours yourself yourselves
    he him his himself she her hers herself it its itself they them their theirs themselves
    who whom whose which what one
    be am is are was were been being have has had having do does did doing done
    can could may might must shall should will would ought
    isn't aren't wasn't weren't haven't hasn't hadn't don't doesn't didn't can't cannot couldn't
    won't wouldn't shan't shouldn't mustn't i'm you're he's she's it's we're they're i've you've
    we've they've i'll you'll he'll she'll we'll they'll i'd you'd he'd she'd we'd they'd
    of in to for with on at by from as into about like through after over between out against
    during without before under around among upon within towards till until since off up down
    and or but nor so yet if because while although though than whether when where why how
    not never also too very just only then there here again once both all
"""
ENGLISH_STOP_WORDS = frozenset(_ENGLISH.split())


def read_stop_words(source: str | os.PathLike[str]) -> frozenset[str]:
    """Stop words: "english" for `ENGLISH_STOP_WORDS`, or a UTF-8 file with one word per line.

    Raises:
        UserError: the file cannot be read.
    """
    if source == ENGLISH:
        return ENGLISH_STOP_WORDS
    return frozenset(line.strip() for _, line in _lines(source, "stop words"))


def read_lemmas(source: str | os.PathLike[str]) -> dict[str, str]:
    """The lemma of each form, from a UTF-8 file of two columns parted by a tab: form, lemma.

    Raises:
        UserError: the file cannot be read, a line has another number of columns, or a form has two
            lemmas.
    """
    lemmas: dict[str, str] = {}
    for number, line in _lines(source, "lemmas"):
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) != 2 or not all(columns):
            raise UserError(
                f"{source} line {number}: expected a form, a tab and its lemma, got {line[:60]!r}."
            )
        form, lemma = columns
        if lemmas.setdefault(form, lemma) != lemma:
            raise UserError(
                f"{source} line {number}: {form!r} has the lemmas {lemmas[form]!r} and {lemma!r}; "
                "a table can give it one."
            )
    return lemmas


def clean(
    texts: Iterable[str],
    *,
    lowercase: bool = True,
    digits: str = "keep",
    stop_words: Iterable[str] = (),
    lemmas: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Cleans texts, one at a time in memory beside a batch of about a million characters.

    Args:
        texts: The corpus; a text of more than a million characters comes back in parts.
        lowercase: Of `WordNormalizer`.
        digits: Of `WordNormalizer`.
        stop_words: Words to leave out, as they are written after normalisation.
        lemmas: What to write instead of a word, likewise.

    Yields:
        The words of each text, joined by single spaces; "" where none is left.

    Raises:
        UserError: `digits` is none of its choices.
    """
    normalizer = WordNormalizer(lowercase, digits).check()
    stop, lemmas = frozenset(stop_words), lemmas or {}
    for batch in text_batches(texts):
        for line in normalizer.normalize(tf.constant(batch, tf.string)).numpy():
            words = (word for word in line.decode().split(" ") if word not in stop)
            lemmatised = (lemmas.get(word, word) for word in words)
            yield " ".join(word for word in lemmatised if word not in stop)


def _lines(source: str | os.PathLike[str], what: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    try:
        with open(source, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise UserError(f"Cannot read the {what} {source}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The {what} {source} are not UTF-8: {error}.") from error
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())

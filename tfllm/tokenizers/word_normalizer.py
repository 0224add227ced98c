"""A text as its words: what word vectors are made of, by operations of the stock server."""

from typing import NamedTuple

import tensorflow as tf
import tensorflow_text as tf_text

from tfllm.errors import UserError
from tfllm.tokenizers.utf8 import valid_utf8_in_graph

DIGITS = ("keep", "zero", "drop")


class WordNormalizer(NamedTuple):
    """The classical cleaning of a text before its words are counted.

    A word is a run of letters, marks and digits, with single apostrophes inside ("don't"). All
    else, punctuation, hyphens and underscores among it, parts words and is dropped. A script that
    is written without spaces must be parted into words before.

    This is for vectors of whole words alone, whose table has one row per spelling: there "The",
    "the" and "the," would be three words. A contextual model has its own tokenizer and learns from
    case and punctuation; its text must be left as it is.

    Attributes:
        lowercase: Whether to fold case, which writes "ß" as "ss". (`tf.strings.lower` obeys the
            locale of the process: under tr_TR, "TITLE" becomes "tıtle".)
        digits: "keep"; "zero", each digit becomes 0, so that years are one word; or "drop".

    Source:
        NFKC and case folding: https://www.unicode.org/reports/tr15/ and the Unicode standard,
        section 5.18; zeros for digits: Collobert et al. 2011, section 4.3.
    """

    lowercase: bool = True
    digits: str = "keep"

    def check(self) -> "WordNormalizer":
        """Itself.

        Raises:
            UserError: `digits` is none of these.
        """
        if self.digits not in DIGITS:
            raise UserError(f"digits must be one of {', '.join(DIGITS)}; got {self.digits!r}.")
        return self

    def normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """The words of each of string[b], joined by single spaces; invalid UTF-8 parts words."""
        texts = valid_utf8_in_graph(texts)
        if self.lowercase:
            texts = tf_text.case_fold_utf8(texts)
        texts = tf_text.normalize_utf8(texts, "NFKC")
        texts = tf.strings.regex_replace(texts, "[’ʼ]", "'")
        if self.digits == "zero":
            texts = tf.strings.regex_replace(texts, r"\p{N}", "0")
        kept = r"\p{L}\p{M}" if self.digits == "drop" else r"\p{L}\p{M}\p{N}"
        for pattern, instead in (
            (f"[^{kept}']+", " "),
            ("''+", " "),
            ("(^| )'", " "),
            ("'( |$)", " "),
            (" +", " "),
        ):
            texts = tf.strings.regex_replace(texts, pattern, instead)
        return tf.strings.strip(texts)

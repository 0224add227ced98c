"""One answer to invalid UTF-8: each maximal ill-formed part becomes one U+FFFD.

That is the practice of the Unicode standard (section 3.9, "U+FFFD Substitution of Maximal
Subparts"), of Python's `errors="replace"` and of ICU, which TensorFlow uses, so the Python face
and the graph face of a tokenizer read the same text from the same bytes.
"""

import re

import tensorflow as tf

_SURROGATES = re.compile("[\ud800-\udfff]")


def valid_utf8(text: str | bytes) -> str:
    """The text itself where it is valid, else repaired with U+FFFD.

    A Python `str` may hold surrogates, which UTF-8 cannot: a pair becomes the character it
    stands for, a lone one becomes U+FFFD.
    """
    if isinstance(text, bytes):
        return text.decode("utf-8", "replace")
    if _SURROGATES.search(text):
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def valid_utf8_in_graph(texts: tf.Tensor) -> tf.Tensor:
    """`valid_utf8` of each string of string[...], which keeps its shape."""
    return tf.strings.unicode_transcode(
        texts, "UTF-8", "UTF-8", errors="replace", replace_control_characters=False
    )

"""Normalization form C in the graph, as Hugging Face `tokenizers` 0.23 has it."""

import tensorflow as tf
import tensorflow_text as tf_text

_MARK = b"\xff"  # in no valid UTF-8, so in no text

# The reference composes by the data of Unicode 9.0, TF-Text by those of 16.0 or later. These came
# in between and compose, decompose or move past a neighbouring mark; for the reference they do
# nothing, so that nothing passes or reaches over them. The parity tests compare every character.
_INERT = """
7fd 897-89f 8ca-8d3 9fe c3c d3b-d3c eba 1715 1abf-1ace 1df6-1dfa a82c 105c9 105d2 105da 105e4
10d24-10d27 10d69-10d6d 10eab-10eac 10efd-10eff 10f46-10f50 10f82-10f85 11070 1133b 11382-11385
1138b 1138e 11390-11391 113b8 113bb 113c2 113c5 113c7-113c9 113ce-113d0 1145e 11839-1183a 11930
11935 11938 1193d-1193e 11943 119e0 11a34 11a47 11a99 11d42 11d44-11d45 11d97 11f41-11f42
1611e-16129 1612f 16d63 16d67-16d6a 16ff0-16ff1 1e08f 1e130-1e136 1e2ae 1e2ec-1e2ef 1e4ec-1e4ef
1e5ee-1e5ef
"""


def composed(texts: tf.Tensor) -> tf.Tensor:
    """The normalization form C of string[b], valid UTF-8.

    Source:
        https://www.unicode.org/reports/tr15/
    """
    ranges = (inert.partition("-") for inert in _INERT.split())
    pattern = "".join(rf"\x{{{low}}}-\x{{{high or low}}}" for low, _, high in ranges)
    apart = tf.strings.regex_replace(texts, f"([{pattern}])", _MARK + rb"\1" + _MARK)
    parts = tf.strings.split(apart, _MARK)
    parts = parts.with_flat_values(tf_text.normalize_utf8(parts.flat_values, "NFC"))
    return tf.strings.reduce_join(parts, axis=-1)

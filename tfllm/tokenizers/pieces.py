"""Texts cut into the pieces within which byte-level BPE merges, in the graph."""

from typing import NamedTuple

import tensorflow as tf

from tfllm.tokenizers.composition import composed
from tfllm.tokenizers.splitting import piece_starts


class Pieces(NamedTuple):
    """The p pieces of some texts, in order.

    Attributes:
        line: string, all texts joined.
        code_points: int32[n], its characters.
        starts: int64[p], which character each piece begins with.
        offsets: int32[p], which byte each piece begins with.
        rows: int32[p], which text each piece is of. An empty text has none.
    """

    line: tf.Tensor
    code_points: tf.Tensor
    starts: tf.Tensor
    offsets: tf.Tensor
    rows: tf.Tensor

    def of_bytes(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The bytes of the line and the piece that each is in, int32 each."""
        values = tf.cast(tf.io.decode_raw(self.line, tf.uint8), tf.int32)
        begins = tf.scatter_nd(self.offsets[:, None], tf.ones_like(self.offsets), tf.shape(values))
        return values, tf.cumsum(begins) - 1

    def strings(self) -> tf.Tensor:
        """string[p]."""
        ragged = tf.RaggedTensor.from_row_starts(self.code_points, self.starts, validate=False)
        return tf.strings.unicode_encode(ragged, "UTF-8")


def cut(texts: tf.Tensor, split: str, *, composes=False, add_prefix_space=False) -> Pieces:
    """Cuts string[b], valid UTF-8.

    Args:
        texts: string[b].
        split: As in `BytePairTokenizer`, as the others are.
        composes: Whether the normalization form C is cut.
        add_prefix_space: Whether a text that does not begin with a space gets one.
    """
    if composes:
        texts = composed(texts)
    if add_prefix_space:
        first = tf.strings.substr(texts, 0, 1)
        texts = tf.where(tf.not_equal(first, "") & tf.not_equal(first, " "), " " + texts, texts)
    line = tf.strings.reduce_join(texts)
    _, code_points, offsets = tf.raw_ops.UnicodeDecodeWithOffsets(
        input=[line], input_encoding="UTF-8", errors="replace"
    )
    offsets = tf.cast(offsets, tf.int32)
    ends = tf.cumsum(tf.strings.length(texts))
    rows = tf.searchsorted(ends, offsets, side="right")
    starts = tf.where(piece_starts(split, code_points, rows))
    return Pieces(
        line, code_points, starts[:, 0], tf.gather_nd(offsets, starts), tf.gather_nd(rows, starts)
    )

"""Where each block of a Transformer looks: the weights of its self-attention."""

from collections.abc import Iterator, Mapping

import keras
import tensorflow as tf


def attention_blocks(backbone: keras.Model | None) -> list[keras.layers.Layer]:
    """The blocks with self-attention, of an encoder–decoder those of its encoder; [] without."""
    blocks = getattr(backbone, "encoder_blocks", None) or getattr(backbone, "blocks", None) or []
    return [block for block in blocks if hasattr(block, "attention")]


def attention_of_blocks(
    backbone: keras.Model, inputs: Mapping[str, tf.Tensor]
) -> Iterator[tf.Tensor]:
    """Of each block float32[b, h, t, t]: row = from, column = to; each row sums to 1.

    Args:
        backbone: With `attention_blocks`.
        inputs: Those of its inputs that the blocks need.
    """
    blocks = attention_blocks(backbone)
    # What goes into each block: its hidden states, its mask and, if it has one, its bias.
    before = keras.Model(
        {name: backbone.input[name] for name in inputs},
        {block.name: block.input for block in blocks},
    )(inputs, training=False)
    for block in blocks:
        x, mask, *bias = before[block.name]
        read = block.attention_norm(x) if block.norm_first else x
        yield block.attention.attention_weights(read, mask, bias=bias[0] if bias else None)

"""How spread out attention is: a layer that collapses onto one place, or never chooses, shows."""

import keras
import tensorflow as tf

from tfllm.models.looking import attention_blocks, attention_of_blocks

_ROWS = 4  # of a batch; the weights of one layer are float32[rows, heads, t, t]
# Of the inputs of a backbone, what is 0 at padding; of BERT's segments 0 is the first text.
_PRESENT = ("encoder_padding_mask", "encoder_segment_ids", "padding_mask", "segment_ids")


class AttentionEntropy:
    """Measures the entropy of the attention of each layer.

    Args:
        model: A task of `tfllm.models`.
        batches: Of held-out data; the first four rows of the first batch are read.

    Attributes:
        layers: The names of the blocks; [] for a model without attention.
    """

    def __init__(self, model: keras.Model, batches: tf.data.Dataset):
        self._backbone = model.backbone
        self.layers = [block.name for block in attention_blocks(self._backbone)]
        if not self.layers:
            return
        x, *_ = next(iter(batches))
        x = keras.utils.unpack_x_y_sample_weight(model.preprocess_samples(x))[0]
        known = {name for name in self._backbone.input if not name.startswith("decoder")}
        self._rows = {name: tensor[:_ROWS] for name, tensor in x.items() if name in known}
        self._measure = tf.function(self._bits, autograph=False)

    def measure(self) -> list[float]:
        """Of each layer the mean over heads and positions, in bits: 0 = each looks at one place."""
        return self._measure(self._rows).numpy().tolist() if self.layers else []

    def _bits(self, inputs):
        name = next(name for name in _PRESENT if name in inputs)
        present = tf.cast(inputs[name] > 0, tf.float32)  # [b, t]
        means = []
        for weights in attention_of_blocks(self._backbone, inputs):
            entropy = -tf.reduce_sum(tf.math.xlogy(weights, weights), -1) / tf.math.log(2.0)
            mean_of_heads = tf.reduce_mean(entropy, 1)
            means.append(tf.math.divide_no_nan(
                tf.reduce_sum(mean_of_heads * present), tf.reduce_sum(present)
            ))  # fmt: skip
        return tf.stack(means)

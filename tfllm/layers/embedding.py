"""Token embeddings that can also be the output layer."""

import keras
import tensorflow as tf
from keras import ops

from tfllm.layers.served_matrix import Make, ServedMatrix


def look_up(table, ids) -> tf.Tensor:
    """Rows of a table, with a dense gradient.

    The gradient of a plain gather lists a row once per occurrence, and the optimizers of Keras
    square those parts one by one: Adam's second moment would not be that of the gradient.

    Args:
        table: float[v, ...].
        ids: int[...], each in [0, v).

    Returns:
        float[*ids.shape, ...].
    """
    table = ops.convert_to_tensor(table)
    return tf.gather(tf.reshape(table, table.shape), ids)  # reshape's gradient is dense


@keras.saving.register_keras_serializable("tfllm")
class TokenEmbedding(keras.layers.Layer):
    """Looks tokens up, and with `reverse=True` scores hidden states against every token.

    Args:
        vocabulary_size: v.
        hidden_dim: m.
        tied: Whether scoring uses the lookup's own table; otherwise it has a second one.
        embeddings_initializer: Of the table.
        output_initializer: Of the second one.

    Call arguments:
        x: int32[...], token ids; with `reverse=True` float[..., m], hidden states.
        reverse: Which of the two.

    Returns:
        float[..., m]; with `reverse=True` logits float32[..., v].

    Source:
        Press and Wolf 2017, https://arxiv.org/abs/1608.05859
    """

    def __init__(
        self,
        vocabulary_size,
        hidden_dim,
        *,
        tied=True,
        embeddings_initializer="uniform",
        output_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim
        self.tied = tied
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.output_initializer = keras.initializers.get(output_initializer)

    def build(self, _):
        shape = (self.vocabulary_size, self.hidden_dim)
        self.embeddings = self.add_weight(
            name="embeddings", shape=shape, initializer=self.embeddings_initializer
        )
        # Both tables are [v, m]: scoring multiplies by the transpose without making one.
        self.output_embeddings = (
            self.embeddings
            if self.tied
            else self.add_weight(
                name="output_embeddings", shape=shape, initializer=self.output_initializer
            )
        )
        self.built = True

    served: ServedMatrix | None = None
    served_output: ServedMatrix | None = None

    def serve(self, make: Make):
        """Reads and multiplies `ServedMatrix`es from now on, tied as the tables are."""
        self.served = make([self.embeddings], transposed=True)
        self.served_output = (
            self.served if self.tied else make([self.output_embeddings], transposed=True)
        )
        return ()

    def call(self, x, reverse=False):
        if not reverse:
            if self.served is not None:
                return tf.cast(self.served.rows(x), self.compute_dtype)
            return look_up(self.embeddings, x)
        if self.served_output is not None:
            flat = tf.reshape(tf.cast(x, tf.float32), [-1, self.hidden_dim])
            logits = self.served_output(flat)
            return tf.reshape(logits, tf.concat([tf.shape(x)[:-1], [self.vocabulary_size]], 0))
        table = ops.cast(self.output_embeddings, self.compute_dtype)
        flat = ops.reshape(ops.cast(x, self.compute_dtype), (-1, self.hidden_dim))
        logits = tf.cast(tf.matmul(flat, table, transpose_b=True), tf.float32)
        return ops.reshape(logits, (*ops.shape(x)[:-1], self.vocabulary_size))

    def compute_output_spec(self, x, reverse=False):
        if reverse:
            return keras.KerasTensor((*x.shape[:-1], self.vocabulary_size), dtype="float32")
        return keras.KerasTensor((*x.shape, self.hidden_dim), dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "hidden_dim": self.hidden_dim,
            "tied": self.tied,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "output_initializer": keras.initializers.serialize(self.output_initializer),
        }

"""Language models of layers that Keras and KerasHub have, trained by `model.fit`."""

from worker import answer_lines, arguments, random_batches

args = arguments()

import keras  # noqa: E402 - reads what `arguments` set
import keras_hub  # noqa: E402
import tensorflow as tf  # noqa: E402

shape = args.shape
keras.utils.set_random_seed(0)
keras.mixed_precision.set_global_policy(
    "mixed_bfloat16" if args.precision == "bfloat16" else "float32"
)
inputs = keras.Input((shape.length,), dtype="int32")
if args.model == "gpt":
    embedding = keras_hub.layers.TokenAndPositionEmbedding(
        shape.vocabulary_size, shape.length, shape.width, tie_weights=True
    )
    x = embedding(inputs)
    for _ in range(shape.num_layers):
        x = keras_hub.layers.TransformerDecoder(
            4 * shape.width, shape.num_heads, activation="gelu", normalize_first=True
        )(x)
    logits = embedding.token_embedding(keras.layers.LayerNormalization()(x), reverse=True)
else:
    embedding = keras_hub.layers.ReversibleEmbedding(shape.vocabulary_size, shape.width)
    x = embedding(inputs)
    for _ in range(shape.num_layers):
        x = keras.layers.LSTM(shape.width, return_sequences=True)(x)
    logits = embedding(x, reverse=True)
model = keras.Model(inputs, logits)
model.compile(
    keras.optimizers.AdamW(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
)
batches = tf.data.Dataset.from_tensor_slices(random_batches(shape)).repeat()


def train(steps):
    return model.fit(batches, steps_per_epoch=steps, verbose=0).history["loss"][-1]


answer_lines(train)

"""The LSTM by Keras: keras.layers.LSTM reads the prompt, a loop of Python runs a compiled step."""

import os
from pathlib import Path

from worker import answer_lines, arguments

args = arguments()
os.environ["KERAS_BACKEND"] = "tensorflow"


def load():
    import keras
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    weights = np.load(Path(args.folder) / "weights.npz")
    table = tf.Variable(weights["embeddings"])
    lstms = []
    for i in range(sum(name.startswith("bias") for name in weights)):
        kernels = [weights[f"{name}_{i}"] for name in ("kernel", "recurrent_kernel", "bias")]
        units = len(kernels[1])
        lstm = keras.layers.LSTM(units, return_sequences=True, return_state=True)
        lstm.build((None, None, len(kernels[0])))
        lstm.set_weights(kernels)
        lstms.append(lstm)

    def best(hidden):
        return tf.argmax(tf.matmul(hidden, table, transpose_b=True), -1, tf.int32)

    @tf.function(reduce_retracing=True)
    def read(ids):
        x, states = tf.gather(table, ids), []
        for lstm in lstms:
            x, *state = lstm(x)
            states.append(state)
        return best(x[:, -1]), states

    @tf.function(reduce_retracing=True)
    def step(ids, states):
        x, after = tf.gather(table, ids), []
        for lstm, state in zip(lstms, states, strict=True):
            x, state = lstm.cell(x, state)
            after.append(state)
        return best(x), after

    def write(request):
        ids, states = read(tf.constant(request["ids"]))
        written = [ids]
        for _ in range(request["new"] - 1):
            ids, states = step(ids, states)
            written.append(ids)
        return np.stack([ids.numpy() for ids in written]).size

    return write


answer_lines(load)

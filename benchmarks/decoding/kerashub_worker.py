"""`generate` of KerasHub on TensorFlow, compiled by XLA as it is by default."""

import os

from worker import answer_lines, arguments

args = arguments()
os.environ["KERAS_BACKEND"] = "tensorflow"


def load():
    import keras_hub
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    model = keras_hub.models.GPT2CausalLM.from_preset(args.folder, dtype=args.precision)
    model.preprocessor = None
    model.compile(sampler="greedy")

    def write(request):
        prompts, new = request["ids"], request["new"]
        read = len(prompts[0])
        ids = np.zeros((len(prompts), read + new), "int32")
        ids[:, :read] = prompts
        mask = np.zeros_like(ids)
        mask[:, :read] = 1
        model.generate({"token_ids": ids, "padding_mask": mask}, stop_token_ids=None)
        return new * len(prompts)  # without a stop token it fills what it is given

    return write


answer_lines(load)

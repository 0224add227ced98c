"""An export of tfllm, run by the v1 Session as the stock server runs it; rows are texts."""

import os

from checkpoint import text_of
from worker import answer_lines, arguments

args = arguments()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["OMP_NUM_THREADS"] = str(args.threads)


def load():
    import numpy as np
    import tensorflow as tf
    import tensorflow_text  # noqa: F401 - its ops

    tf1 = tf.compat.v1
    threads = {f"{kind}_op_parallelism_threads": args.threads for kind in ("intra", "inter")}
    session = tf1.Session(graph=tf.Graph(), config=tf1.ConfigProto(**threads))
    with session.graph.as_default():
        loaded = tf1.saved_model.load(session, ["serve"], args.folder)
    signature = loaded.signature_def["serving_default"]
    call = session.make_callable(
        [signature.outputs["scores"].name, signature.outputs["error"].name],
        [signature.inputs["text"].name],
    )

    def classify(rows):
        # The special tokens at both ends are the export's own.
        texts = np.array([text_of(row[1:-1]) for row in rows], object)
        scores, errors = call(texts)
        assert not any(errors), errors
        return np.log(scores).tolist()  # logits, but for a number per row

    return classify


answer_lines(load)

"""Runs requests on a SavedModel as the stock server does, in a process of its own.

This file is executed, not imported, and imports only TensorFlow and TensorFlow Text, so that what
it proves holds on a server that has nothing else:

    python run_saved_model.py FOLDER < requests.json > answers.json

Requests: a list of {"signature": name, "inputs": {name: {"dtype": …, "values": nested lists}}};
values of dtype "base64" are strings that are no text.
Answers: for each one {output name: nested lists}, strings decoded as UTF-8, bytes that are
none as surrogates.
"""

import base64
import json
import sys

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 - registers its ops, which the stock server links


def array(dtype, values):
    if dtype == "base64":
        return np.array([base64.b64decode(value) for value in values], object)
    return np.array(values, tf.as_dtype(dtype).as_numpy_dtype)


def plain(value):
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def main(folder: str) -> None:
    tf1 = tf.compat.v1
    requests = json.load(sys.stdin)
    with tf1.Session(graph=tf.Graph()) as session:
        loaded = tf1.saved_model.load(session, ["serve"], folder)
        answers = []
        for request in requests:
            signature = loaded.signature_def[request["signature"]]
            feed = {
                signature.inputs[name].name: array(**given)
                for name, given in request["inputs"].items()
            }
            fetch = {name: info.name for name, info in signature.outputs.items()}
            out = session.run(fetch, feed)
            answers.append({name: plain(value.tolist()) for name, value in out.items()})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])

"""Small SavedModels that the serving tests share, written once per run."""

import http.client
import json
import os
import select
import shutil

import pytest
import tensorflow as tf

# Only tensors become defaults of a signature.
ONE, SEVEN = tf.constant([1.0]), tf.constant([7])


class Vec(tf.Module):
    """The model of the recorded contract: y = x * version."""

    def __init__(self, version):
        super().__init__()
        self.factor = tf.Variable(float(version))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.float32, name="x"),
            tf.TensorSpec([None], tf.int32, name="n"),
        ]
    )
    def multiply(self, x, n):
        return {
            "y": x * self.factor,
            "n1": n + 1,
            "s": tf.strings.as_string(n),
            "l": tf.cast(n, tf.int64),
            "b": n > 0,
        }

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="text"),
            tf.TensorSpec([None], tf.float32, name="temperature"),
            tf.TensorSpec([None], tf.int32, name="seed"),
        ]
    )
    def opt(self, text, temperature=ONE, seed=SEVEN):
        warmth = tf.strings.as_string(temperature, precision=1)
        return {"o": tf.strings.join([text, warmth, tf.strings.as_string(seed)], separator="|")}


def save_vec(folder, version):
    model = Vec(version)
    signatures = {"serving_default": model.multiply, "opt": model.opt}
    tf.saved_model.save(model, str(folder), signatures=signatures)


@pytest.fixture(scope="session")
def vec_versions(tmp_path_factory):
    """Version folders 1 to 3 of `vec`, to be copied or linked, never changed."""
    folder = tmp_path_factory.mktemp("vec_versions")
    for version in (1, 2, 3):
        save_vec(folder / str(version), version)
    return folder


class Gate(tf.Module):
    """Answers with its version once the file that a request names exists, and not before.

    When it begins to wait it writes to `PATH.runs`.
    """

    def __init__(self, version):
        super().__init__()
        self.version = tf.Variable(version)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="path")])
    def wait(self, path):
        with tf.control_dependencies([tf.io.write_file(path[0] + ".runs", "yes")]):
            path = tf.identity(path)

        def num_files(tries):
            # By way of `tries`, so that the look is not taken out of the loop.
            return tf.size(tf.io.matching_files(tf.strings.substr(path, 0, 10_000 + tries)))

        _, found = tf.while_loop(
            lambda _, found: tf.equal(found, 0),
            lambda tries, _: (tries + 1, num_files(tries)),
            (0, 0),
        )
        return {"version": tf.fill(tf.shape(path), self.version + found - 1)}


def save_gate(folder, version):
    model = Gate(version)
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.wait})


@pytest.fixture(scope="session")
def gate_versions(tmp_path_factory):
    """Version folders 1 and 2 of `gate`."""
    folder = tmp_path_factory.mktemp("gate_versions")
    for version in (1, 2):
        save_gate(folder / str(version), version)
    return folder


@pytest.fixture
def runs():
    """Makes what waits until a request of `gate` for a path runs; to be asked for before that."""
    opened = []

    def runs(path):
        os.mkfifo(f"{path}.runs")
        opened.append(pipe := os.open(f"{path}.runs", os.O_RDONLY | os.O_NONBLOCK))

        def wait():
            assert select.select([pipe], [], [], 120)[0], f"no request for {path} runs"

        return wait

    yield runs
    for pipe in opened:
        os.close(pipe)


@pytest.fixture
def publish(tmp_path_factory):
    """Copies a version folder aside and renames it into place, as an exporter does."""

    def publish(source, target):
        aside = tmp_path_factory.mktemp("aside") / "version"
        shutil.copytree(source, aside)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(target)

    return publish


def save_grades(folder):
    """A graph of TensorFlow 1 that grades `tf.Example`s, with signatures of every form.

    An example has a float `x` and bytes `word`, each with a default.
    """
    build, info = tf.compat.v1.saved_model.build_signature_def, tf.compat.v1.saved_model
    classify, regress = (f"tensorflow/serving/{m}" for m in ("classify", "regress"))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        examples = tf.compat.v1.placeholder(tf.string, [None], "examples")
        other = tf.compat.v1.placeholder(tf.string, [None], "other")
        parsed = tf.io.parse_example(
            examples,
            {
                "x": tf.io.FixedLenFeature([], tf.float32, 0.5),
                "word": tf.io.FixedLenFeature([], tf.string, "none"),
            },
        )
        x, word = parsed["x"], parsed["word"]
        classes = tf.stack([word, tf.strings.join([word, "?"])], axis=1)
        scores = tf.stack([x, 1 - x], axis=1)
        of = {
            "inputs": examples, "other": other, "classes": classes, "scores": scores,
            "labels": tf.identity(word), "double": tf.cast(scores, tf.float64), "x": 2 * x,
            "column": x[:, None], "few": scores[:1], "three": tf.concat([scores, x[:, None]], 1),
            "few_x": x[:1], "ids": tf.cast(x, tf.int64),
        }  # fmt: skip
        infos = {name: info.build_tensor_info(tensor) for name, tensor in of.items()}

        def signature(method, inputs, **outputs):
            inputs = {name: infos[key] for name, key in inputs.items()}
            return build(inputs, {name: infos[key] for name, key in outputs.items()}, method)

        one = {"inputs": "inputs"}
        signatures = {
            "serving_default": signature(classify, one, classes="classes", scores="scores"),
            "only_classes": signature(classify, one, classes="classes"),
            "only_scores": signature(classify, one, scores="scores"),
            "elsewhere": signature(classify, {"inputs": "other"}, scores="scores"),
            "two_inputs": signature(classify, {"a": "inputs", "b": "other"}, scores="scores"),
            "three_outputs": signature(
                classify, one, classes="classes", scores="scores", more="double"
            ),
            "other_input": signature(classify, {"texts": "inputs"}, scores="scores"),
            "other_output": signature(classify, one, found="scores"),
            "flat": signature(classify, one, classes="labels"),
            "classes_of_numbers": signature(classify, one, classes="scores"),
            "scores_of_double": signature(classify, one, scores="double"),
            "few_scores": signature(classify, one, scores="few"),
            "uneven": signature(classify, one, classes="classes", scores="three"),
            "regress": signature(regress, one, outputs="x"),
            "regress_column": signature(regress, one, outputs="column"),
            "regress_wide": signature(regress, one, outputs="scores"),
            "regress_few": signature(regress, one, outputs="few_x"),
            "regress_whole": signature(regress, one, outputs="ids"),
        }
        builder = tf.compat.v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


@pytest.fixture(scope="session")
def grades(tmp_path_factory):
    """The base path of `grades`, with version 4."""
    folder = tmp_path_factory.mktemp("grades")
    save_grades(folder / "4")
    return folder


ECHOED = ("float32", "float64", "int8", "uint8", "int32", "uint32", "int64", "uint64", "bool")


def save_echo(folder):
    """A graph of TensorFlow 1 whose signatures return what they take, for every kind of tensor.

    There is one for each dtype of `ECHOED`, from `x` to `y`; and some of odd forms.
    """
    saved = tf.compat.v1.saved_model
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:

        def signature(inputs, outputs):
            infos = [
                {name: saved.build_tensor_info(tensor) for name, tensor in tensors.items()}
                for tensors in (inputs, outputs)
            ]
            return saved.build_signature_def(*infos, "tensorflow/serving/predict")

        def placeholder(dtype):
            return tf.compat.v1.placeholder(dtype, None)

        x, text, half = placeholder("float32"), placeholder("string"), placeholder("float16")
        one = {"x": x}
        signatures = {
            "serving_default": signature(one, {"y": 2 * x}),
            "text": signature({"text": text}, {"text": tf.identity(text)}),
            "bytes": signature({"text": text}, {"text_bytes": tf.identity(text)}),
            "total": signature(one, {"total": tf.reduce_sum(x)}),
            "two": signature(one, {"y": tf.identity(x), "total": tf.reduce_sum(x)}),
            "uneven": signature(one, {"a": tf.identity(x), "b": x[:1]}),
            "takes_half": signature({"x": half}, {"y": tf.cast(half, tf.float32)}),
            "gives_half": signature(one, {"y": tf.cast(x, tf.float16)}),
            "nothing_in": signature({}, {"y": tf.ones([2])}),
        }
        for dtype in ECHOED:
            of_dtype = placeholder(dtype)
            signatures[dtype] = signature({"x": of_dtype}, {"y": tf.identity(of_dtype)})
        builder = saved.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


@pytest.fixture(scope="session")
def echo(tmp_path_factory):
    """The base path of `echo`, with version 1."""
    folder = tmp_path_factory.mktemp("echo")
    save_echo(folder / "1")
    return folder


@pytest.fixture(scope="session")
def ask():
    """Sends one HTTP request to a port of this machine; gives the status and the body."""

    def ask(port, method, path, body=None, headers=None):
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    return ask

"""Small SavedModels that the serving tests share, written once per run."""

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
    """Answers with its version once the file that a request names exists, and not before."""

    def __init__(self, version):
        super().__init__()
        self.version = tf.Variable(version)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="path")])
    def wait(self, path):
        def num_files(tries):
            # By way of `tries`, so that the look is not taken out of the loop.
            return tf.size(tf.io.matching_files(tf.strings.substr(path, 0, 10_000 + tries)))

        _, found = tf.while_loop(
            lambda _, found: tf.equal(found, 0),
            lambda tries, _: (tries + 1, num_files(tries)),
            (0, 0),
        )
        return {"version": self.version + found - 1}


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
def publish(tmp_path_factory):
    """Copies a version folder aside and renames it into place, as an exporter does."""

    def publish(source, target):
        aside = tmp_path_factory.mktemp("aside") / "version"
        shutil.copytree(source, aside)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(target)

    return publish

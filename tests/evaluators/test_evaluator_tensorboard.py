"""What TensorBoard's own readers find in the logs of an evaluation."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.pr_curve import metadata as pr_curves
from tensorboard.plugins.pr_curve import summary as reference
from tensorboard.plugins.projector import projector_config_pb2, projector_plugin

from tfllm import metrics
from tfllm.errors import UserError
from tfllm.evaluators import Evaluation
from tfllm.evaluators.result import ClassScores, Vectors
from tfllm.evaluators.tensorboard import write_attention, write_points, write_tensorboard

LABELS = ["sad $", "glad", "中"]


@pytest.fixture
def classified():
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 3, 40)
    scores = draw.dirichlet([1, 1, 1], 40).astype(np.float32)
    matrix = metrics.confusion_matrix(truth, scores.argmax(1), 3)
    classes = ClassScores(LABELS, truth, scores, matrix)
    numbers = {"accuracy": metrics.accuracy(matrix), "roc_auc": float("nan")}
    return Evaluation("classification", numbers, {"rows": 40}, classes=classes)


def read(folder):
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    found.Reload()
    return found


def tensor(found, tag):
    (event,) = found.Tensors(tag)
    return event.step, tf.make_ndarray(event.tensor_proto)


def test_numbers_are_scalars_and_those_without_a_value_are_left_out(classified, tmp_path):
    write_tensorboard(classified, tmp_path, step=7)
    found = read(tmp_path)
    step, value = tensor(found, "evaluation/accuracy")
    assert step == 7
    assert value == pytest.approx(classified.metrics["accuracy"])
    assert "evaluation/roc_auc" not in found.Tags()["tensors"]


def test_the_curve_of_each_label_is_what_tensorboards_own_writer_makes(classified, tmp_path):
    write_tensorboard(classified, tmp_path, step=7, name="test")
    found = read(tmp_path)
    curves = found.PluginTagToContent("pr_curves")
    assert set(curves) == {f"test/{label}/pr_curves" for label in LABELS}
    content = curves["test/glad/pr_curves"]
    assert pr_curves.parse_plugin_metadata(content).num_thresholds == 201
    truth, scores = classified.classes.truth, classified.classes.scores
    own = reference.pb("test", truth == 1, scores[:, 1])
    _, curve = tensor(found, "test/glad/pr_curves")
    np.testing.assert_array_equal(curve, tf.make_ndarray(own.value[0].tensor))


def test_scores_that_are_no_numbers_count_as_the_lowest(classified, tmp_path):
    scores = classified.classes.scores.copy()
    scores[0] = np.nan
    classes = classified.classes._replace(scores=scores)
    write_tensorboard(Evaluation("classification", {}, {}, classes=classes), tmp_path)
    _, curve = tensor(read(tmp_path), "evaluation/glad/pr_curves")
    assert curve[:4, 0].sum() == len(scores)


def test_the_confusion_matrix_is_a_picture_of_its_own_numbers(classified, tmp_path):
    write_tensorboard(classified, tmp_path / "a")
    other = classified.classes._replace(matrix=classified.classes.matrix.T.copy())
    write_tensorboard(Evaluation("classification", {}, {}, classes=other), tmp_path / "b")
    pictures = []
    for run in ("a", "b"):
        _, value = tensor(read(tmp_path / run), "evaluation/confusion")
        pictures.append(tf.io.decode_png(value[2]).numpy())
    assert pictures[0].shape == (int(value[1]), int(value[0]), 4)
    assert not np.array_equal(*pictures)


def test_points_and_their_texts_are_what_the_projector_reads(tmp_path):
    vectors = np.array([[0.25, -1], [1e-7, 3], [0, 0]], np.float32)
    texts = ["two\nlines", "a\ttab", ""]
    found = Evaluation("similarity", {}, {}, vectors=Vectors(vectors, {"text": texts}))
    write_tensorboard(found, tmp_path)
    config = projector_config_pb2.ProjectorConfig()
    text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), config)
    (points,) = config.embeddings
    assert points.tensor_name == "similarity"
    read_back = projector_plugin._read_tensor_tsv_file(str(tmp_path / points.tensor_path))
    np.testing.assert_array_equal(read_back, vectors)
    lines = (tmp_path / points.metadata_path).read_text().split("\n")
    assert lines == ["two lines", "a tab", "∅", ""]


def test_several_columns_have_a_line_with_their_names(tmp_path):
    write_points(tmp_path, np.eye(2), {"text": ["a", "b"], "label": ["x", "y"]})
    lines = (tmp_path / "embeddings-metadata.tsv").read_text().splitlines()
    assert lines == ["text\tlabel", "a\tx", "b\ty"]


def test_attention_is_a_picture_of_all_heads(tmp_path):
    tokens = ["[CLS]", "the", "$x$", "中"]
    weights = np.random.default_rng(0).dirichlet(np.ones(4), (6, 4))
    write_attention(tmp_path, tokens, weights, name="layer 0", step=3)
    step, value = tensor(read(tmp_path), "layer 0")
    picture = tf.io.decode_png(value[2]).numpy()
    assert step == 3
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 6 * 4  # a shade per weight


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 3), (2, 4, 3), (0, 4, 4)])
def test_weights_of_other_tokens_are_refused(tmp_path, shape):
    with pytest.raises(UserError, match=r"weights of \[heads, 4, 4\]"):
        write_attention(tmp_path, list("abcd"), np.zeros(shape))


def test_points_without_names_are_refused(tmp_path):
    with pytest.raises(UserError, match="'text' has 1 values for 2 points"):
        write_points(tmp_path, np.eye(2), {"text": ["a"]})
    with pytest.raises(UserError, match="needs points"):
        write_points(tmp_path, np.empty((0, 2)), {"text": []})
    with pytest.raises(UserError, match="at least one column"):
        write_points(tmp_path, np.eye(2), {})

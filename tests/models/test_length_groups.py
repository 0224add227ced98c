"""Rows of like length computed together: which, in what order, and that no answer changes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.models import LSTMEncoderBackbone, MaskedLM, SpanQA, TextClassifier, TextEmbedder
from tfllm.models.encoder_preprocessor import EncoderPreprocessor
from tfllm.models.length_groups import in_length_groups
from tfllm.models.text_functions import build

LENGTH = 512
LONG = {"sequence_length": LENGTH, "backbone": {"max_sequence_length": LENGTH, "dropout": 0.0}}


def text_of(words, seed=0):
    random = np.random.default_rng((words, seed))
    return " ".join(random.choice(["the", "cat", "dog", "sat", "one", "not", "."], words))


def groups_of(lengths, most=LENGTH):
    """The lengths of the rows of each group, and its width."""
    found = []

    def compute(rows, width):
        found.append(([lengths[row] for row in rows.numpy()], int(width)))
        return [tf.zeros(tf.shape(rows))]

    in_length_groups(tf.constant(lengths, tf.int32), most, compute, [tf.TensorSpec([])])
    return found


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        ([], []),
        ([7], [([7], 8)]),
        ([0, 3], [([3, 0], 8)]),
        # As many as fit into 512 tokens at the width of the longest.
        ([121, 128, 125, 127, 126], [([128, 127, 126, 125], 128), ([121], 128)]),
        ([400, 510], [([510], 512), ([400], 400)]),
        # What would be padding for more than half, and for more than 32 tokens, waits.
        ([128, 63, 64], [([128, 64], 128), ([63], 64)]),
        ([7, 40, 8], [([40, 8], 40), ([7], 8)]),
        ([2, 32, 2], [([32, 2, 2], 32)]),
    ],
)
def test_a_group_has_the_next_longest_rows_that_fit_and_are_alike(lengths, groups):
    assert groups_of(lengths) == groups


def test_no_group_is_wider_than_a_row_may_be():
    assert groups_of([20, 19], most=21) == [([20, 19], 21)]


@pytest.mark.parametrize("rows", [0, 1, 5, 33])
def test_outputs_are_those_of_one_call_in_the_order_of_the_rows_from_one_body(rows):
    bodies = []

    def compute(those, width):
        bodies.append(width)
        x = tf.gather(lengths, those)
        return tf.cast(x, tf.float32)[:, None] * [1.0, 2.0], tf.strings.as_string(those)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)], autograph=False)
    def grouped(lengths):
        specs = [tf.TensorSpec([2]), tf.TensorSpec([], tf.string)]
        return in_length_groups(lengths, LENGTH, compute, specs)

    lengths = tf.constant(np.random.default_rng(rows).integers(2, LENGTH, rows), tf.int32)
    numbers, names = grouped(lengths)
    np.testing.assert_array_equal(numbers, np.outer(lengths, [1.0, 2.0]))
    assert names.numpy().tolist() == [str(row).encode() for row in range(rows)]
    assert numbers.shape == (rows, 2)
    assert len(bodies) == 1


def lstm_classifier(pieces):
    keras.utils.set_random_seed(0)
    backbone = LSTMEncoderBackbone(len(pieces.get_vocabulary()), 1, 16, max_sequence_length=LENGTH)
    return TextClassifier(backbone, EncoderPreprocessor(pieces, LENGTH), num_classes=3)


@pytest.fixture(scope="module")
def served(new_encoder, pieces):
    """The signatures of some models, and their functions."""
    models = {
        "classifier": new_encoder(TextClassifier, num_classes=3, **LONG),
        "lstm": lstm_classifier(pieces),
        "embedder": new_encoder(TextEmbedder, **LONG),
        "masked": new_encoder(MaskedLM, **LONG),
    }
    texts = {name: model.text() for name, model in models.items()}
    return {name: (text, build(text)) for name, text in texts.items()}


def texts_of(rows):
    lengths = np.random.default_rng(rows).integers(0, 300, rows)
    return [text_of(length) for length in lengths]


@pytest.mark.parametrize("rows", [0, 1, 5, 33])
@pytest.mark.parametrize("kind", ["classifier", "lstm", "embedder"])
def test_answers_are_those_of_the_model_called_with_all_rows(served, kind, rows):
    text, functions = served[kind]
    texts = tf.constant(texts_of(rows), tf.string)
    if kind == "embedder":
        found = functions["embed"](texts)["embedding"]
    else:
        found = functions["classify"](texts, tf.fill([rows], ""))["scores"]
    if rows == 0:
        assert found.shape == (0, text.model.output.shape[-1])
        return
    together = text.model(text.read(texts)[0], training=False)
    if kind != "embedder":
        together = tf.nn.softmax(together)
    np.testing.assert_allclose(found, together, atol=1e-5)


@pytest.mark.parametrize("rows", [0, 1, 5, 33])
def test_masks_are_filled_as_by_the_model_called_with_all_rows(served, rows):
    text, functions = served["masked"]
    texts = tf.constant([f"{text} [MASK] {text[:20]}" for text in texts_of(rows)], tf.string)
    inputs, _ = text.read(texts)
    place = tf.argmax(inputs["token_ids"] == text.tokenizer.mask_id, -1, output_type=tf.int32)
    logits = text.model({**inputs, "mask_positions": place[:, None]}, training=False)[:, 0]
    best = tf.math.top_k(tf.nn.softmax(logits), text.top_k)
    found = functions["fill_mask"](texts)
    np.testing.assert_allclose(found["score"], best.values, atol=1e-5)
    vocabulary = text.tokenizer.get_vocabulary()
    names = [[vocabulary[i] for i in row] for row in best.indices.numpy()]
    assert [[name.decode() for name in row] for row in found["token"].numpy()] == names


def test_answers_to_questions_do_not_depend_on_the_other_rows_windows(new_encoder):
    model = new_encoder(SpanQA, **LONG)
    answer = build(model.text(max_seq_len=96, doc_stride=16))["answer"]
    asked = [text_of(words, 1) for words in (2, 30, 5, 1, 9)]
    contexts = [text_of(words) for words in (20, 700, 1, 90, 0)]
    together = answer(tf.constant(asked), tf.constant(contexts))
    for i, row in enumerate(zip(asked, contexts, strict=True)):
        alone = answer(*(tf.constant([text]) for text in row))
        assert together["answer"][i] == alone["answer"][0]
        np.testing.assert_allclose(together["score"][i], alone["score"][0], atol=1e-5)


def test_an_answer_does_not_change_with_the_lengths_of_the_neighbours(served):
    embed = served["embedder"][1]["embed"]
    one = text_of(50)
    alone = embed(tf.constant([one]))["embedding"][0]
    for words in (1, 30, 60, 300, 900):
        texts = [text_of(words), one, text_of(words // 2)]
        found = embed(tf.constant(texts))["embedding"][1]
        np.testing.assert_allclose(found, alone, atol=1e-5)

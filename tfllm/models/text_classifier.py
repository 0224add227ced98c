"""A classifier of texts and of pairs of texts."""

import json
from collections.abc import Sequence
from pathlib import Path

import keras
import keras_hub
import tensorflow as tf
from keras import ops

from tfllm import contract
from tfllm.calls import ClassifierCalls
from tfllm.errors import UserError
from tfllm.layers import Dropout, Linear
from tfllm.models.bert import bert_initializer, pooler
from tfllm.models.encoder_task import EncoderTask, EncoderText, one_per_row
from tfllm.models.example_texts import example_texts
from tfllm.models.presets import require_preset
from tfllm.models.task import require_no_smoothing
from tfllm.models.text_functions import per_row

_PROBLEM_TYPES = (
    "regression",
    "single_label_classification",
    "multi_label_classification",
)


@keras.saving.register_keras_serializable("tfllm")
class TextClassifier(EncoderTask, ClassifierCalls, keras_hub.models.TextClassifier):
    """Names what a text is.

    Trains with plain `compile` and `fit`, on a dataset of (text, y) or ((text, text_pair), y). With
    `loss="auto"` the loss is the mean over the global batch of the cross-entropy of the label
    numbers int[b]; for "multi_label_classification" that of every label, y being 0 or 1 for each,
    float[b, c]; for "regression" the squared error of float[b] or float[b, c].

    Args:
        backbone: A `BertBackbone` or `LSTMEncoderBackbone`; one without a pooler gets a new one
            here.
        preprocessor: An `EncoderPreprocessor`; None when only token ids are used.
        num_classes: c; None means as many as `labels`.
        labels: Their names; None means LABEL_0, LABEL_1, …
        problem_type: What the scores are: "single_label_classification" a softmax,
            "multi_label_classification" a sigmoid of each, "regression" the plain numbers. None
            means the first; with one label a sigmoid of it, which is trained by regression.
        dropout: Fraction of the pooled output dropped, in [0, 1).
        seed: Of dropout.

    Call arguments:
        inputs: The backbone's inputs, a dict of int32[b, t].

    Returns:
        Logits, float32[b, c].

    Raises:
        UserError: the labels, their number or `problem_type` do not fit together.

    Source:
        BertForSequenceClassification and TextClassificationPipeline of `transformers`.
    """

    def __init__(
        self,
        backbone,
        preprocessor=None,
        num_classes=None,
        labels: Sequence[str] | None = None,
        problem_type=None,
        dropout=0.1,
        seed=0,
        **kwargs,
    ):
        if labels is None and num_classes:
            labels = [f"LABEL_{i}" for i in range(num_classes)]
        if not labels or num_classes not in (None, len(labels)):
            raise UserError(
                f"A classifier needs num_classes or labels, as many of them: got {num_classes} and "
                f"{labels}."
            )
        if problem_type not in (None, *_PROBLEM_TYPES):
            raise UserError(
                f"problem_type must be None or one of {', '.join(_PROBLEM_TYPES)}, got "
                f"{problem_type!r}."
            )
        self._set_up(backbone, preprocessor, seed)
        self.labels = list(labels)
        self.problem_type = problem_type
        self.dropout = dropout
        dtype = backbone.dtype_policy
        self.pooler = None if backbone.has_pooler else pooler(backbone.hidden_dim, dtype)
        self.head_dropout = Dropout(dropout, dtype=dtype, name="head_dropout")
        self.head = Linear(
            len(labels), kernel_initializer=bert_initializer(), dtype=dtype, name="head"
        )
        inputs = backbone.input
        outputs = backbone(inputs)
        pooled = (
            outputs["pooled_output"]
            if self.pooler is None
            else self.pooler(backbone.summary(outputs["sequence_output"], inputs["padding_mask"]))
        )
        logits = ops.cast(self.head(self.head_dropout(pooled)), "float32")
        super().__init__(inputs=inputs, outputs=logits, **kwargs)

    def target_weights(self, y, weight):
        return one_per_row(y, weight)

    def target_losses(self, y, outputs, label_smoothing=0.0):
        if self.problem_type == "multi_label_classification":
            y = tf.cast(y, outputs.dtype) * (1 - label_smoothing) + label_smoothing / 2
            return tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=outputs), -1
            )
        if self.problem_type == "regression" or len(self.labels) == 1:
            require_no_smoothing(label_smoothing, "A regression")
            y = tf.reshape(tf.cast(y, outputs.dtype), tf.shape(outputs))
            return tf.reduce_mean(tf.square(outputs - y), -1)
        return super().target_losses(tf.reshape(y, [-1]), outputs, label_smoothing)

    def scores(self, logits):
        """What the scores of float32[b, c] logits are, as `problem_type` says."""
        if self.problem_type == "regression":
            return logits
        if self.problem_type == "multi_label_classification" or len(self.labels) == 1:
            return tf.sigmoid(logits)
        return tf.nn.softmax(logits)

    def text(self, **options):
        return ClassifierText(self, self._tokenizer(), **options)

    @classmethod
    def from_preset(cls, preset, load_weights=True, **kwargs):
        """As `Task.from_preset`; with other `labels` or `num_classes` the head is a new one."""
        if "labels" in kwargs and list(kwargs["labels"]) == _labels_of(preset):
            del kwargs["labels"]  # KerasHub makes a new head whenever num_classes is given
            kwargs.pop("num_classes", None)
        elif "labels" in kwargs:
            kwargs.setdefault("num_classes", len(kwargs["labels"]))
        elif "num_classes" in kwargs:
            kwargs["labels"] = None
        return super().from_preset(preset, load_weights, **kwargs)

    def get_config(self):
        return {
            **super().get_config(),
            "labels": self.labels,
            "problem_type": self.problem_type,
            "dropout": self.dropout,
        }


def _labels_of(preset) -> list[str] | None:
    """Those of the classifier in a preset; None where there is none."""
    config = Path(require_preset(preset)) / "task.json"
    if not config.exists():
        return None
    try:
        return json.loads(config.read_text(encoding="utf-8"))["config"].get("labels")
    except (ValueError, KeyError, AttributeError):  # damaged: who loads it says how
        return None


class ClassifierText(EncoderText):
    """The signatures of `contract.CLASSIFIER_SIGNATURES`."""

    task = "text_classifier"
    signatures = contract.CLASSIFIER_SIGNATURES

    def serving_default(self, functions, *required):
        (text,) = required
        return functions[contract.CLASSIFY](text)

    def classify(self, text, text_pair):
        """See `contract.SIGNATURES`; a `text_pair` of one row serves all rows."""
        inputs, error = self.read(text, per_row(text_pair, text))
        scores = self.model.scores(self.model_output(inputs))
        fine = error == ""
        scores = tf.where(fine[:, None], scores, 0.0)
        labels = tf.constant(self.model.labels)
        best = tf.argmax(scores, -1)
        return {
            "label": tf.where(fine, tf.gather(labels, best), ""),
            "score": tf.gather(scores, best, batch_dims=1),
            "labels": per_row(labels[None], scores),
            "scores": scores,
            "error": error,
        }

    def classify_examples(self, inputs):
        """See `contract.SIGNATURES`; what cannot be read has "" as classes and scores of 0."""
        text, text_pair, is_example = example_texts(inputs)
        out = self.classify(text, text_pair)
        fine = (is_example & (out["error"] == ""))[:, None]
        return {
            "classes": tf.where(fine, out["labels"], ""),
            "scores": tf.where(fine, out["scores"], 0.0),
        }

    def requests(self):
        some = self.some_text()
        examples = [_example(text=some), _example(text=some, text_pair=some), b"\xff"]
        return [*super().requests(), (contract.CLASSIFY_EXAMPLES, {"inputs": examples})]

    def metadata(self):
        return {**super().metadata(), "labels": self.model.labels}


def _example(**texts: str) -> bytes:
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
        for name, text in texts.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

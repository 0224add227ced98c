"""Examples that stay texts: the model's preprocessor tokenizes them behind the pipeline."""

from dataclasses import dataclass

import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers import Tokenizer

BALANCED = "balanced"


@dataclass(frozen=True)
class Labels:
    """Which of some labels a text, or a pair of texts, has.

    Args:
        tokenizer: Not used.
        labels: How often the training data have each label, by its name.
        class_weights: What an example of each label weighs, by its name (1 if it is not named);
            "balanced" makes all labels weigh the same together; None is 1 for all.

    Call arguments:
        columns: `text`, `text_pair` ("" = none) and `label`, each string[b].
        seed: Not used.

    Returns:
        x: text and text_pair, string[b].
        y: int32[b], the place of the label among `labels`.
        weight: float32[b].

    Raises:
        UserError: at construction, a weight is for no label or not above 0.
    """

    tokenizer: Tokenizer | None
    labels: dict
    class_weights: dict | str | None = None

    def __post_init__(self):
        given = self.class_weights
        if isinstance(given, str) and given != BALANCED:
            raise UserError(f'class_weights must be "{BALANCED}" or a dict, got {given!r}.')
        if isinstance(given, dict):
            for name, weight in given.items():
                if name not in self.labels:
                    raise UserError(
                        f"class_weights has no label {name!r}; there are {', '.join(self.labels)}."
                    )
                if isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0:
                    raise UserError(
                        f"The class weight of {name!r} must be above 0, got {weight!r}."
                    )

    def weights(self) -> list[float]:
        """What an example of each label weighs."""
        if self.class_weights == BALANCED:
            total = sum(self.labels.values()) / len(self.labels)
            return [total / count for count in self.labels.values()]
        given = self.class_weights if isinstance(self.class_weights, dict) else {}
        return [float(given.get(name, 1.0)) for name in self.labels]

    def __call__(self, columns, seed):  # noqa: ARG002
        names = tf.constant(list(self.labels))
        y = tf.argmax(columns["label"][:, None] == names, -1, output_type=tf.int32)
        weight = tf.gather(tf.constant(self.weights()), y)
        return (columns["text"], columns["text_pair"]), y, weight


@dataclass(frozen=True)
class AnswerSpans:
    """Where the answer to a question stands.

    Call arguments:
        columns: `question` and `context`, string[b]; `begin` and `end` (exclusive), int32[b] in
            code points of the context, 0 and 0 = no answer.
        seed: Not used.

    Returns:
        x: question and context, string[b].
        y: int32[b, 2], begin and end.
        weight: float32[b] of 1.
    """

    tokenizer: Tokenizer | None

    def __call__(self, columns, seed):  # noqa: ARG002
        y = tf.stack([columns["begin"], columns["end"]], -1)
        return (columns["question"], columns["context"]), y, tf.ones(tf.shape(y)[:1])


@dataclass(frozen=True)
class TextPairs:
    """Texts that are similar or belong together.

    Args:
        tokenizer: Not used.
        scored: Whether the similarity is learned; else that they belong together.
        lowest: The score of pairs that are not similar at all.
        highest: The score of pairs that mean the same.

    Call arguments:
        columns: `text` and `text_pair`, string[b]; `score`, float32[b].
        seed: Not used.

    Returns:
        x: text and text_pair, string[b].
        y: float32[b], the score between `lowest` and `highest` as a number from 0 to 1; None if
            not `scored`.
        weight: float32[b] of 1.

    Raises:
        UserError: at construction, `lowest` is not below `highest`.
    """

    tokenizer: Tokenizer | None
    scored: bool
    lowest: float = 0.0
    highest: float = 1.0

    def __post_init__(self):
        if self.lowest >= self.highest:
            raise UserError(f"lowest must be below highest: got {self.lowest} and {self.highest}.")

    def __call__(self, columns, seed):  # noqa: ARG002
        score = (columns["score"] - self.lowest) / (self.highest - self.lowest)
        x = columns["text"], columns["text_pair"]
        return x, score if self.scored else None, tf.ones(tf.shape(score)[:1])

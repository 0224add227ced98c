"""Next token: each token of a packed row is to be said after those before it."""

from dataclasses import dataclass

import tensorflow as tf

from tfllm.tokenizers import Tokenizer


@dataclass(frozen=True)
class NextToken:
    """Language modelling on packed rows.

    Args:
        tokenizer: Not used.

    Call arguments:
        columns: `token_ids`, `segment_ids` (1, 2, … per document of the row, 0 = padding) and
            `positions`, each int[b, t + 1]. Where there is one, `target_weights` float[b, t + 1]
            says how much each token counts as a target.
        seed: int64[2]; not used, nothing is drawn.

    Returns:
        x: The three columns without their last place, int32[b, t].
        y: int32[b, t], the next token.
        weight: float32[b, t], 1 (or the target's own weight) where y continues the same document,
            else 0.
    """

    tokenizer: Tokenizer | None = None

    def __call__(self, columns, seed):  # noqa: ARG002 - every objective is called with it
        row = {
            name: tf.cast(columns[name], tf.int32)
            for name in ("token_ids", "segment_ids", "positions")
        }
        segment = row["segment_ids"]
        same_document = (segment[:, 1:] == segment[:, :-1]) & (segment[:, 1:] > 0)
        weight = tf.cast(same_document, tf.float32)
        if "target_weights" in columns:
            weight *= tf.cast(columns["target_weights"][:, 1:], tf.float32)
        x = {name: values[:, :-1] for name, values in row.items()}
        return x, row["token_ids"][:, 1:], weight

"""Prefix language modelling: the encoder reads how a text begins, the decoder says the rest."""

from dataclasses import dataclass

import tensorflow as tf

from tfllm.data.objectives.compact import kept_with_end
from tfllm.data.objectives.decoder import require_end, seq2seq_batch, start_token
from tfllm.data.objectives.draws import uniform
from tfllm.tokenizers import Tokenizer


@dataclass(frozen=True)
class PrefixLM:
    """A window is split at a random place; both parts have one token at least, and an end.

    Args:
        tokenizer: With an end.
        decoder_start_token_id: What the decoder reads first; None means the tokenizer's padding.

    Call arguments:
        columns: `token_ids` int[b, n], windows of text, padded with -1 where one is shorter.
        seed: int64[2], the run's seed and the step.

    Returns:
        x: The inputs of a `Seq2SeqBackbone`, int32[b, n] each: n - 1 tokens and an end at most.
        y: int32[b, n], the rest of the window and an end.
        weight: float32[b, n], 1 where there is a target.

    Raises:
        UserError: at construction, the tokenizer has no end.

    Source:
        Raffel et al. 2020, section 3.2.3 and 3.3.1, https://arxiv.org/abs/1910.10683; the place is
        uniform as in `random_prefix_noise_mask` of t5/data/preprocessors.py.
    """

    tokenizer: Tokenizer
    decoder_start_token_id: int | None = None

    def __post_init__(self):
        require_end(self.tokenizer, "prefix_lm")

    def __call__(self, columns, seed):
        token_ids = tf.cast(columns["token_ids"], tf.int32)
        rows, size = token_ids.shape
        present = token_ids >= 0
        there = tf.reduce_sum(tf.cast(present, tf.int32), -1)
        places = tf.cast(tf.maximum(there - 1, 0), tf.float32)
        split = 1 + tf.cast(uniform(seed, 0, [rows]) * places, tf.int32)
        split = tf.minimum(split, tf.maximum(there - 1, 0))[:, None]  # the product may round up
        place = tf.range(size)[None]
        source = kept_with_end(token_ids, present & (place < split), size, self.tokenizer)
        target = kept_with_end(token_ids, present & (place >= split), size, self.tokenizer)
        start = start_token(self.tokenizer, self.decoder_start_token_id)
        return seq2seq_batch(*source, *target, start)

"""Pairs of a source and a target: translation, summarisation, and denoising of sources."""

from dataclasses import dataclass

import tensorflow as tf

from tfllm.data.objectives.decoder import seq2seq_batch, start_token
from tfllm.data.objectives.noise import Noise, add_noise, word_table
from tfllm.tokenizers import Tokenizer


@dataclass(frozen=True)
class Pairs:
    """Packed pairs, the sources noisy if wanted.

    Args:
        tokenizer: Of the pairs.
        drop: As of `Noise`, which says what becomes of the words of a source.
        mask: As of `Noise`.
        shuffle: As of `Noise`.
        whole_words: Whether noise is on words, or on each token by itself.
        decoder_start_token_id: What the decoder reads first; None means the tokenizer's padding.

    Call arguments:
        columns: `encoder_ids` and `encoder_segments` int[b, s], `decoder_ids` and
            `decoder_segments` int[b, t]: sources and targets with their ends, side by side, and
            the number of the pair of each, 1, 2, … (0 = padding).
        seed: int64[2], the run's seed and the step.

    Returns:
        x: The inputs of a `Seq2SeqBackbone`, int32[b, s] and int32[b, t]; the masks are the
            numbers of the pairs, of which none looks at another.
        y: int32[b, t], the targets.
        weight: float32[b, t], 1 where there is one.

    Raises:
        UserError: at construction, a setting is none or the tokenizer cannot do it.
    """

    tokenizer: Tokenizer
    drop: float = 0.0
    mask: float = 0.0
    shuffle: int = 0
    whole_words: bool = True
    decoder_start_token_id: int | None = None

    def __post_init__(self):
        if any(self._noise()):
            self._noise().check(self.tokenizer)
            word_table(self.tokenizer, self.whole_words)

    def _noise(self):
        return Noise(self.drop, self.mask, self.shuffle)

    def __call__(self, columns, seed):
        source, source_pairs, target, target_pairs = (
            tf.cast(columns[name], tf.int32)
            for name in ("encoder_ids", "encoder_segments", "decoder_ids", "decoder_segments")
        )
        if any(self._noise()):
            table = word_table(self.tokenizer, self.whole_words)
            source, source_pairs = add_noise(
                source, source_pairs, self._noise(), self.tokenizer, table, seed
            )
        start = start_token(self.tokenizer, self.decoder_start_token_id)
        return seq2seq_batch(source, source_pairs, target, target_pairs, start)

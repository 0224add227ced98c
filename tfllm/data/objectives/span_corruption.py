"""Span corruption, the denoising objective of T5."""

from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from tfllm.data.objectives.compact import kept_with_end
from tfllm.data.objectives.decoder import require_end, seq2seq_batch, start_token
from tfllm.data.objectives.draws import uniform
from tfllm.errors import UserError
from tfllm.tokenizers import Tokenizer
from tfllm.tokenizers.sentinels import sentinel_ids

_NOISE, _KEPT = 0, 1  # draws of a step


class SpanLengths(NamedTuple):
    """What becomes of a window.

    Attributes:
        noise: Tokens that are taken out.
        spans: Spans that they are in, and sentinels of each side.
        encoder: Places of the encoder's row: what is kept, the sentinels, an end.
        decoder: Places of the decoder's row: what is taken out, the sentinels, an end.
    """

    noise: int
    spans: int
    encoder: int
    decoder: int


def span_lengths(window: int, rate: float = 0.15, mean_span: float = 3.0) -> SpanLengths:
    """The lengths for a window of so many tokens.

    Source:
        `random_spans_helper` and `random_spans_noise_mask` of t5/data/preprocessors.py,
        https://github.com/google-research/text-to-text-transfer-transformer
    """
    noise = max(min(max(round(window * rate), 1), window - 1), 0)
    # There is a kept token before each span.
    spans = min(max(round(noise / mean_span), 1), noise, window - noise)
    return SpanLengths(noise, spans, window - noise + spans + 1, noise + spans + 1)


@dataclass(frozen=True)
class SpanCorruption:
    """Random spans are taken out of a window, and are to be said again.

    A sentinel stands for each span in the encoder's row and before it in the decoder's. The first
    is `<extra_id_0>`. A row begins with a token that is kept and ends with a span; as in T5's code
    (and other than in the figure of the paper) no sentinel closes the targets, but an end does.

    Args:
        tokenizer: With `<extra_id_0>`, `<extra_id_1>`, … and an end.
        rate: Fraction of the tokens that is taken out, in (0, 1).
        mean_span: Mean tokens of a span, at least 1.
        decoder_start_token_id: What the decoder reads first; None means the tokenizer's padding.

    Call arguments:
        columns: `token_ids` int[b, n], windows of text, padded with -1 where one is shorter.
        seed: int64[2], the run's seed and the step.

    Returns:
        x: The inputs of a `Seq2SeqBackbone`, int32[b, s] and int32[b, t]; s and t are those of
            `span_lengths` for n.
        y: int32[b, t], what was taken out behind sentinels, and an end.
        weight: float32[b, t], 1 where there is a target.

    Raises:
        UserError: at construction, a setting is none; there, or at a call with long windows, the
            tokenizer has too few sentinels.

    Source:
        Raffel et al. 2020, section 3.1.4 and 3.3.4, https://arxiv.org/abs/1910.10683, and the
        functions of `span_lengths`.
    """

    tokenizer: Tokenizer
    rate: float = 0.15
    mean_span: float = 3.0
    decoder_start_token_id: int | None = None

    def __post_init__(self):
        if not 0 < self.rate < 1:
            raise UserError(f"rate must be above 0 and below 1; got {self.rate}.")
        if self.mean_span < 1:
            raise UserError(f"mean_span must be at least 1 token; got {self.mean_span}.")
        require_end(self.tokenizer, "span_corruption")
        sentinel_ids(self.tokenizer, 1)

    def __call__(self, columns, seed):
        token_ids = tf.cast(columns["token_ids"], tf.int32)
        rows, size = token_ids.shape
        lengths = span_lengths(size, self.rate, self.mean_span)
        sentinels = tf.constant(sentinel_ids(self.tokenizer, lengths.spans), tf.int32)
        # The numbers of every window that is not longer, so that short rows are read from a table.
        table = [span_lengths(window, self.rate, self.mean_span)[:2] for window in range(size + 1)]
        there = tf.reduce_sum(tf.cast(token_ids >= 0, tf.int32), -1)
        noise, spans = tf.unstack(tf.gather(tf.constant(table), there), axis=1)

        taken = _segments(uniform(seed, _NOISE, [rows, size]), noise, spans, lengths.spans)
        kept = _segments(uniform(seed, _KEPT, [rows, size]), there - noise, spans, lengths.spans)
        ends = tf.cumsum(tf.reshape(tf.stack([kept, taken], -1), [rows, -1]), -1)
        place = tf.broadcast_to(tf.range(size)[None], [rows, size])
        segment = tf.searchsorted(ends, place, side="right")  # even: kept; odd: taken out
        present = place < there[:, None]
        is_noise = (segment % 2 == 1) & present
        is_kept = (segment % 2 == 0) & present
        before = tf.pad(is_noise, [[0, 0], [1, 0]])[:, :-1]
        begins = is_noise & ~before
        sentinel = tf.gather(sentinels, tf.minimum(segment // 2, lengths.spans - 1))

        source = kept_with_end(
            tf.where(begins, sentinel, token_ids),
            is_kept | begins,
            lengths.encoder,
            self.tokenizer,
        )
        # A sentinel goes before the first token of its span: two places for each token.
        both = tf.reshape(tf.stack([sentinel, token_ids], -1), [rows, -1])
        said = tf.reshape(tf.stack([begins, is_noise], -1), [rows, -1])
        target = kept_with_end(both, said, lengths.decoder, self.tokenizer)
        start = start_token(self.tokenizer, self.decoder_start_token_id)
        return seq2seq_batch(*source, *target, start)


def _segments(drawn, items, segments, most: int):
    """Parts items into segments, every way as probable as another, none of them empty.

    Args:
        drawn: float32[b, n] in [0, 1).
        items: int32[b], at most n.
        segments: int32[b], at most as many as the items.
        most: Segments of a row at most.

    Returns:
        int32[b, most], items of each segment.
    """
    rows, size = drawn.shape
    place = tf.range(size)[None]
    # All but the first segment begin at random places behind the first item.
    may_begin = (place > 0) & (place < items[:, None])
    order = tf.argsort(tf.argsort(tf.where(may_begin, drawn, 1.0), axis=-1), axis=-1)
    begins = may_begin & (order < segments[:, None] - 1)
    number = tf.cumsum(tf.cast(begins, tf.int32), -1) + tf.range(rows)[:, None] * most
    counted = tf.cast(place < items[:, None], tf.int32)
    return tf.reshape(tf.math.unsorted_segment_sum(counted, number, rows * most), [rows, most])

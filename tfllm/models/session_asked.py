"""Texts that clients ask for, before any slot is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from tfllm import contract
from tfllm.decoding import Sampling
from tfllm.decoding.ngrams import joined
from tfllm.decoding.stopping import MAX_STOP_BYTES
from tfllm.models.row_errors import sampling_errors, too_long, wrong
from tfllm.models.session_rules import Biases, bias_errors
from tfllm.models.session_slots import FULL, GOES_ON, STOPPED
from tfllm.models.text_functions import first_error
from tfllm.tokenizers.utf8 import valid_utf8_in_graph

if TYPE_CHECKING:
    from tfllm.models.text_generator import TextGenerator


class Asked(NamedTuple):
    """Texts; of one that is wrong there is the first token.

    Attributes:
        error: string[b], what is wrong with each.
        length: int32[b], tokens of each prompt, of a wrong one too.
        tokens, num_prompt_tokens, num_source_tokens, count, ended, limit, stop, biases: As of
            `Slots`.
    """

    error: tf.Tensor
    length: tf.Tensor
    tokens: tf.Tensor
    num_prompt_tokens: tf.Tensor
    num_source_tokens: tf.Tensor
    count: tf.Tensor
    ended: tf.Tensor
    limit: tf.Tensor
    stop: tf.Tensor
    biases: Biases

    def fields(self) -> dict[str, Any]:
        """What slots keep of them."""
        names = (
            "tokens", "num_prompt_tokens", "num_source_tokens", "count", "ended", "limit", "stop"
        )  # fmt: skip
        return {name: getattr(self, name) for name in names} | self.biases._asdict()


def texts_asked_for(  # noqa: PLR0913 - the inputs of a signature
    text: TextGenerator,
    prompt,
    lease,
    generated,
    *,
    limit,
    sampling: Sampling,
    stop,
    bias_token_ids,
    bias,
) -> Asked:
    """What a call of `prefill` asks for; every input has a row for each prompt.

    Args:
        text: Of the model.
        prompt: string[b].
        lease: string[b].
        generated: int32[b, n].
        limit: int32[b], `max_new_tokens`.
        sampling: Settings.
        stop: string[b, 4].
        bias_token_ids: int32[b, i].
        bias: float32[b, j].
    """
    most, vocabulary_size = text.context_length, text.model.backbone.vocabulary_size
    stop = valid_utf8_in_graph(tf.reshape(stop, [-1, contract.MAX_STOP_STRINGS]))
    biases = Biases.of(bias_token_ids, bias)
    texts, huge = text.without_huge(prompt)
    ids = text.read(texts)
    lengths = tf.cast(ids.row_lengths(), tf.int32)
    count = tf.reduce_sum(tf.cast(generated != contract.PADDING, tf.int32), -1)
    ids, num_source_tokens = text.with_begin(ids)
    before_it = tf.cast(ids.row_lengths(), tf.int32) - num_source_tokens  # what is written
    room = most - before_it + 1
    unknown = (generated < contract.PADDING) | (generated >= vocabulary_size)
    error = first_error(
        [
            (lease == "", "lease must be a word that no other text has, got none"),
            (huge, text.huge("the prompt", most)),
            (lengths > most, too_long("the prompt", lengths, most)),
            (limit < 0, wrong("max_new_tokens must be at least 0", limit)),
            (tf.reduce_any(unknown, -1), "generated has numbers that are no tokens"),
            (
                count > room,
                too_long(text.written_name, before_it + count, most + 1),
            ),
            (
                tf.reduce_any(tf.strings.length(stop) > MAX_STOP_BYTES, -1),
                f"a stop string is longer than {MAX_STOP_BYTES} bytes",
            ),
            *bias_errors(bias_token_ids, biases, vocabulary_size),
            *sampling_errors(sampling),
        ]
    )
    fine = error == ""
    count, num_source_tokens = (tf.where(fine, x, 0) for x in (count, num_source_tokens))
    num_prompt_tokens = tf.where(fine, num_source_tokens + before_it, 1)
    limit = tf.minimum(limit, room)
    dense = ids.to_tensor(0, shape=[None, text.most_tokens + 1])
    generated = tf.where(fine[:, None], tf.maximum(generated, 0), 0)
    known = joined(dense, num_prompt_tokens, generated, count)
    tokens = known.token_ids[:, : text.most_tokens + 1]
    last = tf.gather(tokens, known.count - 1, batch_dims=1)
    ended = tf.where(
        (count > 0) & text.rules.ends(last), STOPPED, tf.where(count >= limit, FULL, GOES_ON)
    )
    return Asked(
        error, lengths, tokens, num_prompt_tokens, num_source_tokens, count, ended, limit, stop,
        biases,
    )  # fmt: skip

"""How likely a masked language model finds two sentences, by the tokens that they share."""

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfllm.errors import UserError


def shared_tokens(first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
    """The places of the tokens that two sentences share, in order."""
    blocks = difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    return (
        [block.a + i for block in blocks for i in range(block.size)],
        [block.b + i for block in blocks for i in range(block.size)],
    )


def pseudo_likelihoods(
    model: Any, first: Sequence[str], second: Sequence[str], batch_size: int = 16
) -> list[tuple[float, float]]:
    """Of each pair: the pseudo-log-likelihood of what the sentences share, given the rest of each.

    Each token that both have is masked, one at a time, and its log-probability summed. The tokens
    that differ are never guessed, so that how rare a word is does not count.

    Args:
        model: A live `MaskedLM`.
        first: Sentences.
        second: As many.
        batch_size: Masked sentences per call.

    Returns:
        As many pairs of sums, natural logarithm.

    Raises:
        UserError: a sentence is too long, or two sentences share no token.

    Source:
        Nangia et al. 2020, section 3, https://arxiv.org/abs/2010.00133
    """
    tokenizer = model.preprocessor.tokenizer
    ids = [_tokens(model, texts) for texts in (first, second)]
    found = []
    for text, other, a, b in zip(first, second, *ids, strict=True):
        places = shared_tokens(a, b)
        if not places[0]:
            raise UserError(f"{text!r} and {other!r} share no token: there is nothing to guess.")
        found.append(
            tuple(
                _summed(model, tokenizer, tokens, where, batch_size)
                for tokens, where in zip((a, b), places, strict=True)
            )
        )
    return found


def _tokens(model: Any, texts: Sequence[str]) -> list[list[int]]:
    room = model.preprocessor.sequence_length - 2
    several = model.tokenize(list(texts))
    for text, ids in zip(texts, several, strict=True):
        if len(ids) > room:
            raise UserError(f"{text!r} has {len(ids)} tokens, the model takes {room}.")
    return several


def _summed(model: Any, tokenizer: Any, ids: list[int], places: list[int], batch_size: int):
    whole = np.array([tokenizer.cls_id, *ids, tokenizer.sep_id], np.int32)
    total = 0.0
    for at in range(0, len(places), batch_size):
        where = np.array(places[at : at + batch_size], np.int32) + 1  # behind the begin
        rows = np.arange(len(where))
        masked = np.tile(whole, (len(where), 1))
        masked[rows, where] = tokenizer.mask_id
        inputs = {
            "token_ids": masked,
            "segment_ids": np.zeros_like(masked),
            "padding_mask": np.ones_like(masked),
            "mask_positions": where[:, None],
        }
        logits = model(inputs, training=False)[:, 0]
        total += float(
            tf.reduce_sum(tf.gather(tf.nn.log_softmax(logits), whole[where], batch_dims=1))
        )
    return total

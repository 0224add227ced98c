"""Decoding as a loop that understands nothing of caches."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.decoding import Beginning


@pytest.fixture(scope="session")
def naive_generate():
    """Greedy decoding that reads the whole text again for every token."""
    forwards = {}

    def generate(
        model, prompt, max_new_tokens=64, repetition_penalty=1.0, presence_penalty=0.0,
        frequency_penalty=0.0,
    ):  # fmt: skip
        """Ids of the new tokens (with the end token if it came) and their summed logprob."""
        context, tokenizer = model.backbone.max_sequence_length, model.preprocessor.tokenizer
        if model not in forwards:
            forwards[model] = tf.function(model)
        ids, new, logprob = [tokenizer.bos_id, *tokenizer.encode(prompt)], [], 0.0
        while len(new) < max_new_tokens and len(ids) <= context:
            x = np.zeros([3, 1, context], "int32")
            x[0, 0, : len(ids)], x[1, 0, : len(ids)], x[2, 0] = ids, 1, range(context)
            names = ("token_ids", "segment_ids", "positions")
            logits = forwards[model](dict(zip(names, x, strict=True)))[0, len(ids) - 1].numpy()
            seen = np.zeros(len(logits), bool)
            seen[ids] = True
            penalized = np.where(
                logits < 0, logits * repetition_penalty, logits / repetition_penalty
            )
            scores = np.where(seen, penalized, logits)
            for token in set(new):
                scores[token] -= frequency_penalty * new.count(token) + presence_penalty
            token = int(scores.argmax())
            logprob += logits[token] - np.logaddexp.reduce(logits.astype("float64"))
            new.append(token)
            ids.append(token)
            if token == tokenizer.eos_id:
                break
        return new, logprob

    return generate


@pytest.fixture(scope="session")
def rereading():
    """A model for the loops, outside of graphs, without its memory: `rereading(model)`."""
    return _Rereading


class _Rereading:
    """Its state is int32[b, p, s], the p texts of each row, which every step reads again."""

    def __init__(self, model):
        self.model = model
        self.hidden_states = tf.function(model.hidden_states, reduce_retracing=True)

    def begin(self, prompt, lengths):
        last = tf.gather(prompt, lengths[:, None] - 1, batch_dims=1)
        return Beginning(last, lengths - 1, prompt[:, None])

    def grow(self, state, entries, length):  # noqa: ARG002 - each text has all of it
        room = tf.maximum(length - tf.shape(state)[2], 0)
        return tf.pad(state, [[0, 0], [0, 0], [0, room]])

    def step(self, new, state):
        if new.parent is not None:
            state = tf.gather(state, new.parent, batch_dims=1)
        here = tf.range(state.shape[2]) == new.positions[..., None]
        state = tf.where(here, new.token_ids[..., None], state)
        read = tf.unstack(state, axis=1)
        hidden = tf.stack([self.hidden_states(text) for text in read], 1)
        hidden = tf.gather(hidden, new.positions, batch_dims=2)
        return self.model.logits(tf.gather(hidden, new.wanted, batch_dims=1)), state

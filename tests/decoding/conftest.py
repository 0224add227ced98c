"""Decoding as a loop that understands nothing of caches."""

import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture(scope="session")
def naive_generate():
    """Greedy decoding that reads the whole text again for every token."""
    forwards = {}

    def generate(model, prompt, max_new_tokens=64, repetition_penalty=1.0):
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
            token = int(np.where(seen, penalized, logits).argmax())
            logprob += logits[token] - np.logaddexp.reduce(logits.astype("float64"))
            new.append(token)
            ids.append(token)
            if token == tokenizer.eos_id:
                break
        return new, logprob

    return generate

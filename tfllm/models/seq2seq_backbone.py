"""What encoder–decoder backbones share: the four inputs, and the ways through the two stacks."""

from typing import Any, NamedTuple

import keras
import keras_hub
import tensorflow as tf

from tfllm.decoding import Beginning, NewTokens
from tfllm.layers import (
    KVCache,
    PairMask,
    PairPositions,
    Positions,
    Window,
    causal_mask,
    grow,
    padding_mask,
    unseen,
)


class DecoderState(NamedTuple):
    """What the decoder of every encoder–decoder backbone remembers.

    Attributes:
        written: A nest of what the decoder has of its own text.
        memories: Of the source: a `KVCache` float[b, h, s, d] for each layer that looks at it.
        memory_scores: float32[b, 1, 1, s], what keeps scores out where no source is: `unseen`.
    """

    written: Any
    memories: tuple[KVCache, ...]
    memory_scores: tf.Tensor


def seq2seq_inputs() -> dict[str, keras.KerasTensor]:
    """The inputs of every encoder–decoder backbone, each int32[b, t]; see `Seq2SeqBackbone`."""
    return {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in (
            "encoder_token_ids",
            "encoder_padding_mask",
            "decoder_token_ids",
            "decoder_padding_mask",
        )
    }


class Seq2SeqBackbone(keras_hub.models.Backbone):
    """Source and target token ids to hidden states.

    A subclass makes the layers, `encoder_blocks` and `decoder_blocks` among them, and then calls
    this constructor. It gives `embed_source`, `embed_target` and `logits`; where there is
    something to them also `encoder_bias`, `decoder_bias`, `finish_source` and `finish_target`.

    Args:
        dtype: Policy of the layers.
        **kwargs: Of `keras_hub.models.Backbone`.

    Inputs (a dict):
        encoder_token_ids: int32[b, s], the source.
        encoder_padding_mask: int32[b, s], 0 for padding, 1 for a token. A row may hold several
            pairs of source and target one after the other: then 1, 2, … numbers the pair of each
            token, and no pair knows of its neighbours.
        decoder_token_ids: int32[b, t], the start token and the target without its last token, for
            each pair.
        decoder_padding_mask: int32[b, t], the same numbers.

    Outputs (a dict):
        encoder_sequence_output: float[b, s, m].
        decoder_sequence_output: float[b, t, m].

    Attributes:
        vocabulary_size: v, tokens that the decoder may say.
        source_vocabulary_size: Tokens that the encoder reads.
        max_sequence_length: Tokens of a source, and of a target, at most.
    """

    def __init__(self, *, dtype=None, **kwargs):
        self.positions = Positions(name="positions")
        inputs = seq2seq_inputs()
        source, target = inputs["encoder_padding_mask"], inputs["decoder_padding_mask"]
        in_pair, pair_mask = PairPositions(name="in_pair"), PairMask(name="pair_mask")
        memory = self._encode(
            inputs["encoder_token_ids"], in_pair(source), pair_mask(source, source)
        )
        hidden = self._decode(
            inputs["decoder_token_ids"],
            in_pair(target),
            PairMask(causal=True, name="causal_mask")(target, target),
            [memory] * len(self.decoder_blocks),
            pair_mask(target, source),
        )
        outputs = {"encoder_sequence_output": memory, "decoder_sequence_output": hidden}
        super().__init__(inputs=inputs, outputs=outputs, dtype=dtype, **kwargs)

    def embed_source(self, token_ids, positions):
        """float[b, s, m] of int32[b, s]; positions are int32[b or 1, s]."""
        raise NotImplementedError

    def embed_target(self, token_ids, positions):
        """As `embed_source`."""
        raise NotImplementedError

    def logits(self, hidden):
        """float32[..., v] of the decoder's hidden states float[..., m]."""
        raise NotImplementedError

    def scored_by(self, hidden):
        """What makes `logits`: float[..., m] by float32[v, m], and float32[v] or None to add."""
        return hidden, self.token_embedding.output_embeddings, None

    def encoder_bias(self, positions):
        """float[1, h, s, s], added to the scores of the encoder's attention; or None."""

    def decoder_bias(self, query_positions, key_positions):
        """float[b or 1, h, t, s], added to the scores of the decoder's self-attention; or None."""

    def finish_source(self, x):
        """float[b, s, m] behind the last block of the encoder."""
        return x

    def finish_target(self, x):
        """float[..., m] behind the last block of the decoder."""
        return x

    def encode(self, token_ids, present):
        """float[b, s, m], what the decoder looks at, of int32[b, s]: one source in each row.

        Args:
            token_ids: int32[b, s].
            present: int32[b, s], 0 for padding.
        """
        return self._encode(token_ids, self.positions(token_ids), padding_mask(present))

    def _encode(self, token_ids, positions, mask):
        x = self.embed_source(token_ids, positions)
        # Distances within a pair are those within the row, for which one table serves all rows.
        bias = self.encoder_bias(self.positions(token_ids))
        for block in self.encoder_blocks:
            x = block(x, mask, bias=bias)
        return self.finish_source(x)

    def project(self, memory):
        """What the decoder's blocks look at, computed once: a `KVCache` each of float[b, s, m]."""
        return [block.memory_attention.project(memory) for block in self.decoder_blocks]

    def decode(self, token_ids, memories, memory_mask):
        """One pass over whole targets, one in each row.

        Args:
            token_ids: int32[b, t].
            memories: A `KVCache` of `project` for each block.
            memory_mask: bool[b, 1, s].

        Returns:
            float[b, t, m], hidden states.
        """
        positions, mask = self.positions(token_ids), causal_mask(tf.shape(token_ids)[1])
        return self._decode(token_ids, positions, mask, memories, memory_mask)

    def _decode(self, token_ids, positions, mask, memories, memory_mask):
        x = self.embed_target(token_ids, positions)
        in_row = self.positions(token_ids)
        bias = self.decoder_bias(in_row, in_row)
        for block, memory in zip(self.decoder_blocks, memories, strict=True):
            x = block(x, mask, memory=memory, memory_mask=memory_mask, bias=bias)
        return self.finish_target(x)

    rewinds = True  # what was read last can be read anew

    def begin(self, prompt, lengths, memories, memory_mask):  # noqa: ARG002
        """As of `tfllm.decoding.Decodable`: all is read, and the caches are empty.

        Args:
            prompt: int32[b, t], beginnings of targets.
            lengths: int32[b].
            memories: A `KVCache` of `project` for each block.
            memory_mask: bool[b, 1, s].
        """
        rows = tf.shape(prompt)[0]
        caches = tuple(block.attention.empty_cache(rows) for block in self.decoder_blocks)
        state = DecoderState(caches, tuple(memories), unseen(memory_mask))
        return Beginning(prompt, tf.zeros([rows], tf.int32), state)

    def grow(self, state, entries, length):  # noqa: ARG002 - entries are all there is
        """As of `tfllm.decoding.Decodable`."""
        return state._replace(written=tuple(grow(cache, entries) for cache in state.written))

    def step(self, new: NewTokens, state):
        """Reads new tokens: as of `tfllm.decoding.Decodable`, but

        Returns:
            float[b * n, m], their hidden states; and the state.
        """
        x = self.embed_target(new.token_ids, new.positions)
        x = tf.reshape(x, [-1, x.shape[-1]])
        bias = self.decoder_bias(new.positions, new.entry_positions)
        window = Window.of(new.start, new.visible, self.decoder_blocks[0].num_heads, bias)
        after = []
        for block, cache, memory in zip(
            self.decoder_blocks, state.written, state.memories, strict=True
        ):
            x, cache = block.extend(
                x, window, cache, memory=memory, memory_scores=state.memory_scores
            )
            after.append(cache)
        return self.finish_target(x), state._replace(written=tuple(after))

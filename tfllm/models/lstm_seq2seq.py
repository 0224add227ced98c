"""The recurrent baseline of the encoder–decoders: LSTMs, with attention over the source."""

import keras
import keras_hub
import tensorflow as tf

from tfllm.decoding import Beginning, NewTokens
from tfllm.layers import (
    LSTM,
    BidirectionalLSTM,
    Dropout,
    KVCache,
    LayerNormalization,
    Linear,
    MultiHeadAttention,
    Normal,
    PairMask,
    TokenEmbedding,
    layer_norm,
    starts_of,
    unseen,
)
from tfllm.models.branches import branches, of_parents
from tfllm.models.lstm_encoder import require_even
from tfllm.models.seq2seq_backbone import DecoderState, seq2seq_inputs
from tfllm.models.seq2seq_lm import Seq2SeqLM
from tfllm.models.seq2seq_preprocessor import Seq2SeqLMPreprocessor
from tfllm.models.sizes import require_sizes


@keras.saving.register_keras_serializable("tfllm")
class AttentiveLSTM(keras.layers.Layer):
    """LSTM layers of which the first looks at a memory, and the others at what it saw.

    All positions of a target look at once, because what is seen flows upwards and never into the
    first layer: so each layer is one fast loop over time in training. From the second layer on, a
    layer adds to what it read, and each is normalised, as is the memory of `LSTMSeq2SeqBackbone`:
    without that, attention is learned many times more slowly.

    Letters: b batch, t positions of targets, s of the memory, m width of all.

    Args:
        num_layers: Number of layers.
        units: m.
        num_heads: Heads of the attention, divide m.
        dropout: Fraction of the units dropped in training between two layers, in [0, 1).
        attention_dropout: Of the attention weights.

    Call arguments:
        x: float[b, t, m].
        memory: float[b, s, m]. Or what `attention.project` made of it: then `x` may have n rows of
            one position for each of the memory's, side by side (beams).
        memory_mask: bool[b, t or 1, s], True where a position may look; beside what
            `attention.project` made, float32[b, 1, 1, s] that `unseen` made of it.
        states: One `LSTMState` per layer, or None for zeros.
        starts: bool[b, t], True where a target begins: the states before it are forgotten; or None.
        lengths: int32[b], positions that count for the states returned; None = all.

    Returns:
        float[b, t, m] in [-1, 1], and a tuple of one `LSTMState` per layer.

    Source:
        Luong et al. 2015, sections 3 and 3.1 (the output of the last layer and what was seen go
        through one tanh layer), https://arxiv.org/abs/1508.04025; Wu et al. 2016, section 3 (the
        first layer looks, all others read it), https://arxiv.org/abs/1609.08144; several heads and
        what was seen in the output layer too, Chen et al. 2018, section 4.1,
        https://arxiv.org/abs/1804.09849
    """

    def __init__(
        self, num_layers, units, *, num_heads=1, dropout=0.0, attention_dropout=0.0, **kwargs
    ):
        super().__init__(autocast=False, **kwargs)  # the states, as in `LSTM`
        self.num_layers = num_layers
        self.units = units
        self.num_heads = num_heads
        self.dropout = dropout
        self.attention_dropout = attention_dropout

    def build(self, x_shape, memory_shape=None):
        inner, seen_too = ((*x_shape[:-1], n * self.units) for n in (1, 2))
        self.lstms, self.norms = [], []
        for i in range(self.num_layers):
            lstm = LSTM(self.units, dtype=self.dtype_policy, name=f"lstm_{i}")
            lstm.build(seen_too if i else x_shape)
            self.lstms.append(lstm)
            self.norms.append(layer_norm(inner, dtype=self.dtype_policy, name=f"norm_{i}"))
        self.attention = MultiHeadAttention(
            self.num_heads,
            dropout=self.attention_dropout,
            dtype=self.dtype_policy,
            name="attention",
        )
        self.attention.build(inner, memory_shape)
        self.between = Dropout(self.dropout, dtype=self.dtype_policy, name="between")
        self.combine = Linear(
            self.units, activation="tanh", use_bias=False, dtype=self.dtype_policy, name="combine"
        )
        self.combine.build(seen_too)
        self.built = True

    def zero_states(self, rows):
        """The states before the first position, of `rows` rows (an int32 scalar)."""
        return tuple(lstm.zero_state(rows) for lstm in self.lstms)

    def _look(self, x, memory, mask, training):
        if not isinstance(memory, KVCache):
            return self.attention(x, mask, memory=memory, training=training)
        rows = tf.shape(memory.k)[0]
        texts = tf.shape(x)[0] // tf.maximum(rows, 1)  # of each row
        seen = self.attention.look(
            tf.reshape(x, [-1, self.units]),
            memory,
            mask,
            rows,
            texts * tf.shape(x)[1],
        )
        return tf.reshape(seen, tf.shape(x))

    def call(
        self,
        x,
        memory,
        *,
        memory_mask=None,
        states=None,
        starts=None,
        lengths=None,
        training=None,
    ):
        first, *others = states or (None,) * self.num_layers
        x, state = self.lstms[0](x, first, starts=starts, lengths=lengths)
        x = self.norms[0](x)
        seen = self._look(x, memory, memory_mask, training)
        after = [state]
        for lstm, norm, state in zip(self.lstms[1:], self.norms[1:], others, strict=True):
            both = keras.ops.concatenate([self.between(x, training=training), seen], -1)
            found, state = lstm(both, state, starts=starts, lengths=lengths)
            x = norm(x + found)
            after.append(state)
        return self.combine(keras.ops.concatenate([x, seen], -1)), tuple(after)

    def get_config(self):
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "units": self.units,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
        }


@keras.saving.register_keras_serializable("tfllm")
class LSTMSeq2SeqBackbone(keras_hub.models.Backbone):
    """Source and target token ids to hidden states, without a Transformer.

    LSTMs in both directions read the source. Those of the target begin with zeros, so that several
    pairs fit into a row, and know the source by attention alone.

    Args:
        vocabulary_size: v, of the target.
        num_layers: Layers of the encoder, each of two LSTMs.
        hidden_dim: m, even: the width of everything.
        num_heads: Heads of the attention, divide m.
        source_vocabulary_size: Where the source has a table of its own; None means that it shares
            the target's.
        num_decoder_layers: None means `num_layers`.
        tie_embeddings: Whether logits are scored against the target's table.
        max_sequence_length: Tokens of a source, and of a target, at most. The LSTM itself has no
            limit; a server needs one.
        dropout: After the embeddings, between the layers and after the last, in [0, 1).
        attention_dropout: Of the attention weights.
        dtype: Policy of all layers.
        **kwargs: Of `keras_hub.models.Backbone`.

    Inputs, outputs and attributes:
        See `Seq2SeqBackbone`.

    Raises:
        UserError: a size is none, or `hidden_dim` is odd.

    Source:
        See `AttentiveLSTM` and `BidirectionalLSTM`.
    """

    def __init__(  # noqa: PLR0913 - the sizes of a model
        self,
        vocabulary_size,
        num_layers,
        hidden_dim,
        num_heads=1,
        source_vocabulary_size=None,
        num_decoder_layers=None,
        tie_embeddings=True,
        max_sequence_length=512,
        dropout=0.0,
        attention_dropout=0.0,
        dtype=None,
        **kwargs,
    ):
        shared = source_vocabulary_size is None
        if num_decoder_layers is None:
            num_decoder_layers = num_layers
        require_sizes(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            num_heads=num_heads,
            source_vocabulary_size=vocabulary_size if shared else source_vocabulary_size,
            num_decoder_layers=num_decoder_layers,
            max_sequence_length=max_sequence_length,
        )
        require_even(hidden_dim)

        def embedding(size, tied, name):
            return TokenEmbedding(
                size,
                hidden_dim,
                tied=tied,
                embeddings_initializer=Normal(0.05),
                dtype=dtype,
                name=name,
            )

        # === Layers ===
        self.token_embedding = embedding(vocabulary_size, tie_embeddings, "token_embedding")
        self.source_embedding = (
            self.token_embedding
            if shared
            else embedding(source_vocabulary_size, True, "source_embedding")
        )
        self.embedding_dropout = Dropout(dropout, dtype=dtype, name="embedding_dropout")
        self.encoder = BidirectionalLSTM(
            num_layers, hidden_dim, dropout=dropout, dtype=dtype, name="encoder"
        )
        self.memory_norm = LayerNormalization(epsilon=1e-5, dtype=dtype, name="memory_norm")
        self.decoder = AttentiveLSTM(
            num_decoder_layers,
            hidden_dim,
            num_heads=num_heads,
            dropout=dropout,
            attention_dropout=attention_dropout,
            dtype=dtype,
            name="decoder",
        )
        self.output_dropout = Dropout(dropout, dtype=dtype, name="output_dropout")

        # === Functional model ===
        inputs = seq2seq_inputs()
        source, target = inputs["encoder_padding_mask"], inputs["decoder_padding_mask"]
        memory = self.encode(inputs["encoder_token_ids"], source)
        hidden, _ = self.decoder(
            self._embed(self.token_embedding, inputs["decoder_token_ids"]),
            memory,
            memory_mask=PairMask(name="pair_mask")(target, source),
            starts=starts_of(target),
        )
        hidden = self.output_dropout(hidden)
        outputs = {"encoder_sequence_output": memory, "decoder_sequence_output": hidden}
        super().__init__(inputs=inputs, outputs=outputs, dtype=dtype, **kwargs)

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.hidden_dim = hidden_dim
        self.num_heads = num_heads
        self.shares_vocabulary = shared
        self.source_vocabulary_size = vocabulary_size if shared else source_vocabulary_size
        self.num_decoder_layers = num_decoder_layers
        self.tie_embeddings = tie_embeddings
        self.max_sequence_length = max_sequence_length
        self.dropout = dropout
        self.attention_dropout = attention_dropout

    def _embed(self, embedding, token_ids):
        return self.embedding_dropout(embedding(token_ids))

    def logits(self, hidden):
        """float32[..., v] of the decoder's hidden states float[..., m]."""
        return self.token_embedding(hidden, reverse=True)

    def scored_by(self, hidden):
        """As of `Seq2SeqBackbone`."""
        return hidden, self.token_embedding.output_embeddings, None

    def encode(self, token_ids, pairs):
        """float[b, s, m], what the decoder looks at, of int32[b, s] twice; `pairs` 0 = padding."""
        x = self.encoder(self._embed(self.source_embedding, token_ids), pairs)
        return self.output_dropout(self.memory_norm(x))

    def project(self, memory):
        """What the decoder looks at, computed once: a list of one `KVCache` of float[b, s, m]."""
        return [self.decoder.attention.project(memory)]

    def decode(self, token_ids, memories, memory_mask):
        """One pass over whole targets, one in each row: as of `Seq2SeqBackbone`."""
        return self._read(token_ids, memories, unseen(memory_mask))[0]

    obeys_lengths = True  # of `NewTokens`

    def begin(self, prompt, lengths, memories, memory_mask):
        """As of `Seq2SeqBackbone`, but all but the last tokens are read at once."""
        before, scores = lengths - 1, unseen(memory_mask)
        _, states = self._read(prompt, memories, scores, lengths=before)
        last = tf.gather(prompt, before[:, None], batch_dims=1)
        return Beginning(last, before, DecoderState(branches(states), tuple(memories), scores))

    def grow(self, state, entries, length):  # noqa: ARG002 - the state has one size
        """As of `Seq2SeqBackbone`."""
        return state

    def step(self, new: NewTokens, state):
        """Reads new tokens: as of `Seq2SeqBackbone`."""
        rows = tf.shape(new.token_ids)[0]
        token_ids = new.token_ids if new.lengths is not None else tf.reshape(new.token_ids, [-1, 1])
        x, states = self._read(
            token_ids,
            state.memories,
            state.memory_scores,
            states=of_parents(state.written, new),
            lengths=new.lengths,
        )
        x = tf.reshape(x, [-1, self.hidden_dim])
        return x, state._replace(written=branches(states, rows))

    def _read(self, token_ids, memories, scores, **state):
        x = self._embed(self.token_embedding, token_ids)
        return self.decoder(x, *memories, memory_mask=scores, **state)

    def get_config(self):
        names = (
            "vocabulary_size", "num_layers", "hidden_dim", "num_heads", "num_decoder_layers",
            "tie_embeddings", "max_sequence_length", "dropout", "attention_dropout",
        )  # fmt: skip
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
            "source_vocabulary_size": (
                None if self.shares_vocabulary else self.source_vocabulary_size
            ),
        }


@keras.saving.register_keras_serializable("tfllm")
class LSTMSeq2SeqLMPreprocessor(Seq2SeqLMPreprocessor):
    """`Seq2SeqLMPreprocessor` by which KerasHub finds the one for `LSTMSeq2SeqBackbone`."""

    backbone_cls = LSTMSeq2SeqBackbone


@keras.saving.register_keras_serializable("tfllm")
class LSTMSeq2SeqLM(Seq2SeqLM):
    """LSTMs that write a target after reading a source; see `Seq2SeqLM`."""

    backbone_cls = LSTMSeq2SeqBackbone
    preprocessor_cls = LSTMSeq2SeqLMPreprocessor

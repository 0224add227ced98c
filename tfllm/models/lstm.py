"""The recurrent baseline: Embedding, LSTM, Dense."""

import keras
import keras_hub
import tensorflow as tf

from tfllm.decoding import Beginning, NewTokens
from tfllm.layers import Dropout, Normal, StackedLSTM, TokenEmbedding, starts_of
from tfllm.models.branches import branches, of_parents
from tfllm.models.causal_lm import CausalLM
from tfllm.models.preprocessor import CausalLMPreprocessor, language_model_inputs
from tfllm.models.sizes import require_sizes


@keras.saving.register_keras_serializable("tfllm")
class LSTMBackbone(keras_hub.models.Backbone):
    """Token ids to hidden states; the state is forgotten where a document begins.

    Args:
        vocabulary_size: v.
        num_layers: Number of LSTM layers.
        hidden_dim: m, the width of embeddings and layers.
        max_sequence_length: Tokens of a prompt and its continuation at most. The LSTM itself has
            no limit; a server needs one.
        tie_embeddings: Whether the output layer is the embedding table.
        dropout: Fraction dropped after the embeddings, between the layers and after the last, in
            [0, 1).
        dtype: Policy of all layers.

    Inputs (a dict):
        token_ids: int32[b, t].
        segment_ids: int32[b, t], the document of each token, from 1; 0 = padding.
        positions: int32[b, t]; not looked at, so that one dataset serves all language models.

    Output:
        float[b, t, m].

    Source:
        Zaremba et al. 2014, https://arxiv.org/abs/1409.2329; tied embeddings, Press and Wolf 2017,
        https://arxiv.org/abs/1608.05859
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        hidden_dim,
        max_sequence_length=1024,
        tie_embeddings=True,
        dropout=0.0,
        dtype=None,
        **kwargs,
    ):
        require_sizes(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            max_sequence_length=max_sequence_length,
        )

        # === Layers ===
        self.token_embedding = TokenEmbedding(
            vocabulary_size,
            hidden_dim,
            tied=tie_embeddings,
            embeddings_initializer=Normal(0.05),
            dtype=dtype,
            name="token_embedding",
        )
        self.embedding_dropout = Dropout(dropout, dtype=dtype, name="embedding_dropout")
        self.lstm = StackedLSTM(num_layers, hidden_dim, dropout=dropout, dtype=dtype, name="lstm")
        self.output_dropout = Dropout(dropout, dtype=dtype, name="output_dropout")

        # === Functional model ===
        inputs = language_model_inputs()
        x = self.embedding_dropout(self.token_embedding(inputs["token_ids"]))
        x, *_ = self.lstm(x, starts=starts_of(inputs["segment_ids"]))
        super().__init__(inputs=inputs, outputs=self.output_dropout(x), dtype=dtype, **kwargs)

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.hidden_dim = hidden_dim
        self.max_sequence_length = max_sequence_length
        self.tie_embeddings = tie_embeddings
        self.dropout = dropout

    obeys_lengths = True  # of `NewTokens`

    def begin(self, prompt, lengths):
        """As of `tfllm.decoding.Decodable`: all but the last tokens are read at once."""
        before = lengths - 1
        _, states = self.lstm(self.token_embedding(prompt), lengths=before)
        last = tf.gather(prompt, before[:, None], batch_dims=1)
        return Beginning(last, before, branches(states))

    def grow(self, states, entries, length):  # noqa: ARG002 - the state has one size
        """As of `tfllm.decoding.Decodable`."""
        return states

    def step(self, new: NewTokens, states):
        """Reads new tokens: as of `tfllm.decoding.Decodable`, but

        Returns:
            float[b * n, m], their hidden states; and the states.
        """
        rows = tf.shape(new.token_ids)[0]
        token_ids = new.token_ids if new.lengths is not None else tf.reshape(new.token_ids, [-1, 1])
        x = self.token_embedding(token_ids)
        x, states = self.lstm(x, of_parents(states, new), lengths=new.lengths)
        return tf.reshape(x, [-1, self.hidden_dim]), branches(states, rows)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "hidden_dim": self.hidden_dim,
            "max_sequence_length": self.max_sequence_length,
            "tie_embeddings": self.tie_embeddings,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable("tfllm")
class LSTMCausalLMPreprocessor(CausalLMPreprocessor):
    """`CausalLMPreprocessor` by which KerasHub finds the one for `LSTMBackbone`."""

    backbone_cls = LSTMBackbone


@keras.saving.register_keras_serializable("tfllm")
class LSTMCausalLM(CausalLM):
    """An LSTM that predicts the next token; see `CausalLM`."""

    backbone_cls = LSTMBackbone
    preprocessor_cls = LSTMCausalLMPreprocessor

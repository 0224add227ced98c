"""word2vec: a vector per word, learned from the words that stand around it."""

import keras
import keras_hub
import numpy as np
import tensorflow as tf
from keras import ops

from tfllm import contract
from tfllm.calls import EmbedderCalls
from tfllm.errors import UserError
from tfllm.layers import TokenEmbedding
from tfllm.models.task import Task, require_no_smoothing
from tfllm.models.text_functions import TextFunctions, first_error
from tfllm.tokenizers.whole_words import WordTokenizer

_EPSILON = 1e-12
_UNKNOWN = "no word of the text is in the vocabulary"


@keras.saving.register_keras_serializable("tfllm")
class SkipGramBackbone(keras_hub.models.Backbone):
    """Two tables of vectors: of words, and of words as the neighbours of others.

    Args:
        vocabulary_size: v.
        hidden_dim: m, the length of a vector.

    Call arguments:
        inputs: A dict of int32, as `SkipGram` of `tfllm.data.objectives` makes them: `centers`
            [b, k, c], `contexts` [b, k, j] and `negatives` [b, n].

    Returns:
        A dict of their vectors, float[..., m]: those of the centers from the first table, of the
        others from the second.
    """

    def __init__(self, vocabulary_size, hidden_dim=100, dtype=None, **kwargs):
        # As word2vec.c begins: the first small and random, the second zeros.
        start = keras.initializers.RandomUniform(-0.5 / hidden_dim, 0.5 / hidden_dim)
        self.token_embedding = TokenEmbedding(
            vocabulary_size,
            hidden_dim,
            embeddings_initializer=start,
            dtype=dtype,
            name="token_embedding",
        )
        self.context_embedding = TokenEmbedding(
            vocabulary_size,
            hidden_dim,
            embeddings_initializer="zeros",
            dtype=dtype,
            name="context_embedding",
        )
        inputs = {
            "centers": keras.Input((None, None), dtype="int32", name="centers"),
            "contexts": keras.Input((None, None), dtype="int32", name="contexts"),
            "negatives": keras.Input((None,), dtype="int32", name="negatives"),
        }
        outputs = {
            "centers": self.token_embedding(inputs["centers"]),
            "contexts": self.context_embedding(inputs["contexts"]),
            "negatives": self.context_embedding(inputs["negatives"]),
        }
        super().__init__(inputs=inputs, outputs=outputs, dtype=dtype, **kwargs)
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "hidden_dim": self.hidden_dim,
        }


@keras.saving.register_keras_serializable("tfllm")
class SkipGramPreprocessor(keras_hub.models.Preprocessor):
    """Holds the words; a skip-gram is trained on prepared data alone.

    Args:
        tokenizer: A `WordTokenizer`.

    Raises:
        UserError: when texts are given to it.
    """

    backbone_cls = SkipGramBackbone
    tokenizer_cls = WordTokenizer

    def __init__(self, tokenizer, **kwargs):
        super().__init__(**kwargs)
        self.tokenizer = tokenizer
        self.built = True

    def call(self, x, y=None, sample_weight=None):  # noqa: ARG002 - Keras calls it so
        raise UserError(
            "A skip-gram is trained on prepared words (`tfllm prepare --task skip_gram`, then "
            "`tfllm train`), not on texts; `embed` takes texts."
        )


@keras.saving.register_keras_serializable("tfllm")
class SkipGram(Task, EmbedderCalls, keras_hub.models.Task):
    """Vectors of words, by skip-gram with negative sampling.

    Trains with plain `compile` and `fit` on batches of the objective `SkipGram`. With
    `loss="auto"` the loss is, per pair of a word and its neighbour, in nats: -log sigmoid of their
    score, and -log sigmoid of minus the score for each counterexample, by its weight. The score is
    the product of the two vectors.

    Args:
        backbone: A `SkipGramBackbone`.
        preprocessor: A `SkipGramPreprocessor`; None when only token ids are used.
        seed: Not used; every task has it.

    Call arguments:
        inputs: The backbone's inputs.

    Returns:
        The scores, a dict of float32: `contexts` [b, k, c, j] and `negatives` [b, k, c, n].

    Source:
        Mikolov et al. 2013, https://arxiv.org/abs/1310.4546, equation 4.
    """

    backbone_cls = SkipGramBackbone
    preprocessor_cls = SkipGramPreprocessor

    def __init__(self, backbone, preprocessor=None, seed=0, **kwargs):
        self._set_up(backbone, preprocessor, seed)
        inputs = backbone.input
        super().__init__(
            inputs=inputs, outputs=PairScores(name="scores")(backbone(inputs)), **kwargs
        )

    @tf.autograph.experimental.do_not_convert
    def preprocess_samples(self, x, y=None, sample_weight=None):
        if isinstance(x, dict):
            return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        return super().preprocess_samples(x, y, sample_weight)

    def target_weights(self, y, weight):
        return tf.reduce_sum(y["contexts"], -1) if weight is None else weight

    def target_losses(self, y, outputs, label_smoothing=0.0):
        require_no_smoothing(label_smoothing, "A skip-gram")
        total = tf.reduce_sum(y["contexts"] * tf.nn.softplus(-outputs["contexts"]), -1)
        total += tf.reduce_sum(y["negatives"] * tf.nn.softplus(outputs["negatives"]), -1)
        return tf.math.divide_no_nan(total, tf.reduce_sum(y["contexts"], -1))

    @property
    def words(self) -> list[str]:
        """The vocabulary, the most frequent word first."""
        return self._tokenizer().get_vocabulary()

    @property
    def word_vectors(self) -> np.ndarray:
        """float32[v, m], the vector of each of `words` as it was learned."""
        table = self.backbone.token_embedding.embeddings
        return ops.convert_to_numpy(table).astype(np.float32)

    def neighbours(self, word: str, k: int = 10) -> list[tuple[str, float]]:
        """The words whose vectors have the greatest cosine with that of a word.

        Args:
            word: One word, in any of its forms.
            k: How many to return, at most.

        Returns:
            (word, cosine), the greatest first, without the word itself.

        Raises:
            UserError: it is not one word of the vocabulary, or `k` is below 1.
        """
        ids = self._tokenizer().encode(word)
        if len(ids) != 1 or k < 1:
            raise UserError(
                f"neighbours takes one word of the vocabulary and k of at least 1, got {word!r} "
                f"({len(ids)} known words) and {k}."
            )
        vectors = self.word_vectors
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _EPSILON)
        cosines = vectors @ vectors[ids[0]]
        cosines[ids[0]] = -np.inf
        best = np.argsort(-cosines, kind="stable")[: min(k, len(cosines) - 1)]
        return [(self.words[i], float(cosines[i])) for i in best]

    def text(self, **options):
        return SkipGramText(self, self._tokenizer(), **options)


@keras.saving.register_keras_serializable("tfllm")
class PairScores(keras.layers.Layer):
    """Products of the centers' vectors with those around and with the row's counterexamples.

    Call arguments:
        vectors: What `SkipGramBackbone` returns.

    Returns:
        A dict of float32: `contexts` [b, k, c, j] and `negatives` [b, k, c, n].
    """

    def call(self, vectors):
        centers, contexts, negatives = (
            vectors[name] for name in ("centers", "contexts", "negatives")
        )
        negatives = ops.transpose(negatives, (0, 2, 1))[:, None]  # [b, 1, m, n]
        around = ops.matmul(centers, ops.transpose(contexts, (0, 1, 3, 2)))
        return {
            "contexts": ops.cast(around, "float32"),
            "negatives": ops.cast(ops.matmul(centers, negatives), "float32"),
        }


class SkipGramText(TextFunctions):
    """The signatures of `contract.EMBEDDER_SIGNATURES`."""

    task = "word_embedder"
    signatures = contract.EMBEDDER_SIGNATURES

    def __init__(self, model, tokenizer):
        size = model.backbone.vocabulary_size
        if not isinstance(tokenizer, WordTokenizer) or tokenizer.vocabulary_size() > size:
            raise UserError(
                f"A skip-gram of {size} words needs a WordTokenizer of at most so many, got a "
                f"{type(tokenizer).__name__} of {tokenizer.vocabulary_size()}."
            )
        super().__init__(model, tokenizer)

    def embed(self, text):
        """See `contract.SIGNATURES`. Of several words it is the direction of their mean."""
        ids = self.tokenizer.tokenize(text)
        table = self.model.backbone.token_embedding
        vectors = ids.with_values(tf.cast(table(ids.values), tf.float32))
        total = tf.reduce_sum(vectors, 1)
        length = tf.norm(total, axis=-1, keepdims=True)
        return {
            "embedding": total / tf.maximum(length, _EPSILON),
            "error": first_error([(ids.row_lengths() == 0, _UNKNOWN)]),
        }

    def requests(self):
        some = self.some_text()
        texts = ["", some, some.split(" ")[0], f"?! {some}"]
        return [
            (contract.SERVING_DEFAULT, {"text": texts}),
            (contract.EMBED, {"text": texts}),
            *super().requests(),
        ]

    def metadata(self):
        return {"embedding_dim": self.model.backbone.hidden_dim}

"""The two faces of every tokenizer: Python for preparing data, the graph for models and serving."""

import json
import os
import tempfile
from collections.abc import Iterable
from itertools import pairwise

import keras
import keras_hub
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.utf8 import valid_utf8, valid_utf8_in_graph


class Tokenizer(keras_hub.tokenizers.Tokenizer):
    """What all tokenizers share: the verbs, ids back to text, saving and loading.

    Python face: `encode`, `encode_batch`, `decode`. Graph face: `tokenize`, `detokenize`. Both
    give the same ids and the same text, add no special tokens and hold no state, so they may be
    used from several threads. Invalid UTF-8 is read as U+FFFD (`tfllm.tokenizers.utf8`).

    A subclass gives

        tokenize_rows(texts)   string[b] to ragged int32[b, None], by operations of the stock
                               server: those of TensorFlow and of TF-Text
        token_bytes()          list of bytes, one per id: what the id adds to the bytes of a
                               text, b"" for control pieces
        pad_id, unk_id, bos_id, eos_id

    and, as for any tokenizer of KerasHub, `vocabulary_size`, `get_vocabulary`, `id_to_token`,
    `token_to_id`, `file_assets`, `save_assets`, `load_assets`. If its text needs more than repair
    after the tokens' bytes are joined, it extends `finish_bytes` and `finish_text`.
    """

    # The names under which KerasHub's own preprocessors ask for the special ids.
    pad_token_id = property(lambda self: self.pad_id)
    start_token_id = property(lambda self: self.bos_id)
    end_token_id = property(lambda self: self.eos_id)

    def encode(self, text: str | bytes) -> list[int]:
        """The token ids of one text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Iterable[str | bytes]) -> list[list[int]]:
        """The token ids of each text.

        They come from the operation that serves: a second implementation would differ where two
        segmentations are equally likely (a run of spaces, under SentencePiece's unigram model).
        """
        rows = [valid_utf8(text).encode() for text in texts]
        with tf.init_scope():
            ragged = self.tokenize_rows(tf.constant(rows, tf.string, shape=[len(rows)]))
        token_ids, splits = ragged.values.numpy().tolist(), ragged.row_splits.numpy().tolist()
        return [token_ids[start:end] for start, end in pairwise(splits)]

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of the ids; ids outside the vocabulary add nothing."""
        table = self.token_bytes()
        return self.finish_bytes(b"".join(table[i] for i in token_ids if 0 <= i < len(table)))

    def finish_bytes(self, raw: bytes) -> str:
        """The text of joined `token_bytes`: valid UTF-8, whatever the ids were."""
        return valid_utf8(raw)

    def finish_text(self, raw: tf.Tensor) -> tf.Tensor:
        """`finish_bytes` in the graph, for each string of string[...]."""
        return valid_utf8_in_graph(raw)

    def tokenize(self, inputs) -> tf.RaggedTensor | tf.Tensor:
        """Token ids of texts.

        Args:
            inputs: string[b], or a scalar.

        Returns:
            int32[b, None], ragged; int32[None] for a scalar.
        """
        texts = tf.convert_to_tensor(inputs, tf.string)
        if texts.shape.rank not in (0, 1):
            raise UserError(f"tokenize takes a string or string[b]; got shape {texts.shape}.")
        token_ids = self.tokenize_rows(tf.reshape(texts, [-1]))
        return token_ids if texts.shape.rank else token_ids.values

    def detokenize(self, inputs) -> tf.Tensor:
        """Texts of token ids, always valid UTF-8.

        Args:
            inputs: int[b, t] or int[t], dense or ragged. An id that is negative or beyond the
                vocabulary adds nothing, so rows may be padded with -1.

        Returns:
            string[b], or a scalar for int[t].
        """
        table = tf.constant([*self.token_bytes(), b""])  # the last one is for ids that are none
        token_ids = inputs
        if not isinstance(inputs, tf.RaggedTensor):
            token_ids = tf.convert_to_tensor(inputs, dtype_hint=tf.int32)

        def gather(ids):
            none = tf.cast(self.vocabulary_size(), ids.dtype)
            return tf.gather(table, tf.where((ids >= 0) & (ids < none), ids, none))

        pieces = tf.ragged.map_flat_values(gather, token_ids)
        return self.finish_text(tf.strings.reduce_join(pieces, axis=-1))

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the tokenizer into a new folder, for `tfllm.tokenizers.load_tokenizer`.

        The folder appears complete or not at all. Its layout is that of a KerasHub preset, so a
        preset of a model with this tokenizer can be loaded in the same way.

        Raises:
            UserError: if the folder exists.
        """
        folder = os.path.abspath(folder)
        if os.path.exists(folder):
            raise UserError(f"{folder} exists: remove it, or save the tokenizer elsewhere.")
        parent = os.path.dirname(folder)
        os.makedirs(parent, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tokenizer-", dir=parent) as aside:
            written = os.path.join(aside, "tokenizer")
            self.save_to_preset(written)
            os.rename(written, folder)

    @classmethod
    def from_preset(cls, preset, config_file="tokenizer.json", **kwargs):
        """The tokenizer of a local preset folder, or of one written by `save`.

        Unlike KerasHub's, it needs no model in the folder: these tokenizers belong to no one
        backbone.

        Args:
            preset: Path of the folder.
            config_file: Name of the tokenizer's configuration in it.
            **kwargs: Override entries of that configuration.

        Raises:
            UserError: if the folder holds no tokenizer of this class.
        """
        path = os.path.join(preset, config_file)
        try:
            with open(path, encoding="utf-8") as file:
                config = json.load(file)
            found = keras.saving.get_registered_object(config["registered_name"])
        except OSError as error:
            raise UserError(
                f"{preset} holds no tokenizer: cannot read {path} ({error.strerror})."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not the configuration of a tokenizer.") from error
        if not (isinstance(found, type) and issubclass(found, cls)):
            raise UserError(
                f"{path} describes a {config['registered_name']}; expected a {cls.__name__}."
            )
        tokenizer = found.from_config({**config["config"], **kwargs})
        tokenizer.load_assets(os.path.join(preset, "assets", config_file.removesuffix(".json")))
        return tokenizer

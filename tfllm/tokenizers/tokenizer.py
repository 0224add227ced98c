"""The two faces of every tokenizer: Python for preparing data, the graph for models and serving."""

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from itertools import pairwise

import keras
import keras_hub
import tensorflow as tf

from tfllm.aside import install, make_folder
from tfllm.chat import ChatTemplate
from tfllm.errors import UserError
from tfllm.tokenizers.added_tokens import AddedToken, tokenize_around
from tfllm.tokenizers.byte_table import ByteTable
from tfllm.tokenizers.utf8 import valid_utf8, valid_utf8_in_graph


class Tokenizer(keras_hub.tokenizers.Tokenizer):
    """What all tokenizers share: the verbs, ids back to text, saving and loading.

    Python face: `encode`, `encode_batch`, `decode`. Graph face: `tokenize`, `detokenize`. Both
    give the same ids and the same text, add no special tokens and hold no state, so they may be
    used from several threads. Invalid UTF-8 is read as U+FFFD (`tfllm.tokenizers.utf8`).

    A subclass gives

        tokenize_rows(texts)   string[b], valid UTF-8, to ragged int32[b, None], by operations of
                               the stock server: those of TensorFlow and of TF-Text
        token_bytes()          list of bytes, one per id: what the id adds to the bytes of a
                               text, b"" for control pieces
        pad_id, unk_id, bos_id, eos_id

    and, as for any tokenizer of KerasHub, `vocabulary_size`, `get_vocabulary`, `id_to_token`,
    `token_to_id`, `file_assets`, `save_assets`, `load_assets`. If a whole text is not what its
    tokens' bytes make when joined, it extends `finish_whole_bytes` and `finish_whole_text`.

    Args:
        added_tokens: Strings that are one token each wherever they stand in a text, before the
            rest is read: `AddedToken`s, or sequences of their fields.
        begins_with_bos: Whether a language model reads `bos_id` before each prompt; if not, it
            does so only where the prompt is empty.
        chat_template: How conversations are written for the model: a `ChatTemplate` or the dict
            of one; None = it was not made for any.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(self, added_tokens=(), begins_with_bos=True, chat_template=None, **kwargs):
        super().__init__(**kwargs)
        self.built = True  # else Keras traces a model once more for each `fit` under a strategy
        self._added_tokens = tuple(AddedToken(*token) for token in added_tokens)
        self.begins_with_bos = begins_with_bos
        self.chat_template = chat_template

    @property
    def added_tokens(self) -> tuple[AddedToken, ...]:
        """Strings that are recognised in a text."""
        return self._added_tokens

    @property
    def chat_template(self) -> ChatTemplate | None:
        """How conversations are written.

        It leaves off a bos that the model gets in any case, and takes every special token of the
        tokenizer out of what people write.
        """
        template = self._chat_template
        if template is None:
            return None
        hidden = (token.text for token in self.added_tokens if token.hidden and token.text.strip())
        special = tuple(dict.fromkeys([*template.special_tokens, *hidden]))
        return dataclasses.replace(template, special_tokens=special)

    @chat_template.setter
    def chat_template(self, value):
        template = ChatTemplate.of(value)
        if template is not None:
            template = dataclasses.replace(template, begins_with_bos=self.begins_with_bos)
        self._chat_template = template

    def with_added_tokens(self, texts: Iterable[str]) -> "Tokenizer":
        """A tokenizer to which each of the texts is one token, of an id behind all others.

        It is for a model that is yet to be made; one that exists has no rows for them.

        Args:
            texts: Such as the special tokens of a chat template; those that are added tokens
                already stay as they are.
        """
        there = {token.text for token in self.added_tokens}
        new = [text for text in dict.fromkeys(texts) if text not in there]
        added = [AddedToken(text, self.vocabulary_size() + i) for i, text in enumerate(new)]
        config = self.get_config() | {
            "added_tokens": [list(token) for token in (*self.added_tokens, *added)]
        }
        made = type(self).from_config(config)
        with tempfile.TemporaryDirectory() as folder:
            self.save_assets(folder)
            made.load_assets(folder)
        return made

    def get_config(self):
        template = self.chat_template
        return {
            **super().get_config(),
            "added_tokens": [list(token) for token in self.added_tokens],
            "begins_with_bos": self.begins_with_bos,
            "chat_template": None if template is None else template.as_dict(),
        }

    # The names under which KerasHub's own preprocessors ask for the special ids.
    pad_token_id = property(lambda self: self.pad_id)
    start_token_id = property(lambda self: self.bos_id)
    end_token_id = property(lambda self: self.eos_id)

    @property
    def padding_id(self) -> int:
        """What fills short rows: where no piece is made for it another one, as nothing reads it."""
        return next((i for i in (self.pad_id, self.eos_id) if i >= 0), 0)

    def encode(self, text: str | bytes) -> list[int]:
        """The token ids of one text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Iterable[str | bytes]) -> list[list[int]]:
        """The token ids of each text.

        They come from the operation that serves: a second implementation would differ where two
        segmentations are equally likely (a run of spaces, under SentencePiece's unigram model).
        """
        return self._run_on(texts, self._token_ids)

    def _run_on(self, texts, token_ids_of):
        rows = [valid_utf8(text).encode() for text in texts]
        with tf.init_scope():
            ragged = token_ids_of(tf.constant(rows, tf.string, shape=[len(rows)]))
        token_ids, splits = ragged.values.numpy().tolist(), ragged.row_splits.numpy().tolist()
        return [token_ids[start:end] for start, end in pairwise(splits)]

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of the ids; ids outside the vocabulary add nothing."""
        return self.finish_whole_bytes(self.join(self.token_bytes(), token_ids))

    def join(self, table: Sequence[bytes], token_ids: Iterable[int]) -> bytes:
        """The entries of the ids in a table of the vocabulary, joined."""
        return b"".join(table[i] for i in token_ids if 0 <= i < len(table))

    def finish_bytes(self, raw: bytes) -> str:
        """Valid UTF-8 of joined `token_bytes`, which begin and end anywhere in a text."""
        return valid_utf8(raw)

    def finish_text(self, raw: tf.Tensor) -> tf.Tensor:
        """`finish_bytes` in the graph, for each string of string[...]."""
        return valid_utf8_in_graph(raw)

    def finish_whole_bytes(self, raw: bytes) -> str:
        """The text that `decode` gives for ids whose `token_bytes`, joined, are `raw`.

        It is for texts that begin where a decoder begins, cut at their end or not; what continues
        a prompt is for `finish_bytes`. The two differ where the first token of a text is written
        with a space that is not part of it.
        """
        return self.finish_bytes(raw)

    def finish_whole_text(self, raw: tf.Tensor) -> tf.Tensor:
        """`finish_whole_bytes` in the graph, for each string of string[...]."""
        return self.finish_text(raw)

    def tokenize(self, inputs) -> tf.RaggedTensor | tf.Tensor:
        """Token ids of texts.

        Args:
            inputs: string[b], or a scalar.

        Returns:
            int32[b, None], ragged; int32[None] for a scalar.
        """
        return self._run_in_graph(inputs, self._token_ids)

    def tokenize_target(self, inputs) -> tf.RaggedTensor | tf.Tensor:
        """`tokenize` of what a translation model writes, which may have other pieces."""
        return self.tokenize(inputs)

    def source_vocabulary_size(self) -> int:
        """`vocabulary_size` of what a translation model reads."""
        return self.vocabulary_size()

    def _run_in_graph(self, inputs, token_ids_of):
        texts = tf.convert_to_tensor(inputs, tf.string)
        if texts.shape.rank not in (0, 1):
            raise UserError(f"tokenize takes a string or string[b]; got shape {texts.shape}.")
        token_ids = token_ids_of(valid_utf8_in_graph(tf.reshape(texts, [-1])))
        return token_ids if texts.shape.rank else token_ids.values

    def _token_ids(self, texts):
        return tokenize_around(self.added_tokens, texts, self.tokenize_rows)

    def detokenize(self, inputs) -> tf.Tensor:
        """Texts of token ids, always valid UTF-8.

        Args:
            inputs: int[b, t] or int[t], dense or ragged. An id that is negative or beyond the
                vocabulary adds nothing, so rows may be padded with -1.

        Returns:
            string[b], or a scalar for int[t].
        """
        return self.finish_whole_text(self.join_in_graph(self.token_bytes(), inputs))

    def join_in_graph(self, table: Sequence[bytes], token_ids) -> tf.Tensor:
        """`join` of each row of `token_ids`, which are as `detokenize` takes them."""
        entries = ByteTable(table)
        if not isinstance(token_ids, tf.RaggedTensor):
            token_ids = tf.convert_to_tensor(token_ids, dtype_hint=tf.int32)
        entries = tf.ragged.map_flat_values(entries.look_up, token_ids)
        return tf.strings.reduce_join(entries, axis=-1)

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the tokenizer into a new folder, for `tfllm.tokenizers.load_tokenizer`.

        The folder appears complete or not at all. Its layout is that of a KerasHub preset, so a
        preset of a model with this tokenizer can be loaded in the same way.

        Raises:
            UserError: if the folder exists, or cannot be made.
        """
        folder = os.path.abspath(folder)
        if os.path.exists(folder):
            raise UserError(f"{folder} exists: remove it, or save the tokenizer elsewhere.")
        parent = make_folder(os.path.dirname(folder))
        with tempfile.TemporaryDirectory(prefix=".tokenizer-", dir=parent) as aside:
            written = os.path.join(aside, "tokenizer")
            self.save_to_preset(written)
            install(written, folder)

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

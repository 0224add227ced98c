"""SentencePiece models: our own, which keep every text exactly, and foreign ones."""

import os
import re
from collections.abc import Iterable

import keras
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.added_tokens import part_at_added
from tfllm.tokenizers.spm import SPACE, SpmModel
from tfllm.tokenizers.tokenizer import Tokenizer

_ASSET = "vocabulary.spm"


@keras.saving.register_keras_serializable("tfllm")
class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece tokenizer (unigram or BPE).

    Models of `train_sentencepiece` give back every valid text exactly. A foreign model gives the
    ids and the text that SentencePiece itself (0.2.2 and later) gives, with its normalization,
    its "▁" for a space and its dummy prefix, but for two things: unigram models with symbols
    defined by users may choose another one of equally likely segmentations, and incomplete UTF-8
    is one U+FFFD per maximal ill-formed part. Which of the two it is, is in the model file: ours
    has `escape_whitespaces` off, so a space is a space and "▁" is a character like others.

    `decode` and `detokenize` take whole texts, from which they take the dummy prefix; the joined
    `token_bytes` of a continuation keep the space that it begins with.

    Added tokens may have ids of the model's pieces or ids beyond them; those decide what the
    piece adds to a text.

    The configuration holds no vocabulary: it is saved and loaded as an asset.

    Args:
        proto: The serialized model, or the path of its file. None for a tokenizer whose
            `load_assets` is called later.
        loses_one_space: Whether a whole text loses one space at its beginning, whatever made it,
            as `transformers` decodes; if not, `decode` is SentencePiece's, which keeps the space
            of a byte or of the unknown piece, and `finish_whole_text`, which cannot tell them
            from others, takes any.
        prefix_once: Whether the dummy prefix is put before a text only, unless it begins with a
            space or an added token, as `transformers` has it for Llama; if not, it is put before
            the text after an added token as well, as SentencePiece would.
        dtype: Of the layer; the ids are int32.
        **kwargs: Of `Tokenizer`.

    Raises:
        UserError: if the file cannot be read or is no SentencePiece model.

    Source:
        Kudo and Richardson 2018, https://arxiv.org/abs/1808.06226
    """

    def __init__(
        self,
        proto: bytes | str | os.PathLike | None = None,
        *,
        loses_one_space: bool = False,
        prefix_once: bool = False,
        dtype="int32",
        **kwargs,
    ):
        super().__init__(dtype=dtype, **kwargs)
        self.file_assets = [_ASSET]
        self.loses_one_space = loses_one_space
        self.prefix_once = prefix_once
        self._loaded = None
        if proto is not None:
            self._loaded = SpmModel(proto) if isinstance(proto, bytes) else SpmModel.read(proto)

    def get_config(self):
        return {
            **super().get_config(),
            "loses_one_space": self.loses_one_space,
            "prefix_once": self.prefix_once,
        }

    @property
    def _model(self) -> SpmModel:
        if self._loaded is None:
            raise UserError("This tokenizer has no model yet: give `proto`, or call load_assets.")
        return self._loaded

    @property
    def proto(self) -> bytes:
        """The serialized model."""
        return self._model.proto

    def tokenize_rows(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return self._model.tokenize(texts)

    def _token_ids(self, texts):
        if not self.prefix_once:
            return super()._token_ids(texts)
        parts = part_at_added(self.added_tokens, texts)
        begins = tf.scatter_nd(
            parts.row_splits[:-1, None],
            tf.ones_like(texts, tf.bool),
            tf.shape(parts.texts, tf.int64),
        )
        lacks = tf.strings.regex_full_match(parts.texts, f"(?s)[^ {SPACE}].*")
        texts = tf.where(parts.is_token, "", parts.texts)
        texts = tf.where(begins & lacks, tf.strings.join([" ", texts]), texts)
        return parts.fill(self._model.unprefixed.tokenize(texts), parts.ids)

    def token_bytes(self) -> list[bytes]:
        return self._with_added(
            self._model.token_bytes, b"", lambda token: b"" if token.hidden else token.text.encode()
        )

    def _with_added(self, table, nothing, entry):
        """A table of the pieces, made a table of the vocabulary."""
        if not self.added_tokens:
            return table
        table = [*table, *[nothing] * (self.vocabulary_size() - len(table))]
        for token in self.added_tokens:
            table[token.id] = entry(token)
        return table

    def decode(self, token_ids: Iterable[int]) -> str:
        if self.loses_one_space or not self._model.opening:
            return super().decode(token_ids)
        token_ids = list(token_ids)
        raw = self.join(self.token_bytes(), token_ids)
        opening = re.match(self._model.opening, self.join(self._kinds(), token_ids))
        return self.finish_bytes(raw[opening.end() if opening else 0 :])

    def detokenize(self, inputs) -> tf.Tensor:
        if self.loses_one_space or not self._model.opening:
            return super().detokenize(inputs)
        raw = self.join_in_graph(self.token_bytes(), inputs)
        kinds = self.join_in_graph(self._kinds(), inputs)
        others = tf.strings.regex_replace(kinds, self._model.opening, "", replace_global=False)
        dropped = tf.strings.length(kinds) - tf.strings.length(others)
        return self.finish_text(tf.strings.substr(raw, dropped, tf.strings.length(raw)))

    def _kinds(self):
        return self._with_added(self._model.kinds, b"", lambda token: b"" if token.hidden else b"x")

    def finish_whole_bytes(self, raw: bytes) -> str:
        return self.finish_bytes(re.sub(self._dropped, b"", raw, count=1))

    def finish_whole_text(self, raw: tf.Tensor) -> tf.Tensor:
        shorter = tf.strings.regex_replace(raw, self._dropped, "", replace_global=False)
        return self.finish_text(shorter)

    @property
    def _dropped(self) -> bytes:
        if self.loses_one_space:
            return b"^ "
        return self._model.drops_spaces

    def get_vocabulary(self) -> list[str]:
        return self._with_added(list(self._model.pieces), "", lambda token: token.text)

    def vocabulary_size(self) -> int:
        return max(len(self._model.pieces), *(token.id + 1 for token in self.added_tokens), 0)

    def id_to_token(self, id: int) -> str:
        if not 0 <= id < self.vocabulary_size():
            raise UserError(f"A token id must be in [0, {self.vocabulary_size()}); got {id}.")
        return self.get_vocabulary()[id]

    def token_to_id(self, token: str) -> int:
        """The id of a piece or an added token, `unk_id` where there is none."""
        added = {added.text: added.id for added in self.added_tokens}
        return added.get(token, self._model.processor.piece_to_id(token))

    @property
    def pad_id(self) -> int:
        """Of padding; -1, as SentencePiece has it, where the model defines none."""
        return self._model.processor.pad_id()

    @property
    def unk_id(self) -> int:
        return self._model.processor.unk_id()

    @property
    def bos_id(self) -> int:
        """Of the beginning of a text; -1 where the model defines none."""
        return self._model.processor.bos_id()

    @property
    def eos_id(self) -> int:
        """Of the end of a text; -1 where the model defines none."""
        return self._model.processor.eos_id()

    def save_assets(self, dir_path: str) -> None:
        with open(os.path.join(dir_path, _ASSET), "wb") as file:
            file.write(self.proto)

    def load_assets(self, dir_path: str) -> None:
        self._loaded = SpmModel.read(os.path.join(dir_path, _ASSET))

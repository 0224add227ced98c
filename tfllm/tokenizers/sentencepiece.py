"""SentencePiece models: our own, which keep every text exactly, and foreign ones."""

import os
import re
from collections.abc import Iterable

import keras
import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

from tfllm.errors import UserError
from tfllm.tokenizers.tokenizer import Tokenizer

_ASSET = "vocabulary.spm"
_SPACE = "\u2581"  # what SentencePiece writes for a space, unless the model says otherwise
_Piece = ModelProto.SentencePiece

# The default level reports each loading of a model on stderr.
sentencepiece.SetMinLogLevel(1)


@keras.saving.register_keras_serializable("tfllm")
class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece tokenizer (unigram or BPE).

    Models of `train_sentencepiece` give back every valid text exactly. A foreign model gives the
    ids and the text that SentencePiece itself gives, with its normalization, its "▁" for a space
    and its dummy prefix, but for two things: between equally likely segmentations TF-Text may
    choose another one than the Python package, and incomplete UTF-8 is one U+FFFD per maximal
    ill-formed part. Which of the two it is, is in the model file: ours has `escape_whitespaces`
    off, so a space is a space and "▁" is a character like others.

    `decode` and `detokenize` take whole texts, from which they take the dummy prefix; the joined
    `token_bytes` of a continuation keep the space that it begins with.

    The configuration holds no vocabulary: it is saved and loaded as an asset.

    Args:
        proto: The serialized model, or the path of its file. None for a tokenizer whose
            `load_assets` is called later.
        dtype: Of the layer; the ids are int32.
        **kwargs: Of `keras.layers.Layer`.

    Raises:
        UserError: if the file cannot be read or is no SentencePiece model.

    Source:
        Kudo and Richardson 2018, https://arxiv.org/abs/1808.06226
    """

    def __init__(self, proto: bytes | str | os.PathLike | None = None, dtype="int32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.file_assets = [_ASSET]
        self._loaded = None
        if proto is not None:
            self._loaded = _Model(proto) if isinstance(proto, bytes) else _read(proto)

    @property
    def _model(self) -> "_Model":
        if self._loaded is None:
            raise UserError("This tokenizer has no model yet: give `proto`, or call load_assets.")
        return self._loaded

    @property
    def proto(self) -> bytes:
        """The serialized model."""
        return self._model.proto

    def tokenize_rows(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return self._model.tokenize(texts)

    def token_bytes(self) -> list[bytes]:
        return self._model.token_bytes

    def decode(self, token_ids: Iterable[int]) -> str:
        if not self._model.opening:
            return super().decode(token_ids)
        token_ids = list(token_ids)
        raw = self.join(self._model.token_bytes, token_ids)
        kinds = self.join(self._model.kinds, token_ids)
        opening = re.match(self._model.opening, kinds)
        return self.finish_bytes(raw[opening.end() if opening else 0 :])

    def detokenize(self, inputs) -> tf.Tensor:
        if not self._model.opening:
            return super().detokenize(inputs)
        raw = self.join_in_graph(self._model.token_bytes, inputs)
        kinds = self.join_in_graph(self._model.kinds, inputs)
        others = tf.strings.regex_replace(kinds, self._model.opening, "", replace_global=False)
        dropped = tf.strings.length(kinds) - tf.strings.length(others)
        return self.finish_text(tf.strings.substr(raw, dropped, tf.strings.length(raw)))

    def get_vocabulary(self) -> list[str]:
        return list(self._model.pieces)

    def vocabulary_size(self) -> int:
        return len(self._model.pieces)

    def id_to_token(self, id: int) -> str:
        if not 0 <= id < self.vocabulary_size():
            raise UserError(f"A token id must be in [0, {self.vocabulary_size()}); got {id}.")
        return self._model.pieces[id]

    def token_to_id(self, token: str) -> int:
        """The id of a piece, `unk_id` where there is none."""
        return self._model.processor.piece_to_id(token)

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
        self._loaded = _read(os.path.join(dir_path, _ASSET))


class _Model:
    """One serialized model, ready for both faces. Never changed, so threads may share it.

    A plain object, because Keras copies and tracks lists that are attributes of a layer.
    """

    def __init__(self, proto: bytes, origin: str = "proto"):
        try:
            self.processor = sentencepiece.SentencePieceProcessor()
            self.processor.load_from_serialized_proto(proto)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{origin} is not a SentencePiece model ({error}).") from error
        self.proto = proto
        spec = ModelProto.FromString(proto)
        self.pieces = [piece.piece for piece in spec.pieces]
        rules = spec.normalizer_spec
        space = _SPACE if rules.escape_whitespaces else " "
        unknown = spec.trainer_spec.unk_surface
        self.token_bytes = [_bytes_of(piece, unknown, space) for piece in spec.pieces]
        # A letter for each piece that adds to a text, and which of those at the beginning of a
        # text lose a space there, each one; "" for none.
        self.kinds = [_kind_of(piece) for piece in spec.pieces]
        self.opening = b""
        if rules.escape_whitespaces and rules.remove_extra_whitespaces:
            self.opening = b"^_*-?"
        elif rules.escape_whitespaces and rules.add_dummy_prefix:
            self.opening = b"^[_-]"

        # The operation that holds the model stands inside the function: made outside, its
        # resource would be lost with `tf.random.set_seed`, which clears the eager kernels, and
        # every SavedModel would have to track it.
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        def tokenize(texts):
            return tf_text.SentencepieceTokenizer(proto).tokenize(texts)

        self.tokenize = tokenize


def _bytes_of(piece, unknown: str, space: str) -> bytes:
    if piece.type == _Piece.CONTROL:
        return b""
    if piece.type == _Piece.BYTE:
        return bytes.fromhex(piece.piece[3:5])  # as in <0x0A>
    return (unknown if piece.type == _Piece.UNKNOWN else piece.piece.replace(space, " ")).encode()


def _kind_of(piece) -> bytes:
    """`_` for a space alone, `-` for more that begins with one, `x` for others, or nothing."""
    if piece.type == _Piece.CONTROL:
        return b""
    if not piece.piece.startswith(_SPACE):
        return b"x"
    return b"_" if piece.piece == _SPACE else b"-"


def _read(path: str | os.PathLike) -> _Model:
    try:
        with open(path, "rb") as file:
            proto = file.read()
    except OSError as error:
        raise UserError(
            f"Cannot read the SentencePiece model {path} ({error.strerror})."
        ) from error
    return _Model(proto, os.fspath(path))

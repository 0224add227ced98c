"""One model file of SentencePiece: what its pieces mean, and texts to pieces in the graph."""

import functools
import os

import numpy as np
import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text
from sentencepiece.sentencepiece_model_pb2 import (  # type: ignore[attr-defined]
    ModelProto,
    TrainerSpec,
)

from tfllm.errors import UserError
from tfllm.tokenizers.unigram import Tokens, Unigram

SPACE = "\u2581"  # what SentencePiece writes for a space, unless the model says otherwise
_Piece = ModelProto.SentencePiece
_UNKNOWN_PENALTY = 10.0  # kUnkPenalty in SentencePiece's src/unigram_model.cc

# The default level reports each loading of a model on stderr.
sentencepiece.SetMinLogLevel(1)


class SpmModel:
    """A serialized model, ready for both faces. Never changed, so threads may share it.

    A plain object, because Keras copies and tracks lists that are attributes of a layer.

    Args:
        proto: The content of the file.
        origin: Its path, for messages.

    Attributes:
        proto: The content of the file.
        spec: The same, parsed.
        processor: SentencePiece's own.
        pieces: str, by id.
        token_bytes: What each piece adds to the bytes of a text, by id.
        kinds: By id, "" for a piece that adds nothing, else a letter: `_` for a space alone, `-`
            for more that begins with one, `x` for others.
        opening: A pattern of those kinds that lose a space at the beginning of a whole text.
        drops_spaces: A pattern of the spaces that a whole text loses, if its first token is
            neither a byte nor unknown.
    """

    def __init__(self, proto: bytes, origin: str = "proto"):
        try:
            self.processor = sentencepiece.SentencePieceProcessor()
            self.processor.load_from_serialized_proto(proto)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{origin} is not a SentencePiece model ({error}).") from error
        self.proto = proto
        self.spec = spec = ModelProto.FromString(proto)
        self.pieces = [piece.piece for piece in spec.pieces]
        rules = spec.normalizer_spec
        space = SPACE if rules.escape_whitespaces else " "
        unknown = spec.trainer_spec.unk_surface
        self.token_bytes = [_bytes_of(piece, unknown, space) for piece in spec.pieces]
        self.kinds = [_kind_of(piece) for piece in spec.pieces]
        self.opening = self.drops_spaces = b""
        if rules.escape_whitespaces and rules.remove_extra_whitespaces:
            self.opening, self.drops_spaces = b"^_*-?", b"^ +"
        elif rules.escape_whitespaces and rules.add_dummy_prefix:
            self.opening, self.drops_spaces = b"^[_-]", b"^ "
        unigram = _unigram(spec) if rules.escape_whitespaces else None

        # The operation that holds the model stands inside the function: made outside, its
        # resource would be lost with `tf.random.set_seed`, which clears the eager kernels, and
        # every SavedModel would have to track it.
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        def tokenize(texts):
            if unigram is not None:
                return unigram.tokenize(self._normalized(texts)).ids
            return tf_text.SentencepieceTokenizer(proto).tokenize(texts)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        def tokens(texts):
            if unigram is not None:
                return unigram.tokenize(self._normalized(texts))
            ids = tf_text.SentencepieceTokenizer(proto).tokenize(texts)
            return Tokens(ids, tf_text.SentencepieceTokenizer(proto, tf.string).tokenize(texts))

        self.tokenize = tokenize
        self.tokens = tokens

    @classmethod
    def read(cls, path: str | os.PathLike) -> "SpmModel":
        """The model of a file.

        Raises:
            UserError: if the file cannot be read or is no SentencePiece model.
        """
        try:
            with open(path, "rb") as file:
                proto = file.read()
        except OSError as error:
            raise UserError(
                f"Cannot read the SentencePiece model {path} ({error.strerror})."
            ) from error
        return cls(proto, os.fspath(path))

    @functools.cached_property
    def unprefixed(self) -> "SpmModel":
        """The model without its dummy prefix."""
        spec = ModelProto.FromString(self.proto)
        spec.normalizer_spec.add_dummy_prefix = False
        return SpmModel(spec.SerializeToString(deterministic=True))

    def _normalized(self, texts):
        """Pieces of normalized texts, in which unknown characters are as they are."""
        return tf_text.SentencepieceTokenizer(_without_bytes(self.spec), tf.string).tokenize(texts)


def _unigram(spec) -> Unigram | None:
    """The own segmentation where it is SentencePiece's: unigram, no symbols defined by users."""
    kinds = [piece.type for piece in spec.pieces]
    if spec.trainer_spec.model_type != TrainerSpec.UNIGRAM or _Piece.USER_DEFINED in kinds:
        return None
    normal = [id for id, kind in enumerate(kinds) if kind == _Piece.NORMAL]
    scores = np.array([spec.pieces[id].score for id in normal], np.float32)
    return Unigram(
        [spec.pieces[id].piece for id in normal],
        normal,
        scores,
        unk_id=kinds.index(_Piece.UNKNOWN),
        unk_score=scores.min() - np.float32(_UNKNOWN_PENALTY),
        byte_ids=_byte_ids(spec) if spec.trainer_spec.byte_fallback else None,
    )


def _byte_ids(spec):
    ids = {p.piece: id for id, p in enumerate(spec.pieces) if p.type == _Piece.BYTE}
    return [ids[f"<0x{byte:02X}>"] for byte in range(256)]


def _without_bytes(spec) -> bytes:
    """The model without the bytes that spell unknown characters."""
    copy = ModelProto.FromString(spec.SerializeToString())
    copy.trainer_spec.byte_fallback = False
    for piece in copy.pieces:
        if piece.type == _Piece.BYTE:
            piece.type = _Piece.UNUSED
    return copy.SerializeToString(deterministic=True)


def _bytes_of(piece, unknown: str, space: str) -> bytes:
    if piece.type == _Piece.CONTROL:
        return b""
    if piece.type == _Piece.BYTE:
        return bytes.fromhex(piece.piece[3:5])  # as in <0x0A>
    return (unknown if piece.type == _Piece.UNKNOWN else piece.piece.replace(space, " ")).encode()


def _kind_of(piece) -> bytes:
    if piece.type == _Piece.CONTROL:
        return b""
    if not piece.piece.startswith(SPACE):
        return b"x"
    return b"_" if piece.piece == SPACE else b"-"

"""Training a SentencePiece model that keeps every text exactly."""

import io
import logging
import re
from collections.abc import Iterable
from typing import Literal

import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

from tfllm.errors import UserError
from tfllm.tokenizers.sentencepiece import SentencePieceTokenizer
from tfllm.tokenizers.utf8 import valid_utf8

_logger = logging.getLogger(__name__)

# At most 4,000 bytes of UTF-8: SentencePiece skips sentences above 4,192.
_WINDOW_CHARACTERS = 1000

# SentencePiece learns nothing from U+0000, and nothing from a sentence that holds U+2585.
_RESERVED = {0x0000: None, 0x2585: None}

_SMALLEST = 4 + 256 + 1  # special pieces, bytes, and one character


def train_sentencepiece(
    texts: Iterable[str | bytes],
    *,
    vocabulary_size: int = 8000,
    model_type: Literal["unigram", "bpe"] = "unigram",
    character_coverage: float = 0.9995,
    max_training_bytes: int = 16 << 20,
) -> SentencePieceTokenizer:
    """Learns a vocabulary from texts: `<pad>` 0, `<unk>` 1, `<s>` 2, `</s>` 3, 256 bytes, pieces.

    The same texts give the same model to the byte, on any number of cores. A corpus too small
    for `vocabulary_size` gives a smaller vocabulary and a logged warning.

    Args:
        texts: Documents of any length, with or without newlines. Read once, as a stream.
        vocabulary_size: Number of ids, the special ones included.
        model_type: "unigram" (Kudo 2018) or "bpe" (Sennrich et al. 2016).
        character_coverage: Fraction of the characters of the texts that get a piece of their own;
            in [0.98, 1]; the rest are spelled by bytes.
        max_training_bytes: Bytes of UTF-8 that are learned from, which bound memory (about 50
            bytes for each with unigram) and time. Of a longer corpus an even sample between half
            of this and this is taken.

    Raises:
        UserError: if there is no text to learn from, an argument is out of its range, or
            `vocabulary_size` has no room for the bytes and the characters of the texts.

    Source:
        https://arxiv.org/abs/1808.06226; the options are those of SentencePiece's doc/options.md.
    """
    if isinstance(texts, str | bytes):
        raise UserError("train_sentencepiece takes several texts: give [text], not text.")
    if not 0.98 <= character_coverage <= 1:
        raise UserError(f"character_coverage must be in [0.98, 1]; got {character_coverage}.")
    if model_type not in ("unigram", "bpe"):
        raise UserError(f'model_type must be "unigram" or "bpe"; got {model_type!r}.')
    if vocabulary_size < _SMALLEST:
        raise UserError(
            f"vocabulary_size must be at least {_SMALLEST} (4 special pieces, 256 bytes, one "
            f"character); got {vocabulary_size}."
        )
    windows = _sample(texts, max_training_bytes)
    if not any(window.strip("\r\n") for window in windows):
        raise UserError("There is no text to train a tokenizer on: the corpus is empty.")
    proto = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(windows),
            model_writer=proto,
            vocab_size=vocabulary_size,
            hard_vocab_limit=False,
            model_type=model_type,
            character_coverage=character_coverage,
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,  # indentation
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            unk_surface="\ufffd",
            num_threads=16,  # not the machine's cores: unigram sums floats by thread
            minloglevel=2,
        )
    except RuntimeError as error:
        needed = re.search(r"required_chars\. \d+ vs (\d+)", str(error))
        if not needed:
            raise
        raise UserError(
            f"vocabulary_size={vocabulary_size} is too small for these texts: with 4 special "
            f"pieces, 256 bytes and their characters they need at least {needed[1]}. Raise "
            f"vocabulary_size, or lower character_coverage ({character_coverage})."
        ) from error
    tokenizer = SentencePieceTokenizer(proto=_with_plain_spaces(proto.getvalue()))
    if tokenizer.vocabulary_size() < vocabulary_size:
        _logger.warning(
            "The texts are too few for a vocabulary of %d: it has %d pieces.",
            vocabulary_size,
            tokenizer.vocabulary_size(),
        )
    return tokenizer


def _sample(texts: Iterable[str | bytes], max_bytes: int) -> list[str]:
    """Windows of the texts, evenly spread over the stream, of at most `max_bytes` in all.

    When they are too many, every second one is dropped and from then on half as many are taken.
    """
    windows: list[str] = []
    size, stride, seen = 0, 1, 0
    for text in texts:
        plain = valid_utf8(text).translate(_RESERVED)
        for start in range(0, len(plain), _WINDOW_CHARACTERS):
            if seen % stride == 0:
                windows.append(plain[start : start + _WINDOW_CHARACTERS])
                size += len(windows[-1].encode())
                if size > max_bytes:
                    del windows[1::2]
                    size = sum(len(window.encode()) for window in windows)
                    stride *= 2
            seen += 1
    return windows


def _with_plain_spaces(proto: bytes) -> bytes:
    """The model with a space where SentencePiece learned "▁".

    The trainer only works on texts in which "▁" stands for a space, and then a "▁" in a text
    comes back as a space. The runtimes do without: with `escape_whitespaces` off they match the
    text as it is, and "▁" is spelled by its bytes.
    """
    model = ModelProto.FromString(proto)
    model.normalizer_spec.escape_whitespaces = False
    for piece in model.pieces:
        if piece.type == ModelProto.SentencePiece.NORMAL:
            piece.piece = piece.piece.replace("\u2581", " ")
    return model.SerializeToString(deterministic=True)

"""A tokenizer from wherever it lies."""

import os

from tfllm.tokenizers.sentencepiece import SentencePieceTokenizer
from tfllm.tokenizers.tokenizer import Tokenizer


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Loads a tokenizer from a folder or from a bare SentencePiece model.

    Args:
        path: A folder written by `Tokenizer.save`, a preset folder, or a file of SentencePiece
            (`.spm`, `.model`), ours or foreign.

    Raises:
        UserError: if nothing usable is there; the message names the file.
    """
    if os.path.isdir(path):
        return Tokenizer.from_preset(os.fspath(path))
    return SentencePieceTokenizer(proto=os.fspath(path))

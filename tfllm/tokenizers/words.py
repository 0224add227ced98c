"""Which tokens go on with the word of the token before them."""

import numpy as np

from tfllm.tokenizers.tokenizer import Tokenizer
from tfllm.tokenizers.wordpiece import WordPieceTokenizer

_CONTINUES = "##"
_WHITE_SPACE = (b" ", b"\t", b"\n", b"\r")


def continues_word(tokenizer: Tokenizer) -> np.ndarray:
    """Whether a token goes on with a word: a table by token id.

    With WordPiece these are the pieces that begin with "##"; elsewhere, those that say something
    which does not begin with white space ("▁" of SentencePiece, "Ġ" of a byte-level tokenizer).
    So punctuation belongs to the word before it there, and a script without spaces has sentences
    for words: leave words alone for such a text. Added tokens are words of their own.

    Args:
        tokenizer: With one vocabulary; of a translation model, the table is that of its targets.

    Returns:
        bool[v].
    """
    if isinstance(tokenizer, WordPieceTokenizer):
        goes_on = [piece.startswith(_CONTINUES) for piece in tokenizer.get_vocabulary()]
    else:
        goes_on = [
            bool(said) and not said.startswith(_WHITE_SPACE) for said in tokenizer.token_bytes()
        ]
    table = np.array(goes_on, bool)
    table[[token.id for token in tokenizer.added_tokens]] = False
    return table

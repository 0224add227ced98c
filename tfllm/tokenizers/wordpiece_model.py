"""The pieces of a WordPiece vocabulary: how words part into them, and what they say."""

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow_text.core.pybinds.pywrap_fast_wordpiece_tokenizer_model_builder import (
    build_fast_wordpiece_model,
)

from tfllm.errors import UserError
from tfllm.tokenizers.added_tokens import AddedToken
from tfllm.tokenizers.bert_normalizer import BertNormalizer

CONTINUATION = "##"  # begins each piece that does not begin a word

# In this order; a space that a token brings is left out before these.
_TIGHT = {" " + end: end for end in (".", "?", "!", ",")} | {" ' ": "'"}
_TIGHT |= {
    " n't": "n't",
    " 'm": "'m",
    " do not": " don't",
    " 's": "'s",
    " 've": "'ve",
    " 're": "'re",
}


class WordPieceModel:
    """One vocabulary, ready for use. Never changed, so threads may share it.

    A plain object, because Keras copies and tracks lists that are attributes of a layer.

    Args:
        pieces: The vocabulary; of equal pieces the last counts.
        added: Tokens recognised in texts, of the vocabulary or beyond it.
        unknown: The piece for words that no pieces make.
        normalizer: Makes words of texts.
        max_characters: Longer words are unknown.

    Attributes:
        pieces: As given.
        tokens: Texts of all ids: the pieces, then added tokens; "" for an id that has none.
        ids: From texts to ids.
        is_token: For each id, whether there is a token of it.
        is_said: For each id, whether it adds to a decoded text without special tokens.
        at_beginning: For each id, the bytes it adds as the first one.
        after_another: For each id, the bytes it adds after another one.

    Raises:
        UserError: if a piece cannot be one, `unknown` is missing, or `added` contradicts `pieces`.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        added: Sequence[AddedToken],
        unknown: str,
        normalizer: BertNormalizer,
        max_characters: int,
    ):
        self.pieces = pieces
        ids = {piece: i for i, piece in enumerate(pieces)}
        if unknown not in ids:
            raise UserError(
                f"The vocabulary has no {unknown!r}, which words need that no pieces make: add it, "
                'or name another one, special_tokens={"unk": …}.'
            )
        model = _build(pieces, ids, unknown, max_characters)
        self.tokens = _with_added(pieces, added)
        self.ids = ids | {token.text: token.id for token in added}
        clean = _cleaned(added, normalizer)
        spelled = list(self.tokens)
        for token in clean:
            spelled[token.id] = normalizer.with_spaces(token.text)
        # By its spelling, too, `tokenizers` knows which token it hides: one that normalization
        # changes is never hidden.
        hidden = {t.id for t in added if t.hidden and spelled[t.id] == t.text}
        self.is_token = [self.ids.get(token) == i for i, token in enumerate(self.tokens)]
        self.is_said = [there and i not in hidden for i, there in enumerate(self.is_token)]
        there = list(zip(spelled, self.is_token, strict=True))
        self.at_beginning = [_tight(token) if is_one else b"" for token, is_one in there]
        self.after_another = [_tight(_joined(token)) if is_one else b"" for token, is_one in there]
        other = b"x" * (4 * max_characters + 1)

        def tokenize_with_offsets(texts):
            words = normalizer.words(texts, clean)
            begins, ends = words.splits[:-1], words.splits[1:]
            is_other = (words.added_ids >= 0) | (ends - begins > max_characters)
            tokenizer = tf_text.FastWordpieceTokenizer(
                model_buffer=tf.constant(np.frombuffer(model, np.uint8)), token_out_type=tf.int32
            )
            found, first_bytes, end_bytes = tokenizer.tokenize_with_offsets(
                tf.where(is_other, other, words.texts)
            )
            word = found.value_rowids()
            byte = tf.gather(tf.gather(words.bytes_before, begins), word)
            first = tf.searchsorted(words.bytes_before, byte + first_bytes.values)
            end = tf.searchsorted(words.bytes_before, byte + end_bytes.values, out_type=tf.int64)
            last = tf.where(tf.gather(is_other, word), tf.gather(ends, word), end) - 1
            starts = tf.gather(words.positions, first)
            stops = tf.gather(words.positions, last) + 1
            added_ids = tf.gather(words.added_ids, word)
            ids = tf.where(added_ids >= 0, added_ids, found.values)
            rows = tf.gather(words.rows, word)
            return tuple(
                tf.RaggedTensor.from_value_rowids(
                    tf.cast(values, tf.int32), rows, tf.size(texts, tf.int64), validate=False
                )
                for values in (ids, starts, stops)
            )

        # The operation and its tables stand inside a function, where a SavedModel and
        # `tf.random.set_seed` leave them alone, and inside one, so that there is one copy.
        as_function = functools.partial(
            tf.function, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
        )
        self.tokenize_with_offsets = as_function(tokenize_with_offsets)
        self.tokenize = as_function(lambda texts: self.tokenize_with_offsets(texts)[0])


def _build(pieces, ids, unknown, max_characters) -> bytes:
    for i, piece in enumerate(pieces):
        if not isinstance(piece, str) or "\n" in piece or "\r" in piece:
            raise UserError(f"A piece must be a string of one line; piece {i} is {piece!r}.")
    # In place of the first of two equal pieces, and of one longer than any word, there stands
    # what is in no word. The builder takes neither.
    longest = max_characters + len(CONTINUATION)
    found = [
        piece if ids[piece] == i and len(piece) <= longest else f"\n{i}"
        for i, piece in enumerate(pieces)
    ]
    max_bytes = 4 * max_characters
    try:
        return build_fast_wordpiece_model(found, max_bytes, CONTINUATION, unknown, True, False)
    except (RuntimeError, UnicodeEncodeError) as error:
        raise UserError(f"TF-Text cannot use this vocabulary: {error}") from error


def _with_added(pieces, added) -> list[str]:
    tokens = list(pieces)
    ids = {piece: i for i, piece in enumerate(pieces)}
    for token in sorted(added, key=lambda token: token.id):
        tokens += [""] * (token.id + 1 - len(tokens))
        if ids.get(token.text, token.id) != token.id or tokens[token.id] not in ("", token.text):
            raise UserError(
                f"The added token {token.text!r} has the id {token.id}, where the vocabulary has "
                f"{tokens[token.id]!r}; its own id there is {ids.get(token.text)}."
            )
        tokens[token.id] = token.text
    return tokens


def _cleaned(added, normalizer) -> list[AddedToken]:
    """Those of the tokens that are looked for in clean texts, clean themselves."""
    tokens = [token for token in added if token.normalized]
    if not tokens:
        return []
    with tf.init_scope():
        texts = normalizer.normalize(tf.constant([token.text.encode() for token in tokens])).numpy()
    for token, text in zip(tokens, texts, strict=True):
        if not text:
            raise UserError(
                f"The added token {token.text!r} is looked for in normalized texts, but nothing "
                "is left of it there."
            )
    return [t._replace(text=text.decode()) for t, text in zip(tokens, texts, strict=True)]


def _joined(token: str) -> str:
    return token.removeprefix(CONTINUATION) if token.startswith(CONTINUATION) else f" {token}"


def _tight(token: str) -> bytes:
    for loose, tight in _TIGHT.items():
        token = token.replace(loose, tight)
    return token.encode()

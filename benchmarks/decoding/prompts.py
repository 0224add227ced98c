"""Vocabularies of any size whose texts have as many tokens as one likes, and such texts.

A byte-level vocabulary begins with the bytes, and none of its merges is of ASCII characters: a text
of n ASCII letters has n tokens. A SentencePiece vocabulary is of words of five letters, and no
piece is a part of one: a text of n - 1 words and the end have n tokens.
"""

import itertools
from typing import NamedTuple

import numpy as np
from decoding.shapes import Shape

END, UNKNOWN, PADDING = "</s>", "<unk>", "<pad>"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SPACE = "\u2581"  # what SentencePiece writes for a space


class Prompts(NamedTuple):
    """Rows of one length, as text and for engines that have no tokenizer.

    Attributes:
        texts: Of each row.
        ids: Token ids of each row.
        tokens: Their strings.
    """

    texts: list[str]
    ids: list[list[int]]
    tokens: list[list[str]]


def prompts_for(shape: Shape, rows: int, length: int, random: np.random.Generator) -> Prompts:
    """Random texts of `length` tokens, the end of a source among them."""
    if not shape.translates:
        ids = random.integers(ord("a"), ord("z") + 1, (rows, length)).tolist()
        tokens = [[chr(id) for id in row] for row in ids]
        return Prompts(["".join(row) for row in tokens], ids, tokens)
    first, end = len(special_tokens(shape)), special_tokens(shape).index(END)
    chosen = random.integers(0, len(words(shape)), (rows, length - 1)).tolist()
    known = words(shape)
    return Prompts(
        [" ".join(known[i] for i in row) for row in chosen],
        [[*(first + i for i in row), end] for row in chosen],
        [[*(_SPACE + known[i] for i in row), END] for row in chosen],
    )


def special_tokens(shape: Shape) -> list[str]:
    """The first tokens of a vocabulary of words."""
    return [PADDING, END, UNKNOWN] if shape.family == "t5" else [END, UNKNOWN]


def words(shape: Shape) -> list[str]:
    """The others, without the space before each."""
    others = 128 if shape.family == "t5" else 1  # T5's table is larger than its tokenizer
    count = shape.vocabulary_size - len(special_tokens(shape)) - others
    return ["".join(word) for word in itertools.islice(_five_letters(), count)]


def _five_letters():
    return itertools.product(_LETTERS, repeat=5)


def sentencepiece_model(shape: Shape) -> bytes:
    """A unigram model of `words`, serialized."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

    model = ModelProto()
    trainer, special = model.trainer_spec, special_tokens(shape)
    trainer.model_type = TrainerSpec.UNIGRAM
    trainer.bos_id = -1
    for name, token in (("pad", PADDING), ("eos", END), ("unk", UNKNOWN)):
        setattr(trainer, f"{name}_id", special.index(token) if token in special else -1)
    kinds = ModelProto.SentencePiece
    for token in special:
        model.pieces.add(
            piece=token, score=0.0, type=kinds.UNKNOWN if token == UNKNOWN else kinds.CONTROL
        )
    for word in words(shape):
        model.pieces.add(piece=_SPACE + word, score=-1.0)
    return model.SerializeToString(deterministic=True)


def byte_pairs(size: int, byte_alphabet: list[str], end: str):
    """Ids of `size` tokens, the last of them `end`, and the merges as pairs."""
    foreign = byte_alphabet[128:]
    pairs = list(itertools.product(foreign, foreign))
    triples = (((a + b), c) for (a, b), c in itertools.product(pairs, foreign))
    merges = list(itertools.islice(itertools.chain(pairs, triples), size - 257))
    tokens = [*byte_alphabet, *("".join(merge) for merge in merges), end]
    return {token: i for i, token in enumerate(tokens)}, merges

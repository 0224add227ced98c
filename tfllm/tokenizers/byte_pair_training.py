"""Training of byte-level BPE from texts."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.added_tokens import AddedToken
from tfllm.tokenizers.byte_alphabet import ALPHABET, spelled
from tfllm.tokenizers.byte_pair import BytePairTokenizer
from tfllm.tokenizers.pair_corpus import PairCorpus
from tfllm.tokenizers.pieces import cut
from tfllm.tokenizers.text_batches import text_batches

_logger = logging.getLogger(__name__)

_END = "<|endoftext|>"


def train_byte_pair(
    texts: Iterable[str | bytes],
    *,
    vocabulary_size: int = 8000,
    split: str = "gpt2",
    composes: bool = False,
    special_tokens: Sequence[str] = (_END,),
    min_frequency: int = 2,
    begins_with_bos: bool = True,
) -> BytePairTokenizer:
    """Learns a vocabulary from texts: the special tokens, the 256 bytes, then the merges' tokens.

    The first special token is both the begin and the end of a text. The same texts give the same
    vocabulary, that of Hugging Face's `BpeTrainer` with the alphabet of bytes and these special
    tokens. Memory grows with the number of different pieces in the texts.

    Args:
        texts: Documents of any length. Read once, as a stream.
        vocabulary_size: Number of ids, special tokens included.
        split: The pattern, as in `BytePairTokenizer`.
        composes: As in `BytePairTokenizer`.
        special_tokens: Recognised in texts, hidden in decoded ones.
        min_frequency: A pair that is seen less often is not merged.
        begins_with_bos: As in `Tokenizer`.

    Raises:
        UserError: if there is no text to learn from, or an argument is out of its range.

    Source:
        Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; the order of the ids and of equally
        frequent pairs is that of models/bpe/trainer.rs of Hugging Face `tokenizers`.
    """
    if isinstance(texts, str | bytes):
        raise UserError("train_byte_pair takes several texts: give [text], not text.")
    if not special_tokens:
        raise UserError("special_tokens must name at least one, the begin and end of a text.")
    smallest = len(special_tokens) + len(ALPHABET)
    if vocabulary_size < smallest:
        raise UserError(
            f"vocabulary_size must be at least {smallest} (the special tokens and 256 bytes); "
            f"got {vocabulary_size}."
        )
    pieces = _count_pieces(texts, split, composes)
    if not pieces:
        raise UserError("There is no text to train a tokenizer on: the corpus is empty.")
    tokens = [*special_tokens, *sorted(ALPHABET)]
    merges = _learn_merges(pieces, tokens, vocabulary_size, min_frequency)
    if len(tokens) < vocabulary_size:
        _logger.warning(
            "The texts are too few for a vocabulary of %d: it has %d tokens.",
            vocabulary_size,
            len(tokens),
        )
    return BytePairTokenizer(
        {token: token_id for token_id, token in enumerate(tokens)},
        merges,
        split=split,
        composes=composes,
        bos_id=0,
        eos_id=0,
        added_tokens=[AddedToken(text, i) for i, text in enumerate(special_tokens)],
        begins_with_bos=begins_with_bos,
    )


def _count_pieces(texts, split, composes) -> Counter[bytes]:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def strings(batch):
        return cut(batch, split, composes=composes).strings()

    counts: Counter[bytes] = Counter()
    for batch in text_batches(texts):
        counts.update(strings(tf.constant(batch)).numpy().tolist())
    return counts


def _learn_merges(
    pieces: Counter[bytes], tokens: list[str], vocabulary_size: int, min_frequency: int
) -> list[tuple[str, str]]:
    """The most frequent pair is merged in all pieces, over and over; `tokens` grows with it."""
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    corpus = PairCorpus(
        [[ids[character] for character in spelled(piece)] for piece in pieces],
        list(pieces.values()),
    )
    merges = []
    while len(tokens) < vocabulary_size:
        pair = corpus.most_frequent(max(1, min_frequency))
        if pair is None:
            break
        left, right = (tokens[part] for part in pair)
        merges.append((left, right))
        merged = ids.setdefault(left + right, len(tokens))
        if merged == len(tokens):
            tokens.append(left + right)
        corpus.merge(pair, merged)
    return merges

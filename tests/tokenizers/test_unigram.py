"""The own unigram segmentation: SentencePiece's, also where segmentations are equally likely."""

import io
import pydoc_data.topics
import random

import pytest
import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text

from tfllm.tokenizers import SentencePieceTokenizer
from tfllm.tokenizers.unigram import Unigram

LINES = "\n".join(pydoc_data.topics.topics.values()).splitlines()


@pytest.fixture(scope="module", params=["t5", "bytes"])
def unigram(request):
    """A tokenizer and SentencePiece's own, of a model as T5 has, and one that spells by bytes."""
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES[:4000]),
        model_writer=proto,
        vocab_size=800,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        byte_fallback=request.param == "bytes",
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto.getvalue())
    return SentencePieceTokenizer(proto.getvalue()), processor


def ambiguous_texts(count):
    """With runs of characters, which are cut into equally likely pieces in several ways."""
    draw = random.Random(0)
    parts = [*"-=.*_#~'\"!?,:;()01aelns\u4e2d\u00e9\U0001f642", "the", "import", " ", "  ", "\n"]
    for _ in range(count):
        parts_of_one = draw.choices(parts, k=draw.randrange(1, 30))
        yield "".join(part * int(2 ** (draw.random() * 6)) for part in parts_of_one)


def test_ambiguous_texts_are_cut_as_sentencepiece_cuts_them(unigram):
    tokenizer, processor = unigram
    texts = [*ambiguous_texts(1500), *LINES[:3000]]

    assert tokenizer.encode_batch(texts) == processor.encode(texts)


def test_the_operation_of_tensorflow_text_cuts_some_of_them_otherwise(unigram):
    tokenizer, processor = unigram
    texts = list(ambiguous_texts(1500))

    found = tf_text.SentencepieceTokenizer(tokenizer.proto).tokenize(texts).to_list()

    assert found != processor.encode(texts)  # else this module could go


def test_a_text_gives_the_same_ids_alone_and_among_others(unigram):
    tokenizer, _ = unigram
    texts = list(ambiguous_texts(40))

    assert [tokenizer.encode(text) for text in texts] == tokenizer.encode_batch(texts)


def test_tokens_come_with_the_text_that_they_are(unigram):
    tokenizer, processor = unigram
    texts = ["", "the \u4e2d\u4e2dend", "\uff21\u2460 x", " ", *ambiguous_texts(300)]
    normalized = [processor.normalize(text) for text in texts]

    tokens = tokenizer._model.tokens(tf.constant(texts))
    joined = tf.strings.reduce_join(tokens.surfaces, -1).numpy()

    assert [text.decode() for text in joined] == normalized
    assert tokens.surfaces.row_lengths().numpy().tolist() == list(map(len, processor.encode(texts)))


def test_no_texts_and_empty_texts_give_no_tokens(unigram):
    tokenizer, _ = unigram

    assert tokenizer.encode_batch([]) == []
    assert tokenizer.encode_batch(["", "  ", "", "a"])[:3] == [[], [], []]


def test_a_long_run_is_cut_as_sentencepiece_cuts_it(unigram):
    tokenizer, processor = unigram
    texts = ["-" * 3001, "the " * 2000 + "." * 500, "\u4e2d" * 700]

    assert tokenizer.encode_batch(texts) == processor.encode(texts)


def test_unknown_characters_of_two_texts_are_two_tokens():
    unigram = Unigram(["a"], [5], [-1.0], unk_id=0, unk_score=-9.0)

    @tf.function
    def tokenize(pieces):
        return unigram.tokenize(pieces)

    tokens = tokenize(tf.ragged.constant([["\u4e2d\u4e2d"], ["\u4e2d", "a"], []], tf.string))

    assert tokens.ids.to_list() == [[0], [0, 5], []]
    assert tokens.surfaces.to_list() == [["\u4e2d\u4e2d".encode()], ["\u4e2d".encode(), b"a"], []]

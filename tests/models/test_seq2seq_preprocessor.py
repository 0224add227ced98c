"""Pairs of strings to rows, by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.models import Seq2SeqLMPreprocessor
from tfllm.models.seq2seq_preprocessor import require_seq2seq_tokenizer
from tfllm.tokenizers import SentencePieceTokenizer


@pytest.fixture
def preprocessor(tokenizer):
    return Seq2SeqLMPreprocessor(tokenizer, 6, 5, decoder_start_token_id=7)


def test_sources_and_targets_end_and_the_decoder_reads_what_was_before(preprocessor, tokenizer):
    [source] = tokenizer.encode_batch(["a cat"])
    end, filler = tokenizer.eos_id, tokenizer.padding_id
    assert len(source) == 2
    x, y, weight = preprocessor(tf.constant(["a cat"]), tf.constant(["a cat"]))
    assert x["encoder_token_ids"].numpy().tolist() == [[*source, end, filler, filler, filler]]
    assert x["encoder_padding_mask"].numpy().tolist() == [[1, 1, 1, 0, 0, 0]]
    assert x["decoder_token_ids"].numpy().tolist() == [[7, *source, end, filler]]
    assert x["decoder_padding_mask"].numpy().tolist() == [[1, 1, 1, 0, 0]]
    assert y.numpy().tolist() == [[*source, end, filler, filler]]
    assert weight.numpy().tolist() == [[1, 1, 1, 0, 0]]


def test_what_is_too_long_is_cut_and_keeps_its_end(preprocessor, tokenizer):
    x, y, weight = preprocessor(tf.constant(["one " * 20]), tf.constant(["two " * 20]))
    source, target = (tokenizer.encode(text) for text in ("one " * 20, "two " * 20))
    assert x["encoder_token_ids"][0].numpy().tolist() == [*source[:5], tokenizer.eos_id]
    assert y[0].numpy().tolist() == [*target[:4], tokenizer.eos_id]
    assert x["decoder_token_ids"][0].numpy().tolist() == [7, *target[:4]]
    assert weight[0].numpy().tolist() == [1] * 5


def test_a_dict_a_single_pair_and_weights_of_pairs_are_taken(preprocessor):
    pairs = tf.constant(["one", "two"]), tf.constant(["a", "b c d"])
    expected = preprocessor(*pairs, tf.constant([1.0, 0.5]))
    named = {"encoder_text": pairs[0], "decoder_text": pairs[1]}
    found = preprocessor(named, sample_weight=tf.constant([1.0, 0.5]))
    tf.nest.map_structure(np.testing.assert_array_equal, found, expected)
    assert expected[2].numpy().max(-1).tolist() == [1.0, 0.5]
    single = preprocessor("two", "b c d")
    tf.nest.map_structure(
        lambda one, rows: np.testing.assert_array_equal(one, rows[1]), single[:2], expected[:2]
    )


def test_without_targets_there_is_nothing_to_learn(preprocessor):
    with pytest.raises(UserError, match="trained on pairs"):
        preprocessor(tf.constant(["one"]))


def test_the_decoder_starts_with_padding_unless_told(tokenizer):
    assert Seq2SeqLMPreprocessor(tokenizer).start_id == tokenizer.padding_id


def test_its_configuration_makes_it_again(preprocessor):
    again = Seq2SeqLMPreprocessor.from_config(preprocessor.get_config())
    assert again.get_config() == preprocessor.get_config()
    assert (again.encoder_sequence_length, again.decoder_sequence_length) == (6, 5)
    assert again.start_id == 7


def test_a_tokenizer_without_an_end_is_refused(tokenizer):
    class Endless(SentencePieceTokenizer):
        eos_id = -1

    backbone = keras.Model()
    backbone.vocabulary_size = backbone.source_vocabulary_size = 10_000
    with pytest.raises(UserError, match="needs an end token, this one has eos_id=-1"):
        require_seq2seq_tokenizer(Endless(tokenizer.proto), backbone)

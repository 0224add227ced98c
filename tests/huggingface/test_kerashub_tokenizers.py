"""KerasHub's tokenizers as ours: the same ids, and nothing of the special tokens in a text."""

import re

import pytest
from tiny_kerashub import byte_pairs, hub, sentence_piece

from tfllm.errors import UserError
from tfllm.huggingface.kerashub import from_keras_hub
from tfllm.huggingface.kerashub_tokenizers import end_token_ids, our_tokenizer
from tfllm.tokenizers import train_sentencepiece


def test_what_ends_a_turn_of_gemma_is_read_and_not_written():
    proto = sentence_piece(user=["<start_of_turn>", "<end_of_turn>"])
    theirs = hub.Gemma3Tokenizer(proto, has_vision_tokens=False)
    ours = our_tokenizer(theirs)
    turn = "<start_of_turn>user the cat<end_of_turn> sat"
    assert ours.encode(turn) == list(theirs(turn))
    assert ours.decode(ours.encode(turn)) == "<start_of_turn>user the cat sat"
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (2, 1, 0)
    assert ours.begins_with_bos
    assert end_token_ids(theirs) == (1, theirs.token_to_id("<end_of_turn>"))


def test_the_end_of_a_text_is_what_keras_hub_calls_so_not_what_the_proto_does():
    user = ["<|endoftext|>", "<|end|>", "<|user|>"]
    theirs = hub.Phi3Tokenizer(sentence_piece("<s>", "</s>", user=user, prefix=True))
    ours = our_tokenizer(theirs)
    end, turn = theirs.end_token_id, theirs.token_to_id("<|end|>")
    assert end_token_ids(theirs) == (end, turn)
    assert ours.eos_id == end != 1
    text = "the cat <|user|> sat<|end|>\nthe dog<|endoftext|>"
    assert ours.encode(text) == list(theirs(text))
    assert ours.decode([theirs.start_token_id, end, turn]) == ""


def test_a_model_without_a_piece_that_ends_turns_stops_at_the_end_alone():
    theirs = hub.Gemma3Tokenizer(sentence_piece(), has_vision_tokens=False)
    assert end_token_ids(theirs) == (1,)  # and not at the unknown piece


def test_llama_3_keeps_lines_and_three_digits_together_and_has_two_ends():
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    headers = ["<|start_header_id|>", "<|end_header_id|>"]
    theirs = byte_pairs(hub.Llama3Tokenizer, *names, *headers)
    ours = our_tokenizer(theirs)
    text = "<|start_header_id|>the cat 12345\n\n sat<|eot_id|>"
    assert ours.encode(text) == list(theirs(text))
    assert ours.split == "llama3"
    assert end_token_ids(theirs) == (264, 265)
    assert ours.decode([263, *ours.encode("the"), 265]) == "the"


@pytest.mark.parametrize(
    ("kind", "special", "split", "composes"),
    [
        (hub.GPT2Tokenizer, ["<|endoftext|>"], "gpt2", False),
        (hub.OPTTokenizer, ["<s>", "<pad>", "</s>"], "gpt2", False),
        (hub.QwenTokenizer, ["<|endoftext|>"], "qwen2", True),
        (hub.Qwen3Tokenizer, ["<|endoftext|>", "<|im_end|>"], "qwen2", True),
    ],
)
def test_byte_pairs_are_cut_as_the_model_was_trained(kind, special, split, composes):
    theirs = byte_pairs(kind, *special)
    ours = our_tokenizer(theirs)
    assert (ours.split, ours.composes) == (split, composes)
    text = f"the cat sat on{theirs.end_token}"
    assert ours.encode(text) == list(theirs(text))
    assert ours.decode(ours.encode(text)) == "the cat sat on"
    assert ours.pad_id == (theirs.pad_token_id if hasattr(theirs, "pad_token") else -1)


def test_a_model_without_a_begin_token_reads_the_end_token_where_there_is_nothing():
    ours = our_tokenizer(byte_pairs(hub.QwenTokenizer, "<|endoftext|>"))
    assert not ours.begins_with_bos
    assert ours.bos_id == ours.eos_id == 263


def test_tokens_that_are_not_cut_but_mean_something_are_written():
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<think>", "</think>"]
    theirs = byte_pairs(hub.QwenTokenizer, "<|endoftext|>", *names)
    theirs = hub.QwenTokenizer(
        theirs.vocabulary, theirs.merges, unsplittable_tokens=["<|endoftext|>", "<think>"]
    )
    ours = our_tokenizer(theirs)
    text = "<think>the cat<|endoftext|>"
    assert ours.encode(text) == list(theirs(text))
    assert ours.decode(ours.encode(text)) == "<think>the cat"


def test_a_tokenizer_with_no_counterpart_is_refused_unless_one_is_given():
    theirs = byte_pairs(hub.BloomTokenizer, "<s>", "</s>", "<pad>")
    words = "A BloomTokenizer has no counterpart here: the pattern by which it cuts texts into"
    with pytest.raises(UserError, match=words):
        our_tokenizer(theirs)
    backbone = hub.BloomBackbone(300, 1, 2, 8, 8)
    model = hub.BloomCausalLM(backbone, hub.BloomCausalLMPreprocessor(theirs, sequence_length=32))
    given = train_sentencepiece(["the cat sat on the mat"] * 9, vocabulary_size=290)
    assert from_keras_hub(model, tokenizer=given).preprocessor.tokenizer is given


def test_a_tokenizer_of_words_is_refused():
    theirs = hub.BertTokenizer(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    words = "A BertTokenizer has no counterpart here: it is neither of SentencePiece nor of bytes"
    with pytest.raises(UserError, match=words):
        our_tokenizer(theirs)


def test_a_sentence_piece_vocabulary_that_keras_hub_takes_for_bytes_is_refused():
    theirs = byte_pairs(hub.QwenTokenizer, "<0x00>", "<|endoftext|>")
    with pytest.raises(UserError, match=re.escape("SentencePiece model (it has <0x00>)")):
        our_tokenizer(theirs)

"""Tokenizers of KerasHub's language models as ours, which run in the graph and hold no state."""

from typing import Any

import keras_hub
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

from tfllm.errors import UserError
from tfllm.tokenizers import SentencePieceTokenizer, Tokenizer
from tfllm.tokenizers.added_tokens import AddedToken
from tfllm.tokenizers.byte_pair import BytePairTokenizer

_hub = keras_hub.models
_Piece = ModelProto.SentencePiece

# How each cuts texts into words. KerasHub cuts as Llama 3 does for all of them; these are the
# patterns that the models were trained with.
_SPLITS: dict[type, dict[str, Any]] = {
    _hub.GPT2Tokenizer: {"split": "gpt2"},
    _hub.OPTTokenizer: {"split": "gpt2"},
    _hub.GPTNeoXTokenizer: {"split": "gpt2"},
    _hub.Llama3Tokenizer: {"split": "llama3", "ignore_merges": True},
    _hub.SmolLM3Tokenizer: {"split": "llama3", "ignore_merges": True},
    _hub.QwenTokenizer: {"split": "qwen2", "composes": True},
    _hub.QwenMoeTokenizer: {"split": "qwen2", "composes": True},
    _hub.Qwen3Tokenizer: {"split": "qwen2", "composes": True},
    _hub.Qwen3MoeTokenizer: {"split": "qwen2", "composes": True},
}
# Pieces that end a turn, where a model's own `generate` stops at them too.
_ENDS_OF_TURN = {_hub.Gemma3Tokenizer: "<end_of_turn>", _hub.Phi3Tokenizer: "<|end|>"}


def end_token_ids(tokenizer) -> tuple[int, ...]:
    """What KerasHub's `generate` stops at by itself.

    Args:
        tokenizer: Of KerasHub.
    """
    ids = [tokenizer.end_token_id]
    if hasattr(tokenizer, "end_token2_id"):  # Llama 3 has one for texts and one for turns
        ids.append(tokenizer.end_token2_id)
    end_of_turn = _ENDS_OF_TURN.get(type(tokenizer))
    if end_of_turn in tokenizer.get_vocabulary():
        ids.append(tokenizer.token_to_id(end_of_turn))
    return tuple(dict.fromkeys(ids))


def our_tokenizer(tokenizer) -> Tokenizer:
    """The same vocabulary in a tokenizer of ours.

    Args:
        tokenizer: Of KerasHub.

    Returns:
        One that begins prompts as KerasHub's `generate` does: with the start token, if there is
        one. Special tokens add nothing to a text.

    Raises:
        UserError: there is none of ours that reads texts as this one does.
    """
    if isinstance(tokenizer, keras_hub.tokenizers.SentencePieceTokenizer):
        return _sentence_piece(tokenizer)
    if type(tokenizer) in _SPLITS:
        return _byte_pair(tokenizer)
    reason = "it is neither of SentencePiece nor of bytes"
    if isinstance(tokenizer, keras_hub.tokenizers.BytePairTokenizer):
        reason = "the pattern by which it cuts texts into words is not known here"
    known = ", ".join(sorted(kind.__name__ for kind in _SPLITS))
    raise UserError(
        f"A {type(tokenizer).__name__} has no counterpart here: {reason}. Those of SentencePiece "
        f"have, and {known}. Or give a `tokenizer` of tfllm.tokenizers with the same ids."
    )


def _sentence_piece(tokenizer) -> SentencePieceTokenizer:
    proto = ModelProto.FromString(tokenizer.proto)
    hidden = {*tokenizer.special_token_ids, *end_token_ids(tokenizer)}
    # Where one of them is a piece of text it is read as before, as an added token, but not written.
    written = [i for i in hidden if proto.pieces[i].type == _Piece.USER_DEFINED]
    for token_id in hidden:
        proto.pieces[token_id].type = _Piece.CONTROL
    proto.trainer_spec.bos_piece = tokenizer.id_to_token(tokenizer.start_token_id)
    proto.trainer_spec.eos_piece = tokenizer.id_to_token(tokenizer.end_token_id)
    return SentencePieceTokenizer(
        proto.SerializeToString(deterministic=True),
        prefix_once=bool(written) and proto.normalizer_spec.add_dummy_prefix,
        added_tokens=[AddedToken(proto.pieces[i].piece, i) for i in sorted(written)],
    )


def _byte_pair(tokenizer) -> BytePairTokenizer:
    vocabulary = dict(tokenizer.vocabulary)
    if "<0x00>" in vocabulary:
        raise UserError(
            f"The vocabulary of this {type(tokenizer).__name__} is not one of bytes but of a "
            "SentencePiece model (it has <0x00>), which KerasHub misreads. Give a `tokenizer` of "
            "tfllm.tokenizers with the same ids."
        )
    hidden = {*tokenizer.special_token_ids, *end_token_ids(tokenizer)}
    special = {*tokenizer.unsplittable_tokens, *tokenizer.special_tokens}
    added = [
        AddedToken(text, vocabulary.pop(text), hidden=tokenizer.token_to_id(text) in hidden)
        for text in sorted(special)
    ]
    merges = [tuple(merge.split(" ")) for merge in tokenizer.merges if "#version:" not in merge]
    start, pad = tokenizer.start_token_id, tokenizer.pad_token_id
    return BytePairTokenizer(
        vocabulary,
        merges,
        **_SPLITS[type(tokenizer)],
        add_prefix_space=tokenizer.add_prefix_space,
        added_tokens=added,
        begins_with_bos=start is not None,
        bos_id=tokenizer.end_token_id if start is None else start,  # of an empty prompt
        eos_id=tokenizer.end_token_id,
        pad_id=pad if pad in tokenizer.special_token_ids else -1,
    )

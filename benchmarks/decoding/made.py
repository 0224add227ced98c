"""Models with random weights, for tfllm and for the other engines; made once, then only named.

What the weights are does not change the speed of dense layers. The end of a text has a table row of
zeros, so that other tokens are always better and every answer has the length that was asked for.
"""

from pathlib import Path

import numpy as np
from decoding.prompts import (
    END,
    PADDING,
    UNKNOWN,
    byte_pairs,
    sentencepiece_model,
    special_tokens,
    words,
)
from decoding.shapes import Shape

_END_OF_TEXT = "<|endoftext|>"


def export(shape: Shape, folder: Path, precision: str) -> Path:
    """The version folder of the model's export."""
    base = folder / f"tfllm-{precision}"
    if not (base / "1").exists():
        from tfllm.export import for_serving
        from tfllm.models import from_preset

        preset(shape, folder)
        beams = {"beams": shape.beams} if shape.beams > 1 else {}
        model = from_preset(folder / "preset")
        for_serving(model, base, precision=precision, **beams)
    return base / "1"


def checkpoint(shape: Shape, folder: Path) -> Path:
    """The model's folder of Hugging Face, or weights.npz in a folder where it has no such model."""
    path = folder / "checkpoint"
    if not path.exists():
        import tfllm
        from tfllm.models import from_preset

        preset(shape, folder)
        model = from_preset(folder / "preset")
        if shape.family != "lstm":
            tfllm.to_huggingface(model, path)
            return path
        backbone = model.backbone
        arrays = {"embeddings": np.array(backbone.token_embedding.embeddings)}
        for i, lstm in enumerate(backbone.lstm.lstms):
            for name in ("kernel", "recurrent_kernel", "bias"):
                arrays[f"{name}_{i}"] = np.array(getattr(lstm, name))
        path.mkdir()
        np.savez(path / "weights.npz", **arrays)
    return path


def preset(shape: Shape, folder: Path) -> Path:
    """The model's preset."""
    path = folder / "preset"
    if not path.exists():
        import keras

        keras.utils.set_random_seed(0)
        model = {"gpt": _gpt, "lstm": _lstm, "t5": _t5, "marian": _marian}[shape.family](shape)
        tokenizer = model.preprocessor.tokenizer
        table = model.backbone.token_embedding.embeddings
        zeroed = np.array(table)
        # Marian's decoder begins with the padding, for which CTranslate2 takes zeros.
        zeroed[[id for id in (tokenizer.eos_id, tokenizer.pad_id) if id >= 0]] = 0
        table.assign(zeroed)
        model.save_to_preset(path)
    return path


def _bytes(shape: Shape):
    from tfllm.tokenizers import AddedToken, BytePairTokenizer
    from tfllm.tokenizers.byte_alphabet import ALPHABET

    vocabulary, merges = byte_pairs(shape.vocabulary_size, list(ALPHABET), _END_OF_TEXT)
    end = vocabulary[_END_OF_TEXT]
    return BytePairTokenizer(
        vocabulary,
        merges,
        bos_id=end,
        eos_id=end,
        unk_id=end,
        added_tokens=[AddedToken(_END_OF_TEXT, end)],
        begins_with_bos=False,
    )


def _gpt(shape: Shape):
    from tfllm.models import GPTBackbone, GPTCausalLM, GPTCausalLMPreprocessor

    backbone = GPTBackbone(
        shape.vocabulary_size,
        shape.num_layers,
        shape.num_heads,
        shape.hidden_dim,
        shape.intermediate_dim,
        shape.max_sequence_length,
    )
    return GPTCausalLM(backbone, GPTCausalLMPreprocessor(_bytes(shape)))


def _lstm(shape: Shape):
    from tfllm.models import LSTMBackbone, LSTMCausalLM, LSTMCausalLMPreprocessor

    backbone = LSTMBackbone(
        shape.vocabulary_size, shape.num_layers, shape.hidden_dim, shape.max_sequence_length
    )
    return LSTMCausalLM(backbone, LSTMCausalLMPreprocessor(_bytes(shape)))


def _t5(shape: Shape):
    from tfllm.models import T5Backbone, T5Seq2SeqLM, T5Seq2SeqLMPreprocessor
    from tfllm.tokenizers import AddedToken, SentencePieceTokenizer

    controls = [
        AddedToken(token, id) for id, token in enumerate(special_tokens(shape)) if token != UNKNOWN
    ]
    tokenizer = SentencePieceTokenizer(
        sentencepiece_model(shape),
        loses_one_space=True,
        added_tokens=controls,
        begins_with_bos=False,
    )
    backbone = T5Backbone(
        shape.vocabulary_size,
        shape.num_layers,
        shape.num_heads,
        shape.hidden_dim,
        shape.intermediate_dim,
        max_sequence_length=shape.max_sequence_length,
    )
    return T5Seq2SeqLM(backbone, T5Seq2SeqLMPreprocessor(tokenizer))


def _marian(shape: Shape):
    from tfllm.models import MarianBackbone, MarianSeq2SeqLM, MarianSeq2SeqLMPreprocessor
    from tfllm.tokenizers import MarianTokenizer

    known = ("\u2581" + word for word in words(shape))
    tokens = [*special_tokens(shape), *known, PADDING]
    model = sentencepiece_model(shape)
    tokenizer = MarianTokenizer(
        model,
        model,
        {token: id for id, token in enumerate(tokens)},
        unk_token=UNKNOWN,
        eos_token=END,
        pad_token=PADDING,
    )
    backbone = MarianBackbone(
        shape.vocabulary_size,
        shape.num_layers,
        shape.num_heads,
        shape.hidden_dim,
        shape.intermediate_dim,
        activation="silu",
        max_sequence_length=shape.max_sequence_length,
    )
    return MarianSeq2SeqLM(backbone, MarianSeq2SeqLMPreprocessor(tokenizer))

"""Language models of KerasHub, with the calls, the decode loop and the export of ours."""

import dataclasses
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras_hub
import tensorflow as tf

from tfllm.calls import GeneratorCalls
from tfllm.decoding import NewTokens, wanted
from tfllm.errors import UserError
from tfllm.huggingface.chat_templates import read_chat_template
from tfllm.huggingface.checkpoint import Checkpoint
from tfllm.huggingface.generation_settings import generation_settings
from tfllm.huggingface.json_files import read_json
from tfllm.huggingface.kerashub_converted import corrected
from tfllm.huggingface.kerashub_products import products
from tfllm.huggingface.kerashub_steps import CachedSteps, WholeSteps
from tfllm.huggingface.kerashub_tokenizers import end_token_ids, our_tokenizer
from tfllm.huggingface.replaced import replaced
from tfllm.huggingface.sentencepiece_files import read_llama
from tfllm.layers.served_matrix import Make
from tfllm.models import CausalLMPreprocessor, GenerationSettings, TextTask
from tfllm.models.causal_text_generator import CausalTextGenerator
from tfllm.models.presets import save_aside
from tfllm.tokenizers import Tokenizer

_SETTINGS = "tfllm.json"
_hub = keras_hub.models
_CACHED = (
    _hub.BloomCausalLM, _hub.FalconCausalLM, _hub.GPT2CausalLM, _hub.Gemma3CausalLM,
    _hub.GemmaCausalLM, _hub.GptOssCausalLM, _hub.LlamaCausalLM, _hub.MistralCausalLM,
    _hub.MixtralCausalLM, _hub.OPTCausalLM, _hub.Phi3CausalLM, _hub.Qwen3CausalLM,
    _hub.Qwen3MoeCausalLM, _hub.QwenCausalLM, _hub.QwenMoeCausalLM, _hub.SmolLM3CausalLM,
)  # fmt: skip
# In its cached steps every query stands at position 0, so that its texts are not those of the
# model (github.com/keras-team/keras-hub/pull/2870).
_WHOLE = (_hub.GPTNeoXCausalLM,)


class BackboneSizes(NamedTuple):
    """What a generator and an export ask of a backbone.

    Attributes:
        vocabulary_size: v.
        max_sequence_length: Tokens that the model reads at most.
        dtype_policy: Of Keras.
        rewinds: What was read last can be read anew.
    """

    vocabulary_size: int
    max_sequence_length: int
    dtype_policy: Any
    rewinds: bool


class KerasHubCausalLM(TextTask, GeneratorCalls):
    """A language model of KerasHub that writes, scores and is exported as ours are.

    Args:
        model: A `keras_hub.models.CausalLM` of a kind that is known here. It is shared, not
            copied: it may still be trained or given LoRA, by KerasHub's own methods.
        tokenizer: Of `tfllm.tokenizers`, with the model's ids.
        context_length: Tokens that the model reads at most.
        generation: `GenerationSettings`, or a dict of them, or None for the plain ones.

    Attributes:
        model: As given.
        backbone: Its `BackboneSizes`.

    Raises:
        UserError: the model cannot be decoded here; with the reason.
    """

    def __init__(self, model, tokenizer: Tokenizer, context_length: int, generation=None):
        require_decodable(model)
        most = _longest(model.backbone)
        if most is not None and context_length > most:
            raise UserError(f"context_length is {context_length}, this model reads {most} at most.")
        self.model = model
        self.generation = GenerationSettings.of(generation)
        whole = isinstance(model, _WHOLE)
        self._set_up(
            BackboneSizes(
                model.backbone.vocabulary_size, context_length, model.dtype_policy, not whole
            ),
            CausalLMPreprocessor(tokenizer, context_length),
        )
        if whole:
            self._steps: CachedSteps | WholeSteps = WholeSteps(self.hidden_states, context_length)
        else:
            self._steps = CachedSteps(model)

    @property
    def variables(self):
        """Of the model."""
        return self.model.variables

    @property
    def weights(self):
        """Of the model."""
        return self.model.weights

    def text(self, **options):
        return CausalTextGenerator(self, self._tokenizer(), **options)

    served: Sequence[tuple[Any, str, Callable]] = ()

    def serve(self, make: Make):
        """The layers of the model multiply `ServedMatrix`es from now on."""
        self.served = list(products(self.model, make))
        return ()

    def begin(self, prompt, lengths):
        """As of `tfllm.decoding.Decodable`."""
        return self._steps.begin(prompt, lengths)

    def grow(self, state, entries, length):
        """As of `tfllm.decoding.Decodable`."""
        return self._steps.grow(state, entries, length)

    def step(self, new: NewTokens, state):
        """As of `tfllm.decoding.Decodable`."""
        with replaced(self.served):
            hidden, state = self._steps.step(new, state)
        return self.logits(wanted(hidden, new)), state

    def hidden_states(self, token_ids):
        """float[b, t, m], after each of int32[b, t], which begin at position 0."""
        inputs = {"token_ids": token_ids, "padding_mask": tf.ones_like(token_ids)}
        with replaced(self.served):
            return self.model.backbone(inputs, training=False)

    def logits(self, hidden):
        """float32[..., v] of hidden states float[..., m]."""
        with replaced(self.served):
            logits = self.model.backbone.token_embedding(hidden, reverse=True)
        return tf.cast(logits, tf.float32)

    def save_to_preset(self, preset_dir, max_shard_size=10):
        """Writes KerasHub's own preset of the model, with our settings beside it.

        Args:
            preset_dir: The folder; an older preset there is replaced.
            max_shard_size: Gigabytes of one file of weights at most.
        """

        def write(aside):
            self.model.save_to_preset(aside, max_shard_size=max_shard_size)
            settings = {
                "context_length": self.backbone.max_sequence_length,
                "generation": dataclasses.asdict(self.generation),
                "chat_template": self._tokenizer().get_config()["chat_template"],
            }
            (Path(aside) / _SETTINGS).write_text(json.dumps(settings, indent=2), encoding="utf-8")

        save_aside(preset_dir, write)

    @classmethod
    def from_preset(cls, preset, **kwargs):
        """`load_keras_hub`."""
        return load_keras_hub(preset, **kwargs)


def from_keras_hub(
    model,
    context_length: int | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    generation: GenerationSettings | None = None,
) -> KerasHubCausalLM:
    """A language model of KerasHub with the calls of ours.

    Args:
        model: A `keras_hub.models.CausalLM` with its preprocessor.
        context_length: Tokens that it reads at most; None means what its backbone is made for or,
            where that has no limit, the `sequence_length` of its preprocessor.
        tokenizer: Of `tfllm.tokenizers`, with the model's ids; None means that of the model.
        generation: How it writes; the tokens at which the model's own `generate` stops end a text
            in any case.

    Raises:
        UserError: the model cannot be decoded, or its tokenizer has none of ours that is the same;
            with the reason.
    """
    require_decodable(model)
    if model.preprocessor is None:
        raise UserError(
            f"This {type(model).__name__} has no preprocessor, so it cannot read or write text."
        )
    if context_length is None:
        context_length = _longest(model.backbone) or model.preprocessor.sequence_length
    theirs = model.preprocessor.tokenizer
    settings = GenerationSettings.of(generation)
    ends = [i for i in settings.end_token_ids if 0 <= i < model.backbone.vocabulary_size]
    ends += [i for i in end_token_ids(theirs) if i not in ends]
    return KerasHubCausalLM(
        model,
        our_tokenizer(theirs) if tokenizer is None else tokenizer,
        context_length,
        dataclasses.replace(settings, end_token_ids=tuple(ends)),
    )


def load_keras_hub(
    folder: str | os.PathLike, context_length: int | None = None, dtype="float32"
) -> KerasHubCausalLM:
    """Reads a language model through KerasHub; nothing is downloaded.

    Args:
        folder: A preset that KerasHub or `save_to_preset` wrote, or a folder of Hugging Face that
            KerasHub can convert, which takes the package `safetensors`.
        context_length: As of `from_keras_hub`; None means, for a folder of Hugging Face, its
            `max_position_embeddings`.
        dtype: The policy to load with.

    Raises:
        UserError: there is no such folder, KerasHub cannot read it, or see `from_keras_hub`.
    """
    path = Path(folder).absolute()
    if not (path / "config.json").is_file():
        raise UserError(
            f"No model at {folder}: expected a folder with config.json. Models are read from this "
            "disk, never downloaded."
        )
    config = read_json(path / "config.json")
    if "registered_name" in config:
        ours = read_json(path / _SETTINGS) if (path / _SETTINGS).exists() else {}
        loaded = from_keras_hub(
            _read(path, dtype),
            context_length or ours.get("context_length"),
            generation=GenerationSettings.of(ours.get("generation")),
        )
        loaded.preprocessor.tokenizer.chat_template = ours.get("chat_template")
        return loaded
    if importlib.util.find_spec("safetensors") is None:
        raise UserError(
            "KerasHub reads folders of Hugging Face with the package safetensors, which is not "
            "installed: pip install safetensors."
        )
    loaded = from_keras_hub(
        corrected(_read(path, dtype), config),
        context_length or config.get("max_position_embeddings"),
        # KerasHub's own does not recognise the added tokens of the folder in a text.
        tokenizer=read_llama(path) if (path / "tokenizer.model").exists() else None,
        generation=generation_settings(Checkpoint(path), encoder_decoder=False),
    )
    tokenizer = loaded.preprocessor.tokenizer
    tokenizer.chat_template = read_chat_template(path, tokenizer)
    return loaded


def _read(path: Path, dtype):
    try:
        return _hub.CausalLM.from_preset(str(path), dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"KerasHub cannot read {path}: {error}") from error


def require_decodable(model) -> None:
    """Refuses a model that our decode loop cannot run.

    Raises:
        UserError: with the reason.
    """
    reason = None
    name = type(model).__name__
    if isinstance(model, _hub.Seq2SeqLM):
        reason = "is a sequence-to-sequence model"
    elif not hasattr(model, "call_with_cache"):
        reason = "has no `call_with_cache`"
    elif not isinstance(model, _CACHED + _WHOLE):
        reason = "keeps a cache of a kind that is not known here"
    elif isinstance(model, _hub.Gemma3CausalLM) and not model.backbone.text_only_model:
        reason = "reads images; without its vision encoder it can be"
    elif getattr(model.backbone, "use_bidirectional_attention", False):
        reason = "is a model of embeddings, which looks ahead"
    elif getattr(model.backbone, "use_sliding_window_attention", False) and isinstance(
        model, _hub.QwenCausalLM | _hub.QwenMoeCausalLM
    ):
        reason = "has sliding windows, which KerasHub decodes only outside of a graph"
    if reason is not None:
        known = ", ".join(sorted(kind.__name__ for kind in _CACHED + _WHOLE))
        raise UserError(f"A {name} cannot be decoded here: it {reason}. Known are {known}.")


def _longest(backbone) -> int | None:
    """Tokens that the backbone is made for; None if its positions have no limit."""
    sizes = vars(backbone)
    if sizes.get("rope_scaling_type") == "su":  # above, a long row would turn its neighbours' too
        return backbone.pretraining_sequence_length
    return sizes.get("max_sequence_length", sizes.get("max_position_embeddings"))

"""How a checkpoint writes unless it is asked otherwise: generation_config.json and its elders."""

import logging
from typing import Any

from tfllm.huggingface.checkpoint import Checkpoint
from tfllm.models import GenerationSettings

_logger = logging.getLogger(__name__)

# What changes the text and is not honoured, with the value that means nothing.
_IGNORED = {
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "diversity_penalty": 0.0,
    "num_beam_groups": 1,
    "penalty_alpha": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "sequence_bias": None,
    "begin_suppress_tokens": None,
    "guidance_scale": 1.0,
}
# Our own: `transformers` keeps them with the others and does not look at them.
_COUNTED = ("presence_penalty", "frequency_penalty")
_TOP_K = 50  # of `transformers`, where a checkpoint samples and does not say otherwise


def generation_settings(
    checkpoint: Checkpoint, *, encoder_decoder: bool = True
) -> GenerationSettings:
    """The settings of a checkpoint; older ones have them in config.json.

    A `max_length` counts the tokens that the decoder reads, the start token with them. Of a
    model without encoder it counts the prompt too, so no number of new tokens follows from it.

    Args:
        checkpoint: Of Hugging Face.
        encoder_decoder: Whether the model has an encoder.

    Returns:
        The settings; what cannot be honoured is logged as a warning.

    Raises:
        UserError: a value that no search can be run with.
    """
    found = {
        name: value
        for name, value in (checkpoint.generation_config or checkpoint.config).items()
        if value is not None
    }
    samples = found.get("do_sample", False)
    suppressed, phrases = _suppressed(found)
    ignored = [name for name, off in _IGNORED.items() if found.get(name, off) != off]
    if phrases:
        ignored.append(f"bad_words_ids of several tokens ({phrases})")
    if samples and found.get("num_beams", 1) > 1:
        ignored.append("do_sample with num_beams")
    if ignored:
        _logger.warning(
            "%s: not honoured in generation: %s.", checkpoint.folder, ", ".join(ignored)
        )
    settings: dict[str, Any] = {
        "temperature": float(found.get("temperature", 1.0)) if samples else 0.0,
        "top_k": found.get("top_k", _TOP_K) if samples else 0,
        "top_p": float(found.get("top_p", 1.0)) if samples else 1.0,
        "min_p": float(found.get("min_p", 0.0)) if samples else 0.0,
        "repetition_penalty": float(found.get("repetition_penalty", 1.0)),
        **{name: float(found.get(name, 0.0)) for name in _COUNTED},
        "num_beams": found.get("num_beams", 1),
        "length_penalty": float(found.get("length_penalty", 1.0)),
        "early_stopping": found.get("early_stopping", False),
        "end_token_ids": _list(found.get("eos_token_id", [])),
        "suppressed_token_ids": suppressed,
        "forced_bos_token_id": found.get("forced_bos_token_id", -1),
        "forced_eos_token_id": _list(found.get("forced_eos_token_id", -1))[0],
        "no_repeat_ngram_size": found.get("no_repeat_ngram_size", 0),
        **_lengths(found, encoder_decoder),
    }
    return GenerationSettings(**settings)


def _lengths(found: dict[str, Any], encoder_decoder: bool) -> dict[str, int]:
    named = ("max_new_tokens", "min_new_tokens")
    lengths: dict[str, int] = {name: found[name] for name in named if name in found}
    if encoder_decoder and "max_length" in found:
        lengths.setdefault("max_new_tokens", found["max_length"] - 1)
    if encoder_decoder and found.get("min_length", 0) > 1:
        lengths.setdefault("min_new_tokens", found["min_length"] - 1)
    return lengths


def _suppressed(found: dict[str, Any]) -> tuple[list[int], int]:
    """Tokens that are never said, and how many phrases there are that cannot be told so."""
    words = found.get("bad_words_ids", [])
    singles = {word[0] for word in words if len(word) == 1} | set(found.get("suppress_tokens", []))
    # `transformers` leaves the end of a text out where it is listed as a bad word.
    singles -= set(_list(found.get("eos_token_id", [])))
    return sorted(singles), sum(len(word) > 1 for word in words)


def _list(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value]


def written(settings: GenerationSettings, *, encoder_decoder: bool) -> dict[str, Any]:
    """What generation_config.json says of settings: `generation_settings` the other way.

    Args:
        settings: Of a model.
        encoder_decoder: Whether the model has an encoder.

    Returns:
        The configuration, without the special ids that a tokenizer brings.
    """
    length = settings.max_new_tokens
    said: dict[str, Any] = {
        **({"max_length": length + 1} if encoder_decoder else {"max_new_tokens": length}),
        "num_beams": settings.num_beams,
        "length_penalty": settings.length_penalty,
        "early_stopping": settings.early_stopping,
        "repetition_penalty": settings.repetition_penalty,
    }
    if settings.temperature:
        said |= {
            "do_sample": True,
            "temperature": settings.temperature,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
            "min_p": settings.min_p,
        }
    said |= {name: penalty for name in _COUNTED if (penalty := getattr(settings, name))}
    if settings.end_token_ids:
        ends = list(settings.end_token_ids)
        said["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    if settings.suppressed_token_ids:
        said["bad_words_ids"] = [[token] for token in settings.suppressed_token_ids]
    if settings.forced_bos_token_id >= 0:
        said["forced_bos_token_id"] = settings.forced_bos_token_id
    if settings.forced_eos_token_id >= 0:
        said["forced_eos_token_id"] = settings.forced_eos_token_id
    if settings.min_new_tokens:
        said["min_new_tokens"] = settings.min_new_tokens
    if settings.no_repeat_ngram_size:
        said["no_repeat_ngram_size"] = settings.no_repeat_ngram_size
    return said

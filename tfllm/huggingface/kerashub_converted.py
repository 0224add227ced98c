"""What KerasHub's converters leave out of a config.json of Hugging Face, put right or refused."""

from typing import Any

from tfllm.errors import UserError

# Ways to scale positions that KerasHub's models of these types have.
_SCALED = {"llama": "llama3", "gemma3": "linear", "gemma3_text": "linear"}
_LLAMA3 = {
    "factor": "rope_frequency_adjustment_factor",
    "low_freq_factor": "rope_low_freq_factor",
    "high_freq_factor": "rope_high_freq_factor",
    "original_max_position_embeddings": "rope_pretraining_sequence_length",
}


def corrected(model, config: dict[str, Any]):
    """The model as its config.json has it.

    KerasHub 0.32 gives every Llama the same epsilon, and finds the scaled positions of a Llama only
    where `transformers` wrote them before its version 5.

    Args:
        model: A `keras_hub.models.CausalLM` of KerasHub's converters.
        config: Of config.json.

    Returns:
        The model itself, or one with its weights in a backbone of other settings.

    Raises:
        UserError: it has scaled positions or biases that KerasHub's model does not have.
    """
    kind = config["model_type"]
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    scaled = _kinds(scaling)
    if scaled - {_SCALED.get(kind)}:
        raise UserError(
            f"The positions are scaled ({', '.join(sorted(scaled))} in config.json) in a way that "
            f"KerasHub does not know for the model type {kind}."
        )
    if kind != "llama":
        return model
    for name in ("attention_bias", "mlp_bias"):
        if config.get(name):
            raise UserError(f"{name} is set in config.json, KerasHub's Llama has no such biases.")
    wanted = {"layer_norm_epsilon": config["rms_norm_eps"]}
    if scaled:
        wanted |= {ours: scaling[theirs] for theirs, ours in _LLAMA3.items()}
    settings = model.backbone.get_config()
    if all(settings[name] == value for name, value in wanted.items()):
        return model
    backbone = type(model.backbone).from_config(settings | wanted)
    for new, old in zip(backbone.variables, model.backbone.variables, strict=True):
        new.assign(old)
    return type(model)(backbone=backbone, preprocessor=model.preprocessor)


def _kinds(scaling) -> set[str]:
    """Names of the ways to scale; of a model with two kinds of layers there is one for each."""
    each = [scaling, *(inner for inner in scaling.values() if isinstance(inner, dict))]
    names = {rope.get("rope_type", rope.get("type", "default")) for rope in each}
    return names - {"default"}

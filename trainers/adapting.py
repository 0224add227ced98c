"""What of a model is trained, and how fast."""

from tfllm.errors import UserError
from tfllm.models import Task, enable_lora, freeze, layer_scales
from tfllm.trainers.recipe import Adaptation, Recipe


def adapt(model: Task, recipe: Recipe) -> Task:
    """The model, of which only that trains which the recipe's `adaptation` says.

    Args:
        model: New, or of the recipe's preset; changed in place.
        recipe: The recipe.

    Raises:
        UserError: the model has no such layers, or there is no preset.
    """
    adaptation = recipe.adaptation
    if adaptation == Adaptation():
        return model
    if not recipe.preset:
        raise UserError(
            "adaptation leaves most weights as they are, and without a preset they are random: "
            "give the recipe's preset to start from."
        )
    if adaptation.lora_feed_forward and not adaptation.lora_rank:
        raise UserError("adaptation.lora_feed_forward needs a lora_rank above 0.")
    if adaptation.lora_rank:
        enable_lora(model, adaptation.lora_rank, feed_forward=adaptation.lora_feed_forward)
    freeze(model, adaptation.freeze_layers, adaptation.freeze_embeddings)
    return model


def scales(model: Task, recipe: Recipe) -> dict[str, float] | None:
    """The `scales` of the run's `AdamW`."""
    decay = recipe.optimizer.layer_decay
    return None if decay == 1 else layer_scales(model, decay)

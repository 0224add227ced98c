"""LoRA: training a small change to a model's kernels instead of the kernels."""

from collections.abc import Collection, Iterator

import keras
import numpy as np

from tfllm.errors import UserError
from tfllm.layers import (
    DecoderBlock,
    EncoderBlock,
    GatedFeedForward,
    Linear,
    MultiHeadAttention,
)
from tfllm.models.depth import block_stacks
from tfllm.models.masked_lm import MaskedLM
from tfllm.models.text_classifier import TextClassifier

TARGETS = ("query", "key", "value", "output")


def enable_lora(
    model: keras.Model,
    rank: int,
    *,
    alpha: float | None = None,
    targets: Collection[str] = ("query", "value"),
    feed_forward: bool = False,
) -> int:
    """Freezes a task but for its head, and lets it learn changes of low rank beside its kernels.

    A kernel W, float[m, n], becomes W + alpha / rank * A B, with A float[m, rank] and B
    float[rank, n], which is zero at first. Only A, B and the task's own head train: what the task
    has besides its backbone, and a pooler that it reads. Biases do not.

    Call it before `compile`, within the scope of the strategy. `save_to_preset` and an export hold
    the merged, plain kernels; `merge_lora` does that to the model itself.

    Args:
        model: A task of `tfllm.models` on a Transformer.
        rank: The rank of each change.
        alpha: None means `rank`.
        targets: Which projections of each attention: of `TARGETS`. In a decoder that looks at an
            encoder, those of both attentions.
        feed_forward: Whether the kernels of the feed-forward networks too.

    Returns:
        The number of weights that train.

    Raises:
        UserError: the model has no Transformer's blocks or LoRA already, the rank is below 1, or
            there is no such target.

    Source:
        Hu et al. 2021, sections 4.1 and 4.2 (query and value), https://arxiv.org/abs/2106.09685
    """
    if rank < 1:
        raise UserError(f"The rank of LoRA must be at least 1: got {rank}.")
    unknown = [name for name in targets if name not in TARGETS]
    if unknown or not targets and not feed_forward:
        raise UserError(
            f"The targets of LoRA must be some of {', '.join(TARGETS)}: got {list(targets)}."
        )
    linears = [
        linear
        for stack in block_stacks(model.backbone)
        for block in stack
        for layer in block
        if isinstance(layer, EncoderBlock)
        for linear in _linears(layer, targets, feed_forward)
    ]
    if not linears:
        raise UserError(
            "LoRA changes the attention of a Transformer, and the backbone here is a "
            f"{type(model.backbone).__name__}: freeze some of its layers instead."
        )
    if any(linear.lora_enabled for linear in linears):
        raise UserError("The model has LoRA already: merge_lora(model) makes it a plain one.")
    for variable in model.backbone.variables:
        if not _is_of_head(model, variable):
            variable.trainable = False
    for linear in linears:
        linear.enable_lora(rank, alpha)
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def _is_of_head(model, variable) -> bool:
    """Whether a variable of the backbone belongs to what the task was made for."""
    reads_pooler = isinstance(model, TextClassifier) or (
        isinstance(model, MaskedLM) and model.next_sentence_head is not None
    )
    pooler = model.backbone.pooler if reads_pooler else None
    return pooler is not None and any(variable is one for one in pooler.variables)


def _linears(block: EncoderBlock, targets, feed_forward) -> Iterator[Linear]:
    attentions: list[MultiHeadAttention] = [block.attention]
    if isinstance(block, DecoderBlock) and block.cross_attention:
        attentions.append(block.memory_attention)
    for attention in attentions:
        of_name = {
            "query": attention.query,
            "key": attention.key,
            "value": attention.value,
            "output": attention.output_projection,
        }
        yield from (of_name[name] for name in targets)
    if feed_forward:
        yield block.feed_forward.inner
        yield block.feed_forward.outer
        if isinstance(block.feed_forward, GatedFeedForward):
            yield block.feed_forward.gate

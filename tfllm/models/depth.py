"""How deep in a model each weight stands: what is frozen first and learns slowest."""

from collections.abc import Iterable

import keras

from tfllm.errors import UserError
from tfllm.layers import PositionEmbedding, RelativePositionBias, TokenEmbedding
from tfllm.models.bert import BertBackbone
from tfllm.models.gpt import GPTBackbone
from tfllm.models.lstm import LSTMBackbone
from tfllm.models.lstm_encoder import LSTMEncoderBackbone
from tfllm.models.lstm_seq2seq import LSTMSeq2SeqBackbone
from tfllm.models.seq2seq_backbone import Seq2SeqBackbone

_TABLES = (TokenEmbedding, PositionEmbedding, RelativePositionBias)


def freeze(model: keras.Model, layers: int = 0, embeddings: bool = False) -> None:
    """Leaves the lowest weights of a task as they are in training. Call it before `compile`.

    Args:
        model: A task of `tfllm.models`.
        layers: The first blocks that stay; of an encoder–decoder those of each of the two. Of an
            LSTM a block is a layer.
        embeddings: Whether the tables of the tokens, positions and segments stay, and what
            normalises them. A tied table scores the output too.

    Raises:
        UserError: the model has fewer blocks.
    """
    stacks = block_stacks(model.backbone)
    most = min(map(len, stacks), default=0)
    if not 0 <= layers <= most:
        raise UserError(
            f"The first blocks to freeze must be 0 to {most}, as many as this "
            f"{type(model).__name__} has: got {layers}."
        )
    frozen = [layer for stack in stacks for block in stack[:layers] for layer in block]
    for variable in _variables(frozen):
        variable.trainable = False
    if embeddings:
        for variable in _embeddings(model.backbone):
            variable.trainable = False


def layer_scales(model: keras.Model, decay: float) -> dict[str, float]:
    """A learning rate per layer, lower towards the input: the `scales` of `AdamW`.

    With n blocks the factor is decay ** (n + 2 - depth). The depth is 0 for the embeddings, i + 1
    for block i, n + 1 for what the backbone has behind its blocks (a last norm, a pooler, an untied
    output table), and n + 2 for the task's own head: its factor is 1. The two stacks of an
    encoder–decoder are counted from their upper ends, so that both upper blocks have depth n.

    Args:
        model: A task of `tfllm.models`, with LoRA and frozen already what shall be.
        decay: The factor from one layer to the next below, in (0, 1].

    Returns:
        {path of a trainable variable: factor of its learning rate}.

    Raises:
        UserError: `decay` is out of range.

    Source:
        Clark et al. 2020 (ELECTRA), appendix B, https://arxiv.org/abs/2003.10555, with the depths
        of `_get_layer_lrs` in model/optimization.py of github.com/google-research/electra; after
        Howard and Ruder 2018, section 3.2, https://arxiv.org/abs/1801.06146
    """
    if not 0 < decay <= 1:
        raise UserError(f"The decay of the learning rate must be in (0, 1]: got {decay}.")
    stacks = block_stacks(model.backbone)
    highest = max(map(len, stacks), default=0)
    top = highest + 2
    depths = {variable.path: top for variable in model.trainable_variables}
    for variable in model.backbone.variables:
        depths[variable.path] = top - 1
    for variable in _embeddings(model.backbone):
        depths[variable.path] = 0
    for stack in stacks:
        for i, block in enumerate(stack, start=highest - len(stack) + 1):
            for variable in _variables(block):
                depths[variable.path] = i
    return {
        variable.path: float(decay ** (top - depths[variable.path]))
        for variable in model.trainable_variables
    }


def block_stacks(backbone: keras.Model) -> list[list[list[keras.layers.Layer]]]:
    """The blocks of a backbone from its input upwards, each as its layers; one list per stack."""
    if isinstance(backbone, GPTBackbone | BertBackbone):
        return [_alone(backbone.blocks)]
    if isinstance(backbone, Seq2SeqBackbone):
        return [_alone(backbone.encoder_blocks), _alone(backbone.decoder_blocks)]
    if isinstance(backbone, LSTMBackbone):
        return [_alone(backbone.lstm.lstms)]
    if isinstance(backbone, LSTMEncoderBackbone):
        return [_both_ways(backbone.lstm)]
    if isinstance(backbone, LSTMSeq2SeqBackbone):
        decoder = backbone.decoder
        first, *others = map(list, zip(decoder.lstms, decoder.norms, strict=True))
        return [_both_ways(backbone.encoder), [[*first, decoder.attention], *others]]
    return []  # a skip-gram: tables alone


def _alone(layers):
    return [[layer] for layer in layers]


def _both_ways(lstm):
    norms = [*([norm] for norm in lstm.norms), []]  # the last layer has none
    return [
        [forward, backward, *norm]
        for forward, backward, norm in zip(lstm.forward, lstm.backward, norms, strict=True)
    ]


def _variables(layers: Iterable[keras.layers.Layer]) -> list[keras.Variable]:
    return [variable for layer in layers for variable in layer.variables]


def _embeddings(backbone: keras.Model) -> list[keras.Variable]:
    """All that stands below the first block; an untied output table stands above the last."""
    found = []
    for layer in backbone.layers:
        if isinstance(layer, _TABLES) or layer.name == "embedding_norm":
            found += layer.variables
        if isinstance(layer, TokenEmbedding) and not layer.tied:
            found = [variable for variable in found if variable is not layer.output_embeddings]
    return found

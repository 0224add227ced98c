"""From a folder of Hugging Face to a model with its tokenizer."""

import logging
import os

from tfllm.errors import UserError
from tfllm.huggingface.chat_templates import read_chat_template
from tfllm.huggingface.checkpoint import Checkpoint
from tfllm.huggingface.families import FAMILIES, KERAS_HUB
from tfllm.huggingface.report import report
from tfllm.layers import given_weights
from tfllm.models import TextTask

_logger = logging.getLogger(__name__)


def from_huggingface(folder: str | os.PathLike) -> TextTask:
    """Reads a checkpoint: configuration, weights, tokenizer, labels, pooling, how it writes.

    Nothing is downloaded, and no code that a folder may hold is run. What the model has no use
    for is logged as a warning.

    Args:
        folder: With config.json, the weights (safetensors, or the older pytorch_model.bin) and the
            files of the tokenizer; a folder of sentence-transformers too.

    Returns:
        The task of `tfllm.models` that fits the architecture.

    Raises:
        UserError: the architecture is not known, or a file is missing, damaged or of other sizes
            than config.json says.
    """
    checkpoint = Checkpoint(folder)
    architecture = _architecture(checkpoint)
    if architecture in KERAS_HUB:
        from tfllm.huggingface.kerashub import load_keras_hub

        return load_keras_hub(folder)
    family = FAMILIES[architecture]
    tokenizer = family.read_tokenizer(checkpoint.folder)
    tokenizer.chat_template = read_chat_template(checkpoint.folder, tokenizer)
    with given_weights():
        try:
            model = family.module().read(checkpoint, tokenizer)
        except UserError:
            raise
        except ValueError as error:  # a layer's own, as of heads that do not divide the width
            raise UserError(
                f"{checkpoint.folder}/config.json describes no model that can be made: {error}"
            ) from error
    if said := report(checkpoint):
        _logger.warning(said)
    return model


def _architecture(checkpoint: Checkpoint) -> str:
    named = checkpoint.config.get("architectures")
    named = named if isinstance(named, list) else [] if named is None else [named]
    known = [*FAMILIES, *KERAS_HUB]
    found = [name for name in named if name in known]
    if found:
        return found[0]
    raise UserError(
        f"{checkpoint.folder}/config.json names "
        + (f"the architecture {', '.join(map(str, named))}" if named else "no architecture")
        + f"; known are {', '.join(known)}."
    )

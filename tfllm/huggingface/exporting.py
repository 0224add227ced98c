"""From a model to a folder that `transformers` loads."""

import json
import os
from pathlib import Path
from typing import Any

from tfllm.errors import UserError
from tfllm.huggingface.chat_templates import write_chat_template
from tfllm.huggingface.families import FAMILIES, OF_BACKBONE
from tfllm.huggingface.folders import write_checkpoint
from tfllm.huggingface.generation_settings import written
from tfllm.huggingface.stored import StoredTensor
from tfllm.huggingface.weight_files import write_weights
from tfllm.models import Task
from tfllm.models.lora_merging import merged

_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def to_huggingface(model: Task, folder: str | os.PathLike) -> None:
    """Writes config.json, safetensors and the files of the tokenizer, in float32.

    Args:
        model: A GPT, BERT, T5 or Marian of `tfllm.models` with its preprocessor; LoRA is merged.
        folder: The folder, which appears complete or not at all; an older checkpoint there is
            replaced.

    Raises:
        UserError: Hugging Face has no such model, or there is something else at `folder`.
    """
    backbone = type(getattr(model, "backbone", None)).__name__
    if backbone not in OF_BACKBONE:
        raise UserError(
            f"Hugging Face has no architecture for a {type(model).__name__}: to_huggingface takes "
            "GPT, BERT, T5 and Marian models."
        )
    if model.preprocessor is None:
        raise UserError("The model has no preprocessor, and so no tokenizer to write.")
    family = OF_BACKBONE[backbone]
    module = family.module()

    def write(aside: str) -> None:
        config, _ = module.write(model)
        _write_json(Path(aside, "config.json"), config)
        if hasattr(model, "generation"):
            said = written(
                model.generation, encoder_decoder=config.get("is_encoder_decoder", False)
            )
            ids = {key: config[key] for key in _SPECIAL_IDS if key in config}
            _write_json(Path(aside, "generation_config.json"), {**ids, **said})
        layout = {
            name: StoredTensor(array.shape, array.dtype.name)
            for name, array in module.write(model)[1]
        }
        write_weights(aside, layout, module.write(model)[1])
        family.write_tokenizer(model.preprocessor.tokenizer, Path(aside))
        write_chat_template(model.preprocessor.tokenizer, Path(aside))
        if family is FAMILIES["BertModel"]:
            module.write_more(model, Path(aside))

    with merged(model):
        write_checkpoint(folder, write)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")

"""Every recipe of the package trains: the ones that begin with a preset from one made here."""

import dataclasses
import math

import pytest

from tfllm.data import Records
from tfllm.models import (
    BertBackbone,
    EncoderPreprocessor,
    GPTBackbone,
    GPTCausalLM,
    GPTCausalLMPreprocessor,
    TextEmbedder,
)
from tfllm.trainers import load_recipe, recipe_names

# Each recipe's sizes, as small as its model allows.
SMALL = {
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 8,
}
FROM_A_PRESET = {
    "classifier_finetune": "text_classifier",
    "embedder_finetune": "text_embedder",
    "gpt_finetune": "chat",
    "qa_finetune": "span_qa",
}


@pytest.fixture(scope="module")
def presets(data, tmp_path_factory):
    """By the recipe that begins with it, a preset with the tokenizer of its data."""
    folder, made = tmp_path_factory.mktemp("presets"), {}
    for name, task in FROM_A_PRESET.items():
        tokenizer = Records(data[task]).tokenizer
        size = tokenizer.vocabulary_size()
        if name == "gpt_finetune":
            backbone = GPTBackbone(size, 1, 2, 8, 32)
            model = GPTCausalLM(backbone, GPTCausalLMPreprocessor(tokenizer, 32))
        else:
            backbone = BertBackbone(size, **SMALL)
            model = TextEmbedder(backbone, EncoderPreprocessor(tokenizer, 32))
        made[name] = str(folder / name)
        model.save_to_preset(made[name])
    return made


def data_of(recipe, data):
    if recipe.name in FROM_A_PRESET:
        return data[FROM_A_PRESET[recipe.name]]
    return data["denoising" if recipe.family == "t5" else recipe.task]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_of_the_package_trains_two_steps(name, data, presets, train):
    recipe = load_recipe(name).with_settings(
        ["steps=2", "global_batch=2", "validation_steps=1", "sample_prompts=[]"]
    )
    recipe = dataclasses.replace(
        recipe,
        batch_tokens=min(recipe.batch_tokens, 600),
        model={key: SMALL.get(key, value) for key, value in recipe.model.items()},
        preset=presets.get(name, ""),
    )
    result, losses = train(recipe, data=data_of(recipe, data))
    assert result.steps == len(losses) == 2
    assert math.isfinite(result.validation_loss)

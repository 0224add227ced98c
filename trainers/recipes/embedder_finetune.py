"""Vectors of texts, from a pretrained BERT, by pairs that belong together.

tfllm prepare pairs.tsv --task text_embedder --sequence-length 64 --out data/pairs
tfllm train embedder_finetune --data data/pairs --set preset=presets/minilm

Each text shall find its other one among those of the batch: a larger batch is a harder question.

Source: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="embedder_finetune",
        task="text_embedder",
        global_batch=64,
        steps=500,
        optimizer=Optimizer(
            peak_learning_rate=5e-5, warmup_steps=50, final_fraction=0.0, weight_decay=0.01
        ),
        precision="bfloat16",
        validate_every=100,
        validation_steps=0,
        checkpoint_every=100,
    )

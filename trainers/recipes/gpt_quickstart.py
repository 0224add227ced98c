"""A small GPT on the text of Python's own documentation: about a minute on 2 CPU cores.

tfllm train gpt_quickstart --data data/pydoc
"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="gpt_quickstart",
        family="gpt",
        model={
            "num_layers": 3,
            "num_heads": 4,
            "hidden_dim": 128,
            "intermediate_dim": 512,
            "dropout": 0.1,
        },
        global_batch=8,
        steps=500,
        optimizer=Optimizer(peak_learning_rate=3e-3, warmup_steps=30),
        validate_every=100,
        validation_steps=10,
        checkpoint_every=100,
        sample_prompts=("The", "A class"),
    )

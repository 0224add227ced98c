"""A GPT for a book of about 4 MB: ten minutes on 2 CPU cores.

tfllm train gpt_10m --data data/book
"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="gpt_10m",
        family="gpt",
        model={
            "num_layers": 4,
            "num_heads": 4,
            "hidden_dim": 256,
            "intermediate_dim": 1024,
            "dropout": 0.1,
        },
        global_batch=16,
        steps=1000,
        optimizer=Optimizer(peak_learning_rate=2e-3, warmup_steps=100),
        precision="bfloat16",  # twice as fast where the CPU has it, slow where not
        validate_every=250,
        checkpoint_every=250,
        sample_prompts=("It was", "She"),
    )

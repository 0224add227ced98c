"""GPT-2 small: 12 layers, 124 M weights with a vocabulary of 50,257. Not yet run.

tfllm train gpt_small --data data/web    (prepared with --sequence-length 1024)

Source: Radford et al. 2019 (the shape); nanoGPT 3adf61e1, config/train_gpt2.py (the optimizer and
the tokens per step).
"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="gpt_small",
        family="gpt",
        model={
            "num_layers": 12,
            "num_heads": 12,
            "hidden_dim": 768,
            "intermediate_dim": 3072,
            "dropout": 0.0,
        },
        global_batch=480,  # x 1,024 tokens = 0.49 M tokens per step
        steps=600_000,
        optimizer=Optimizer(peak_learning_rate=6e-4, warmup_steps=2_000),
        precision="bfloat16",
        validate_every=1_000,
        validation_steps=100,
        checkpoint_every=1_000,
        keep_checkpoints=3,
        sample_prompts=("The", "In 1969"),
    )

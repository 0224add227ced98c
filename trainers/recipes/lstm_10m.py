"""The LSTM baseline for a book of about 4 MB: ten minutes on 2 CPU cores.

tfllm train lstm_10m --data data/book
"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="lstm_10m",
        family="lstm",
        model={"num_layers": 2, "hidden_dim": 512, "dropout": 0.1},
        global_batch=16,
        steps=800,
        optimizer=Optimizer(peak_learning_rate=3e-3, warmup_steps=100),
        precision="bfloat16",  # twice as fast where the CPU has it, slow where not
        validate_every=250,
        checkpoint_every=250,
        sample_prompts=("It was", "She"),
    )

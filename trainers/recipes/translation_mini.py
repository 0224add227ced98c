"""A small Transformer that translates: some ten thousand pairs, 2 CPU cores.

tfllm prepare pairs.tsv --task seq2seq_lm --column source=1 --column target=2 \\
    --sequence-length 128 --out data/pairs
tfllm train translation_mini --data data/pairs

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="translation_mini",
        task="seq2seq_lm",
        family="marian",
        model={
            "num_layers": 3,
            "num_heads": 4,
            "hidden_dim": 256,
            "intermediate_dim": 1024,
            "dropout": 0.1,
        },
        label_smoothing=0.1,
        global_batch=32,
        steps=3000,
        optimizer=Optimizer(
            peak_learning_rate=2e-3, warmup_steps=400, final_fraction=0.02, weight_decay=0.01
        ),
        precision="bfloat16",  # twice as fast where the CPU has it, slow where not
        validate_every=500,
        checkpoint_every=500,
    )

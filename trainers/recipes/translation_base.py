"""The Transformer of the paper, base size: 65 M weights with 37,000 pieces. Not yet run.

tfllm train translation_base --data data/wmt    (prepared with --task seq2seq_lm
    --vocabulary-size 37000 --sequence-length 256)

Source: Vaswani et al. 2017, sections 3 and 5, https://arxiv.org/abs/1706.03762

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="translation_base",
        task="seq2seq_lm",
        family="marian",
        model={
            "num_layers": 6,
            "num_heads": 8,
            "hidden_dim": 512,
            "intermediate_dim": 2048,
            "activation": "relu",
            "dropout": 0.1,
        },
        label_smoothing=0.1,
        global_batch=100,  # x 256 tokens of each side
        steps=100_000,
        optimizer=Optimizer(
            peak_learning_rate=7e-4,
            warmup_steps=4_000,
            final_fraction=0.0,
            weight_decay=0.0,
            beta_2=0.98,
        ),
        precision="bfloat16",
        validate_every=2_000,
        checkpoint_every=2_000,
        keep_checkpoints=3,
    )

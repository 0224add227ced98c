"""T5 1.0 base: 12 + 12 layers, 220 M weights with a vocabulary of 32,128. Not yet run.

tfllm train t5_base --data data/web    (prepared with --task denoising --sequence-length 512)

Source: Raffel et al. 2020, section 3.1, https://arxiv.org/abs/1910.10683; AdamW instead of
Adafactor.

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="t5_base",
        task="seq2seq_lm",
        family="t5",
        model={
            "num_layers": 12,
            "num_heads": 12,
            "hidden_dim": 768,
            "intermediate_dim": 3072,
            "dropout": 0.1,
        },
        objective={"name": "span_corruption"},
        global_batch=128,
        steps=524_288,
        optimizer=Optimizer(peak_learning_rate=3e-4, warmup_steps=10_000, weight_decay=0.01),
        precision="bfloat16",
        validate_every=5_000,
        validation_steps=100,
        checkpoint_every=5_000,
        keep_checkpoints=3,
    )

"""A small T5, pretrained on corrupted spans: a book, 2 CPU cores.

tfllm prepare book.txt --task denoising --sequence-length 128 --out data/book-spans
tfllm train t5_mini --data data/book-spans

With --set "objective={'name': 'prefix_lm'}" it learns to go on from a beginning instead.

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="t5_mini",
        task="seq2seq_lm",
        family="t5",
        model={
            "num_layers": 3,
            "num_heads": 4,
            "hidden_dim": 256,
            "intermediate_dim": 1024,
            "dropout": 0.1,
        },
        objective={"name": "span_corruption"},
        global_batch=32,
        steps=1500,
        optimizer=Optimizer(peak_learning_rate=2e-3, warmup_steps=150),
        precision="bfloat16",
        validate_every=500,
        checkpoint_every=500,
    )

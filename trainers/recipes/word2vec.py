"""Vectors of words from a book of about 4 MB: 10 times the text, half a minute on 2 CPU cores.

    tfllm prepare --task skip_gram book.txt --out data/words
    tfllm train word2vec --data data/words

For another corpus set `steps` to the number of passes times its rows divided by `global_batch`.
"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="word2vec",
        task="skip_gram",
        model={"hidden_dim": 100},
        objective={"window": 5, "negatives": 5, "sample": 1e-3},
        global_batch=32,
        steps=870,
        # Most rows of the tables have no gradient in a step: nothing shall pull them to 0, and no
        # norm of the rest shall scale them.
        optimizer=Optimizer(
            peak_learning_rate=3e-2,
            warmup_steps=20,
            final_fraction=0.01,
            weight_decay=0.0,
            beta_2=0.99,
            clip_norm=0.0,
        ),
        validate_every=200,
        checkpoint_every=200,
    )

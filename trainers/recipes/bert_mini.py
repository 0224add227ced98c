"""A small BERT, pretrained on masked words and next sentences: a book, 2 CPU cores.

tfllm prepare book.txt --task masked_lm --sequence-length 128 --out data/book-mlm
tfllm train bert_mini --data data/book-mlm

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="bert_mini",
        task="masked_lm",
        family="bert",
        model={
            "num_layers": 4,
            "num_heads": 4,
            "hidden_dim": 256,
            "intermediate_dim": 1024,
            "dropout": 0.1,
        },
        objective={"pair": "next_sentence", "whole_words": True},
        global_batch=32,
        steps=2000,
        optimizer=Optimizer(peak_learning_rate=1e-3, warmup_steps=200, weight_decay=0.01),
        precision="bfloat16",  # twice as fast where the CPU has it, slow where not
        validate_every=500,
        checkpoint_every=500,
    )

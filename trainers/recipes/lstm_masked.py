"""The recurrent baseline of bert_mini: a bidirectional LSTM.

tfllm train lstm_masked --data data/book-mlm

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="lstm_masked",
        task="masked_lm",
        family="lstm",
        model={"num_layers": 2, "hidden_dim": 512, "dropout": 0.1},
        objective={"pair": "next_sentence", "whole_words": True},
        global_batch=32,
        steps=1000,
        optimizer=Optimizer(peak_learning_rate=2e-3, warmup_steps=100, weight_decay=0.01),
        precision="bfloat16",
        validate_every=250,
        checkpoint_every=250,
    )

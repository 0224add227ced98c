"""The recurrent baseline of translation_mini: LSTMs with attention over the source.

tfllm train translation_lstm --data data/pairs

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="translation_lstm",
        task="seq2seq_lm",
        family="lstm",
        model={"num_layers": 2, "hidden_dim": 384, "dropout": 0.1},
        label_smoothing=0.1,
        global_batch=32,
        steps=3000,
        optimizer=Optimizer(
            peak_learning_rate=4e-3, warmup_steps=200, final_fraction=0.02, weight_decay=0.01
        ),
        precision="bfloat16",
        validate_every=500,
        checkpoint_every=500,
    )

"""The recurrent baseline of classifier_scratch: a bidirectional LSTM.

tfllm train classifier_lstm --data data/reviews

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="classifier_lstm",
        task="text_classifier",
        family="lstm",
        model={"num_layers": 1, "hidden_dim": 256, "dropout": 0.5},
        global_batch=32,
        steps=600,
        optimizer=Optimizer(peak_learning_rate=2e-3, warmup_steps=50, final_fraction=0.0),
        validate_every=150,
        validation_steps=0,
        checkpoint_every=150,
    )

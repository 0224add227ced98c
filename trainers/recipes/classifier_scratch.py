"""A classifier of texts that begins with nothing: ten thousand sentences, 2 CPU cores.

tfllm prepare reviews.tsv --task text_classifier --tokenizer wordpiece --sequence-length 64 \\
    --out data/reviews
tfllm train classifier_scratch --data data/reviews

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="classifier_scratch",
        task="text_classifier",
        family="bert",
        model={
            "num_layers": 2,
            "num_heads": 4,
            "hidden_dim": 128,
            "intermediate_dim": 512,
            "dropout": 0.3,
        },
        global_batch=32,
        steps=900,
        optimizer=Optimizer(peak_learning_rate=1e-3, warmup_steps=100, final_fraction=0.0),
        validate_every=150,
        validation_steps=0,
        checkpoint_every=150,
    )

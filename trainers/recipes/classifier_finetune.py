"""A classifier of texts from a pretrained BERT: ten thousand sentences, 2 CPU cores.

tfllm prepare reviews.tsv --task text_classifier --sequence-length 64 --out data/reviews
tfllm train classifier_finetune --data data/reviews --set preset=presets/minilm

Source: Devlin et al. 2019, appendix A.3, https://arxiv.org/abs/1810.04805

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="classifier_finetune",
        task="text_classifier",
        global_batch=32,
        steps=600,
        optimizer=Optimizer(
            peak_learning_rate=1e-4,
            warmup_steps=60,
            final_fraction=0.0,
            weight_decay=0.01,
            beta_2=0.999,
        ),
        precision="bfloat16",
        validate_every=200,
        validation_steps=0,
        checkpoint_every=200,
    )

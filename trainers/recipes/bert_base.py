"""BERT base: 12 layers, 110 M weights with a vocabulary of 30,522. Not yet run.

tfllm train bert_base --data data/web    (prepared with --task masked_lm --sequence-length 512)

Source: Devlin et al. 2019, appendix A.2, https://arxiv.org/abs/1810.04805

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="bert_base",
        task="masked_lm",
        family="bert",
        model={
            "num_layers": 12,
            "num_heads": 12,
            "hidden_dim": 768,
            "intermediate_dim": 3072,
            "dropout": 0.1,
        },
        objective={"pair": "next_sentence"},
        global_batch=256,
        steps=1_000_000,
        optimizer=Optimizer(
            peak_learning_rate=1e-4,
            warmup_steps=10_000,
            final_fraction=0.0,
            weight_decay=0.01,
            beta_2=0.999,
        ),
        precision="bfloat16",
        validate_every=5_000,
        validation_steps=100,
        checkpoint_every=5_000,
        keep_checkpoints=3,
    )

"""Answers found in texts, from a pretrained BERT: ten thousand questions, 2 CPU cores.

tfllm prepare questions.jsonl --task span_qa --sequence-length 192 --out data/questions
tfllm train qa_finetune --data data/questions --set preset=presets/bert

Source: Devlin et al. 2019, section 4.2, https://arxiv.org/abs/1810.04805

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="qa_finetune",
        task="span_qa",
        global_batch=16,
        steps=1500,
        optimizer=Optimizer(
            peak_learning_rate=1e-4,
            warmup_steps=150,
            final_fraction=0.0,
            weight_decay=0.01,
            beta_2=0.999,
        ),
        precision="bfloat16",
        validate_every=250,
        validation_steps=0,
        checkpoint_every=250,
    )

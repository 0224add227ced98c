"""A pretrained GPT learns to answer: chats, or prompts with their completions.

tfllm prepare chats.jsonl --task chat --tokenizer presets/gpt --sequence-length 256 --out data/chats
tfllm train gpt_finetune --data data/chats --set preset=presets/gpt

"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="gpt_finetune",
        task="causal_lm",
        global_batch=16,
        steps=500,
        optimizer=Optimizer(
            peak_learning_rate=1e-4, warmup_steps=50, final_fraction=0.0, weight_decay=0.01
        ),
        precision="bfloat16",
        validate_every=100,
        checkpoint_every=100,
    )

"""A small Transformer that summarises: some ten thousand short documents, 2 CPU cores.

tfllm prepare documents.jsonl --task seq2seq_lm --column source=document --column target=summary \\
    --sequence-length 256 --out data/summaries
tfllm train summary_mini --data data/summaries

Documents are many times as long as their summaries: packed beside each other, half of the
positions would be padding, so batches are buckets of like lengths.
"""

from tfllm.trainers.recipe import Optimizer, Recipe


def recipe():
    return Recipe(
        name="summary_mini",
        task="seq2seq_lm",
        family="marian",
        model={
            "num_layers": 3,
            "num_heads": 4,
            "hidden_dim": 256,
            "intermediate_dim": 1024,
            "dropout": 0.2,
        },
        label_smoothing=0.1,
        batch_tokens=5120,
        steps=2000,
        optimizer=Optimizer(
            peak_learning_rate=2e-3, warmup_steps=300, final_fraction=0.02, weight_decay=0.01
        ),
        precision="bfloat16",
        validate_every=500,
        checkpoint_every=500,
    )

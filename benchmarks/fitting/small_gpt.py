"""A small GPT with everything that a run must get right after a kill, and its data."""

import dataclasses
import json
from pathlib import Path
from pydoc_data import topics
from typing import Any

TEXT_BYTES = 300_000


def write_recipe(folder: Path, **settings: Any) -> Path:
    """Writes recipe.json, and the data it names unless they are there, to a folder.

    Dropout, two microbatches and moving averages are on.

    Args:
        folder: Where to.
        **settings: Of the recipe, beside these.

    Returns:
        The file.
    """
    from tfllm.data import prepare
    from tfllm.trainers import Recipe

    data = folder / "data"
    if not data.exists():
        text = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))[:TEXT_BYTES]
        (folder / "text.txt").write_text(text, encoding="utf-8")
        prepare(folder / "text.txt", data, vocabulary_size=1000, sequence_length=64)
    recipe = Recipe(
        name="small_gpt",
        model={"num_layers": 2, "num_heads": 4, "hidden_dim": 64, "dropout": 0.1},
        data=str(data),
        microbatches=2,
        ema=0.99,
        **settings,
    )
    target = folder / "recipe.json"
    target.write_text(json.dumps(dataclasses.asdict(recipe)))
    return target

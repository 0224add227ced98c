"""Random BERT classifiers as folders of Hugging Face; what the weights are does not change speed.

Each token but the special ones is a word of the tokenizer, so that a text of n words has n tokens
and the two that stand around them.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

SHAPES = {
    "bert-base": {
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 30522,
    },
    "minilm": {
        "num_hidden_layers": 6,
        "hidden_size": 384,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "vocab_size": 30522,
    },
}
CLS, SEP, FIRST_WORD = 2, 3, 5  # ids
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_POSITIONS = 512


def text_of(words: list[int]) -> str:
    """The text whose words are the tokens of those ids."""
    return " ".join(f"w{word}" for word in words)


def write_checkpoint(shape: str, folder: Path) -> None:
    """Writes the folder, the same each time.

    Args:
        shape: One of `SHAPES`.
        folder: Made if it is not there.
    """
    sizes = SHAPES[shape]
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": _POSITIONS,
        "type_vocab_size": 2,
        "pad_token_id": 0,
        "id2label": {"0": "no", "1": "yes"},
        "label2id": {"no": 0, "yes": 1},
        **sizes,
    }
    words = [f"w{i}" for i in range(FIRST_WORD, sizes["vocab_size"])]
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "vocab.txt").write_text("\n".join([*_SPECIAL, *words]) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": _POSITIONS})
    )
    save_file(_weights(sizes), folder / "model.safetensors", metadata={"format": "pt"})


def _weights(sizes) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    weights = {}

    def normal(name, *shape):
        weights[name] = random.normal(scale=0.02, size=shape).astype(np.float32)

    def dense(name, inner, outer):
        normal(f"{name}.weight", outer, inner)
        normal(f"{name}.bias", outer)

    def norm(name):
        weights[f"{name}.weight"] = np.ones(width, np.float32)
        weights[f"{name}.bias"] = np.zeros(width, np.float32)

    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    for kind, size in (
        ("word", sizes["vocab_size"]), ("position", _POSITIONS), ("token_type", 2)
    ):  # fmt: skip
        normal(f"bert.embeddings.{kind}_embeddings.weight", size, width)
    norm("bert.embeddings.LayerNorm")
    for i in range(sizes["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            dense(f"{layer}.attention.self.{name}", width, width)
        dense(f"{layer}.attention.output.dense", width, width)
        dense(f"{layer}.intermediate.dense", width, inner)
        dense(f"{layer}.output.dense", inner, width)
        norm(f"{layer}.attention.output.LayerNorm")
        norm(f"{layer}.output.LayerNorm")
    dense("bert.pooler.dense", width, width)
    dense("classifier", width, 2)
    return weights

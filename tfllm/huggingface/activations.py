"""Activations: the names that Hugging Face's configurations have for them, and ours."""

OURS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
THEIRS = {ours: theirs for theirs, ours in reversed(OURS.items())}
THEIRS["swish"] = "swish"  # Keras has both names

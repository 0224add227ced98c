"""What an import has to say about the tensors that it left."""

import re

from tfllm.huggingface.checkpoint import Checkpoint

_MOST_LINES = 10


def report(checkpoint: Checkpoint) -> str:
    """Tells what of a checkpoint no model uses. What a model misses is an error before that.

    Args:
        checkpoint: After the model has taken its tensors.

    Returns:
        One line per kind of tensor, those of all layers together; "" if everything was used.
    """
    unused = checkpoint.unused()
    if not unused:
        return ""
    groups: dict[str, int] = {}
    for name in unused:
        group = re.sub(r"\.\d+(?=\.|$)", ".*", name)
        groups[group] = groups.get(group, 0) + 1
    lines = [name + (f" ({count})" if count > 1 else "") for name, count in groups.items()]
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES - 1 :] = [f"and {len(lines) - _MOST_LINES + 1} more kinds"]
    head = f"Not used from {checkpoint.folder}: {len(unused)} of {len(checkpoint.names())} tensors."
    return "\n  ".join([head, *lines])

"""How rows of token ids are given to an engine that takes padded batches."""

import numpy as np

_TOKENS = 512  # of a group, as in exports of tfllm


def padded(rows: list[list[int]]) -> dict[str, np.ndarray]:
    """`input_ids` and `attention_mask`, int64[b, t], t being the length of the longest row."""
    length = max(map(len, rows))
    return {
        "input_ids": np.array([row + [0] * (length - len(row)) for row in rows]),
        "attention_mask": np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows]),
    }


def in_groups(rows: list[list[int]]) -> list[tuple[list[int], dict[str, np.ndarray]]]:
    """Groups of rows of like length, the longest first: their numbers, and the padded batch."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    groups = []
    while order:
        size = max(_TOKENS // len(rows[order[0]]), 1)
        some, order = order[:size], order[size:]
        groups.append((some, padded([rows[i] for i in some])))
    return groups


def in_one(rows: list[list[int]]) -> list[tuple[list[int], dict[str, np.ndarray]]]:
    """All rows as one group."""
    return [(list(range(len(rows))), padded(rows))]

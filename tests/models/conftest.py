"""Batches of prepared records, made by hand."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def pack(tokenizer):
    """Packs documents into rows: `pack([["a", "b"], ["c"]], 32)` is a batch of two rows."""

    def make(rows, length):
        shape = (len(rows), length)
        x = {name: np.zeros(shape, "int32") for name in ("token_ids", "segment_ids", "positions")}
        y, weight = np.zeros(shape, "int32"), np.zeros(shape, "float32")
        for row, documents in enumerate(rows):
            at = 0
            for number, text in enumerate(documents, start=1):
                ids = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
                here = slice(at, at + len(ids) - 1)
                x["token_ids"][row, here] = ids[:-1]
                x["segment_ids"][row, here] = number
                x["positions"][row, here] = range(len(ids) - 1)
                y[row, here] = ids[1:]
                weight[row, here] = 1
                at = here.stop
            assert at <= length
        return x, y, weight

    return make

"""Requests and answers of an export's generators, the same through the Session and over gRPC."""

import numpy as np

from tfllm import contract


def signature_of(beams: int) -> str:
    """Which one writes with so many beams."""
    return contract.GENERATE if beams == 1 else contract.BEAM_SEARCH


def inputs_of(request: dict) -> dict[str, np.ndarray]:
    """What is sent; the other inputs keep their defaults."""
    texts = np.array([text.encode() for text in request["texts"]], object)
    return {"prompt": texts, "max_new_tokens": np.full(len(texts), request["new"], np.int32)}


def tokens_written(outputs: dict[str, np.ndarray], request: dict) -> int:
    """To all rows together; of the beams that were found it is the best one that counts."""
    reasons = outputs["finish_reason"].reshape(len(request["texts"]), -1)[:, 0].tolist()
    if wrong := [reason for reason in reasons if reason.startswith(b"error")]:
        raise SystemExit(f"a row was refused: {wrong[0].decode()}")
    if "num_tokens" in outputs:
        return int(outputs["num_tokens"].sum())
    return request["new"] * reasons.count(contract.LENGTH.encode())

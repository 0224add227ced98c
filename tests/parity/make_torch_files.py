"""Writes the torch files that the tests of tfllm.huggingface read: `python THIS FOLDER`."""

import sys
from collections import OrderedDict
from pathlib import Path

import torch


def views() -> OrderedDict[str, torch.Tensor]:
    """Tensors that share storages, and one of each kind of number that is read."""
    base = ((torch.arange(48) - 20) / 8).reshape(6, 8)
    tensors = OrderedDict(
        base=base,
        again=base,
        transposed=base.T,
        rows=base[2:4],
        column=base[:, 3],
        permuted=base.reshape(2, 3, 8).permute(2, 0, 1),
        every_second=base[::2, 1::3],
        half=base.half(),
        bfloat16=base.bfloat16(),
        double=base.double(),
        scalar=torch.tensor(-1.5),
        empty=torch.zeros(0, 4),
        flat=torch.zeros(3, 0),
        parameter=torch.nn.Parameter(base + 1),
        position_ids=torch.arange(5).expand(1, -1),
    )
    tensors._metadata = OrderedDict({"": {"version": 1}})  # as state_dict() leaves it
    return tensors


def write(folder: Path) -> None:
    """Writes views-zip.bin and views-legacy.bin."""
    torch.save(views(), folder / "views-zip.bin")
    torch.save(views(), folder / "views-legacy.bin", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    write(Path(sys.argv[1]))

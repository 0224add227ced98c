"""Small checkpoints, and damaged ones."""

import json
import shutil
from pathlib import Path

import pytest

from tfllm.huggingface.checkpoint import Checkpoint
from tfllm.huggingface.safetensors import write_safetensors
from tfllm.huggingface.stored import StoredTensor

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def arrays():
    """The tensors of a checkpoint by name: `arrays(folder)`."""

    def read(folder):
        checkpoint = Checkpoint(folder)
        names = checkpoint.names()
        return {name: checkpoint.take(name, checkpoint.stored(name).shape) for name in names}

    return read


@pytest.fixture
def altered(tmp_path, arrays):
    """A fixture with other tensors and settings: `altered("t5-relu", {name: array}, d_kv=7)`.

    A tensor that is None is left out, and so is an entry of config.json.
    """

    def make(name, tensors=(), **config):
        folder = tmp_path / "altered"
        shutil.copytree(FIXTURES / name, folder)
        path = folder / "config.json"
        config = json.loads(path.read_text()) | config
        path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
        kept = arrays(FIXTURES / name) | dict(tensors)
        kept = {name: array for name, array in kept.items() if array is not None}
        layout = {n: StoredTensor(array.shape, array.dtype.name) for n, array in kept.items()}
        write_safetensors(folder / "model.safetensors", layout, iter(kept.items()))
        return folder

    return make


@pytest.fixture
def mutations(tmp_path):
    """Damages a file in many ways: `for path in mutations(path, count, random)`."""

    def damaged(path, count, random):
        good = path.read_bytes()
        with open(tmp_path / "damaged", "w+b") as file:
            for _ in range(count):
                content = bytearray(good)
                for _ in range(random.choice([0, 1, 1, 3])):
                    at = random.randrange(len(content))
                    content[at] = random.choice([0, 255, random.randrange(256), content[at] ^ 1])
                start, stop = sorted(random.choices(range(len(content)), k=2))
                match random.randrange(10):
                    case 0:
                        del content[start:]
                    case 1:
                        del content[start : start + 8]
                    case 2:
                        content[start:start] = good[stop : stop + 8]
                file.seek(0)
                file.write(content)
                file.truncate()
                file.flush()
                yield tmp_path / "damaged"

    return damaged

"""Small prepared data of every task, and a recipe that trains on them in seconds."""

import contextlib
import json
import random
import resource
import shutil
from pydoc_data import topics

import keras
import pytest

from tfllm.data import prepare
from tfllm.trainers import Optimizer, Recipe, fit


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder of prepared data: 100 kB of English, 500 pieces, rows of 32 tokens."""
    folder = tmp_path_factory.mktemp("data")
    text = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))[:100_000]
    (folder / "text.txt").write_text(text)
    prepare(
        folder / "text.txt",
        folder / "prepared",
        vocabulary_size=500,
        sequence_length=32,
        document_bytes=256,
        validation_fraction=0.1,
    )
    return folder / "prepared"


@pytest.fixture(scope="session")
def tiny(prepared):
    """A recipe of eight steps with dropout."""
    return Recipe(
        name="tiny",
        family="gpt",
        model={"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "dropout": 0.1},
        data=str(prepared),
        global_batch=4,
        steps=8,
        optimizer=Optimizer(peak_learning_rate=1e-2, warmup_steps=2),
        validate_every=4,
        validation_steps=2,
        checkpoint_every=4,
        sample_prompts=("The <b>",),
    )


class Steps(keras.callbacks.Callback):
    """Keeps each step's loss."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, _, logs=None):
        self.losses.append(logs["loss"])


def train_in(folder, recipe, callbacks=(), **arguments):
    steps = Steps()
    folders = {"run": folder / "run", "tensorboard": folder / "logs"}
    result = fit(recipe, **folders, callbacks=[steps, *callbacks], **arguments)
    return result, steps.losses


@pytest.fixture
def train(tmp_path):
    """Trains in a folder of this test; returns the result and each step's loss."""

    def train(recipe, name="", **arguments):
        return train_in(tmp_path / name, recipe, **arguments)

    return train


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny):
    """(folder, result, losses) of a run by `tiny`; the folder is not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, *train_in(folder, tiny)


@pytest.fixture
def again(tmp_path, finished, train):
    """`train` in a folder that has a copy of the finished run."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    return train


@pytest.fixture
def files_of_at_most():
    """Inside `with files_of_at_most(n)` the system refuses to write what is behind n bytes.

    As on a full disk, the error is one of write(2): EFBIG, where that has ENOSPC.
    """

    @contextlib.contextmanager
    def limited(num_bytes):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


_WORDS = str.split("the a cat dog bird house tree runs sleeps under old two three sees likes")


def _sentence(draw):
    return " ".join(draw.choices(_WORDS, k=draw.randint(4, 12))) + "."


def _tables(draw):
    """A row of each kind of table."""
    one, other = _sentence(draw), _sentence(draw)
    begin = len(one) + 1
    return {
        "seq2seq_lm": {"source": one, "target": one.replace("cat", "chat")},
        "text_classifier": {"text": one, "label": draw.choice(["sad", "glad", "neither"])},
        "span_qa": {
            "question": f"who {other.split()[0]}",
            "context": f"{one} {other}",
            "answer": other.split()[0],
            "start": begin,
        },
        "text_embedder": {"text": one, "text_pair": other},
        "completion": {"prompt": f"{one}\n", "completion": other},
        "chat": {
            "messages": [
                {"role": "user", "content": one},
                {"role": "assistant", "content": other},
            ]
        },
    }


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """By the task that data are prepared for, a folder of them."""
    folder = tmp_path_factory.mktemp("tasks")
    draw = random.Random(0)
    rows = [_tables(draw) for _ in range(60)]
    text = folder / "text.txt"
    text.write_text("\n\n".join(" ".join(_sentence(draw) for _ in range(12)) for _ in range(60)))
    made = {}
    for task in ("causal_lm", "masked_lm", "denoising", "skip_gram", *rows[0]):
        source = text
        if task in rows[0]:
            source = folder / f"{task}.jsonl"
            source.write_text("\n".join(json.dumps(row[task]) for row in rows))
        kind, size = "sentencepiece", 300
        if task in ("masked_lm", "text_classifier", "span_qa", "text_embedder"):
            kind, size = "wordpiece", 100
        elif task == "skip_gram":
            kind = "words"
        prepare(
            source,
            folder / task,
            task=task,
            tokenizer=kind,
            vocabulary_size=size,
            sequence_length=32,
            document_bytes=400,
            validation_fraction=0.2,
        )
        made[task] = folder / task
    return made

"""Settings for every test, two tiny language models that know eight texts by heart, and steps."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# On a machine of one core a request that waits in a loop would hold TensorFlow's only thread, and
# no other would run, nor any version load.
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "8")

import keras
import pytest
import tensorflow as tf

from tfllm.decoding import NewTokens, rounded_up
from tfllm.models import (
    GPTBackbone,
    GPTCausalLM,
    GPTCausalLMPreprocessor,
    LSTMBackbone,
    LSTMCausalLM,
    LSTMCausalLMPreprocessor,
)
from tfllm.tokenizers import train_sentencepiece

# Two replicas for the strategies.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

TEXTS = [
    "one two three four five six seven eight nine ten",
    "the cat sat on the mat and the dog sat on the log",
    "a cat is not a dog and a dog is not a cat",
    "你好，世界。今天天气很好，我们去公园。",
    "smile 🙂 wave 👋 party 🎉 done",
    "red green blue\nred green blue\nred green blue\n",
    "if x:\n    return y\nelse:\n    return z\n",
    "why not? because! who? me, and you; and them.",
]
CONTEXT = 64


@pytest.fixture(autouse=True)
def _collective_keys():
    """Strategies of one process would confuse their sums; TensorFlow's own tests do the same."""
    tf.distribute.MirroredStrategy._collective_key_base += 100_000


@pytest.fixture(scope="module", autouse=True)
def _what_is_left_behind():
    """Python's collector, which each server runs too, is to look only at what this module makes.

    Graphs of earlier ones are kept by TensorFlow and Keras: millions of objects.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def texts():
    """The texts that `gpt` and `lstm` know."""
    return list(TEXTS)


@pytest.fixture(scope="session")
def tokenizer():
    """330 pieces; the emoji are not among them, so each is four byte tokens."""
    return train_sentencepiece([t for t in TEXTS if "🙂" not in t] * 4, vocabulary_size=330)


@pytest.fixture(scope="session")
def new_model(tokenizer):
    """Makes an untrained model: `new_model("gpt", dropout=0.1)`."""

    def make(kind, *, seed=0, preprocessor=True, **backbone):
        keras.utils.set_random_seed(seed)
        settings = {
            "vocabulary_size": tokenizer.vocabulary_size(),
            "num_layers": 2,
            "hidden_dim": 32,
            "max_sequence_length": CONTEXT,
        } | backbone
        if kind == "gpt":
            settings.setdefault("num_heads", 2)
            backbone, task, reads = GPTBackbone, GPTCausalLM, GPTCausalLMPreprocessor
        else:
            backbone, task, reads = LSTMBackbone, LSTMCausalLM, LSTMCausalLMPreprocessor
        length = min(40, settings["max_sequence_length"])
        reads = reads(tokenizer, sequence_length=length) if preprocessor else None
        return task(backbone(**settings), reads)

    return make


def _taught(model, learning_rate, steps):
    dataset = tf.data.Dataset.from_tensors(tf.constant(TEXTS)).repeat(steps)
    model.compile(keras.optimizers.Adam(learning_rate))
    model.fit(dataset, verbose=0)
    return model


@pytest.fixture(scope="session")
def gpt(new_model):
    """A GPT that knows `texts`; tests share it and do not change it."""
    return _taught(new_model("gpt"), 1e-2, 160)


@pytest.fixture(scope="session")
def lstm(new_model):
    """An LSTM that knows `texts`; tests share it and do not change it."""
    return _taught(new_model("lstm", hidden_dim=64), 2e-2, 300)


@pytest.fixture(scope="session", params=["gpt", "lstm"])
def model(request):
    """Both of them, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def stepped():
    """Logits by the steps of a decode loop: `stepped(model, prompt, lengths, more)`."""
    return _stepped


def _stepped(model, prompt, lengths, more):
    """Reads int[b, t] prompts of int[b] tokens, and then texts token by token.

    Memories grow by four entries whenever they are full.

    Args:
        model: `tfllm.decoding.Decodable`.
        prompt: What stands behind a row's length is not looked at.
        lengths: At least 1.
        more: int[b, j], the tokens that go on from each prompt; or int[b, n, j], n texts of each
            row, as of beams, that share the row's memory.

    Returns:
        float[b, 1 + j, v] or float[b, n, 1 + j, v], the logits after the prompt and after each
        token behind it.
    """
    prompt, lengths, more = (tf.constant(x, tf.int32) for x in (prompt, lengths, more))
    several, width = more.shape.rank == 3, prompt.shape[1]
    more = more if several else more[:, None]
    rows, texts, count = more.shape
    begin = model.begin(prompt, lengths)
    state, entries, found = begin.state, 0, []
    for step in range(count + 1):
        if step == 0:
            token_ids, start = begin.token_ids, begin.start
            positions = start[:, None] + tf.range(token_ids.shape[1])
            wanted = tf.repeat((lengths - 1 - start)[:, None], texts, 1)
        else:
            token_ids = more[..., step - 1]
            positions = tf.repeat(lengths[:, None] + step - 1, texts, 1)
            start = tf.fill([rows], width + texts * (step - 1)) if several else positions[:, 0]
            wanted = tf.repeat(tf.range(texts)[None], rows, 0)
        end = int(tf.reduce_max(start)) + token_ids.shape[1]
        if end > entries:
            entries = rounded_up(end, 4)
            length = max(width, int(tf.reduce_max(lengths)) + entries)
            state = model.grow(state, tf.constant(entries), tf.constant(length))
        place = tf.range(entries)[None]
        visible, entry_positions, parent = place <= positions[..., None], place, None
        if several:  # behind the prompt they lie side by side, step after step
            written = (place - width) // texts
            entry_positions = tf.where(place < width, place, lengths[:, None] + written)
            parent = tf.zeros_like(token_ids) + (tf.range(texts) if step > 1 else 0)
            if step > 0:
                own = (place - width) % texts == tf.range(texts)[:, None]
                own &= (place >= width) & (written < step)
                visible = (place < lengths[:, None])[:, None] | own
        new = NewTokens(token_ids, positions, start, visible, entry_positions, parent, wanted)
        logits, state = model.step(new, state)
        found.append(logits)
    logits = tf.stack(found, 2).numpy()
    return logits if several else logits[:, 0]

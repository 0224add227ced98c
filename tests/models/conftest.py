"""Batches of prepared records, made by hand, and small encoders."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.models import BertBackbone, EncoderPreprocessor, TextClassifier
from tfllm.tokenizers.wordpiece import WordPieceTokenizer


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


_PIECES = str.split(
    """
    [PAD] [UNK] [CLS] [SEP] [MASK] the a cat dog sat on mat log one two three four five not is
    good bad film very who where in paris berlin lives ? . , ' ##s ##ing ##ly 你 好 c ##a ##t x
    """
)


@pytest.fixture(scope="session")
def pieces():
    """A WordPiece tokenizer of a few words."""
    return WordPieceTokenizer(_PIECES)


@pytest.fixture(scope="session")
def new_encoder(pieces):
    """Makes an untrained model: `new_encoder(TextClassifier, num_classes=2)`."""

    def make(task, *, seed=0, sequence_length=24, padding="longest", backbone=None, **settings):
        keras.utils.set_random_seed(seed)
        sizes = {
            "vocabulary_size": len(_PIECES),
            "num_layers": 1,
            "num_heads": 2,
            "hidden_dim": 16,
            "intermediate_dim": 24,
            "max_sequence_length": 32,
        }
        preprocessor = EncoderPreprocessor(pieces, sequence_length, padding)
        return task(BertBackbone(**(sizes | (backbone or {}))), preprocessor, **settings)

    return make


@pytest.fixture(scope="session")
def classifier(new_encoder):
    """An untrained classifier of three labels; tests share it and do not change it."""
    return new_encoder(TextClassifier, labels=["sad", "glad", "neither"])


@pytest.fixture
def train_on_one_and_on_two(new_encoder):
    """Trains alike models on one device and on two replicas; two of each: losses and weights."""

    def train(task, dataset, rate, **settings):
        found = []
        for strategy in (
            tf.distribute.get_strategy(),
            tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
        ):
            with strategy.scope():
                model = new_encoder(task, **settings)
                model.compile(keras.optimizers.SGD(rate))
            loss = model.fit(dataset, verbose=0).history["loss"]
            found.append((loss, [variable.numpy() for variable in model.trainable_variables]))
        return zip(*found, strict=True)

    return train

"""Small untrained models that read whole texts."""

import json

import keras
import pytest

from tfllm.models import (
    BertBackbone,
    EncoderPreprocessor,
    LSTMEncoderBackbone,
    MaskedLM,
    TextClassifier,
)
from tfllm.tokenizers.wordpiece import WordPieceTokenizer

_PIECES = str.split(
    """
    [PAD] [UNK] [CLS] [SEP] [MASK] she he we is was a the good bad doctor nurse film sing ##er
    ##ing ##s very not . , ? !
    """
)
_SIZES = {"vocabulary_size": len(_PIECES), "num_layers": 2, "hidden_dim": 16}


@pytest.fixture(scope="session")
def read_by():
    """Makes an untrained model around a backbone: `read_by(TextClassifier, backbone)`."""

    def make(task, backbone, **settings):
        keras.utils.set_random_seed(1)
        preprocessor = EncoderPreprocessor(WordPieceTokenizer(_PIECES), 24)
        return task(backbone, preprocessor, **settings)

    return make


@pytest.fixture(scope="session")
def new_backbone():
    """Makes an encoder by the name of its kind."""

    def make(kind):
        keras.utils.set_random_seed(2)
        if kind == "lstm":
            return LSTMEncoderBackbone(**_SIZES, max_sequence_length=32)
        return BertBackbone(**_SIZES, num_heads=2, intermediate_dim=24, max_sequence_length=32)

    return make


@pytest.fixture(scope="session", params=["bert", "lstm"])
def classifier(request, new_backbone, read_by):
    """Untrained classifiers of three labels on both kinds of encoder."""
    return read_by(TextClassifier, new_backbone(request.param), labels=["sad", "glad", "neither"])


@pytest.fixture(scope="session")
def masked_lm(new_backbone, read_by):
    """An untrained `MaskedLM`."""
    return read_by(MaskedLM, new_backbone("bert"))


@pytest.fixture
def run(capsys):
    """Runs a command: its exit code, its JSON line if it wrote one, and what a person reads."""
    from tfllm import cli

    def main(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return main

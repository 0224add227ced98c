"""Small tokenizers of both kinds, trained once."""

import inspect
import textwrap

import pytest

from tfllm.tokenizers import train_sentencepiece

# English and code, from what every Python carries.
CORPUS = [inspect.getdoc(textwrap) or "", inspect.getsource(textwrap), "长江 黄河 长江 黄河\n" * 20]


@pytest.fixture(scope="session", params=["unigram", "bpe"])
def tokenizer(request):
    return train_sentencepiece(CORPUS, vocabulary_size=600, model_type=request.param)

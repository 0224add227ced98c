"""A small corpus, a tokenizer and a prepared folder, made once."""

import random

import pytest

from tfllm import data, tokenizers

WORDS = ["the", "a", "cat", "dog", "bird", "house", "tree", "runs", "sleeps", "under", "old"]


def paragraphs(number, seed):
    random_words = random.Random(seed)
    return [
        " ".join(random_words.choices(WORDS, k=random_words.randint(5, 60))) + f" {seed}-{i}."
        for i in range(number)
    ]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n\n".join(paragraphs(400, seed=0)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer(corpus):
    return tokenizers.train_sentencepiece([corpus.read_text()], vocabulary_size=400)


@pytest.fixture(scope="session")
def prepared(corpus, tokenizer, tmp_path_factory):
    """About a hundred rows of 32 tokens, from documents of about 500 bytes."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    data.prepare(
        corpus,
        out,
        tokenizer=tokenizer,
        sequence_length=32,
        document_bytes=500,
        validation_fraction=0.2,
    )
    return out

"""Word vectors from the command line: prepared words, the recipe, neighbours."""

import dataclasses
import json

import pytest

from tfllm.cli import main
from tfllm.errors import UserError
from tfllm.models import SkipGram
from tfllm.trainers import fit, load_recipe


def test_words_are_prepared_and_trained_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stop.txt").write_text("the\n")
    text = "The cat sat on the mat.\n\nThe Dog ran on the log.\n\n" * 40
    (tmp_path / "text.txt").write_text(text + "\n\n".join(f"{i} cat and dog" for i in range(200)))
    options = ["--stop-words", "stop.txt", "--digits", "drop", "--document-bytes", "16"]
    assert main(["prepare", "text.txt", "--task", "skip_gram", "--out", "data", *options]) == 0
    meta = json.loads(capsys.readouterr().out)
    assert meta["vocabulary_size"] == 3  # words that occur five times once duplicates are dropped
    settings = ["--set", "steps=2", "--set", "global_batch=2", "--set", "model.hidden_dim=8"]
    assert main(["train", "word2vec", "--data", "data", *settings]) == 0
    model = SkipGram.from_preset(json.loads(capsys.readouterr().out)["preset"])
    assert model.word_vectors.shape == (3, 8)
    assert {word for word, _ in model.neighbours("Dog")} == {"cat", "and"}


def test_data_of_another_task_are_refused(prepared, tmp_path):
    recipe = dataclasses.replace(load_recipe("word2vec"), steps=2)
    with pytest.raises(UserError, match="skip_gram needs data of `tfllm prepare --task skip_gram`"):
        fit(recipe, data=prepared, run=tmp_path / "run", tensorboard=tmp_path / "logs")

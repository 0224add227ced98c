"""`tfllm import`, and what may be done with the preset that it writes."""

import json
from pathlib import Path

import pytest

import tfllm
from tfllm.cli import main

FIXTURE = Path(__file__).parent / "fixtures" / "gpt2"


def test_a_folder_becomes_a_preset_and_a_preset_an_export(tmp_path, capsys):
    preset = tmp_path / "preset"
    assert main(["import", str(FIXTURE), str(preset)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == "GPTCausalLM"
    assert told["tokenizer"] == "BytePairTokenizer"
    assert told["weights"] == tfllm.CausalLM.from_preset(preset).count_params()
    models = tmp_path / "models"
    assert main(["export", str(preset), "--to", str(models), "--beams", "2"]) == 0
    about = json.loads((models / "1" / "assets.extra" / "tfllm.json").read_text())
    assert about["beams"] == 2
    assert about["source"] == str(preset)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("nowhere", "No checkpoint at"),
        (".", "No checkpoint at"),
    ],
)
def test_what_is_no_checkpoint_is_refused_without_a_traceback(tmp_path, capsys, folder, words):
    assert main(["import", str(tmp_path / folder), str(tmp_path / "preset")]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "preset").exists()


def test_a_checkpoint_is_never_replaced_by_the_preset_made_of_it(tmp_path, capsys):
    folder = tmp_path / "gpt2"
    folder.mkdir()
    for path in FIXTURE.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert main(["import", str(folder), str(folder)]) == 2
    assert "exists and is no preset" in capsys.readouterr().err
    assert (folder / "model.safetensors").is_file()


def test_several_answers_are_lists_in_the_result(tmp_path, capsys):
    preset = tmp_path / "preset"
    tfllm.from_huggingface(FIXTURE).save_to_preset(preset)
    command = ["generate", str(preset), "--prompt", "Hello", "--max-new-tokens", "3"]
    assert main([*command, "--temperature", "1", "--num-return-sequences", "3"]) == 0
    (several,) = json.loads(capsys.readouterr().out)["generations"]
    assert [answer["num_tokens"] for answer in several] == [3, 3, 3]

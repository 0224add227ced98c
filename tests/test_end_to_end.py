"""Text to a gRPC answer by the one command that does it all."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from test_readme import free_port

from tfllm import cli
from tfllm.models import CausalLM
from tfllm.quickstart import PROMPT, SAMPLING
from tfllm.serving import Client

ROOT = Path(__file__).parents[1]
TINY = ["--set", "steps=3", "--set", "model.hidden_dim=32", "--set", "model.num_layers=1"]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """What `tfllm quickstart` printed, and the folder it worked in."""
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.chdir(work)
        assert cli.main(["quickstart", *TINY]) == 0
    return json.loads(out.getvalue()), work


def test_the_served_answer_is_the_live_models(quickstart):
    result, work = quickstart
    for family, key in (("gpt", "text"), ("lstm", "text_lstm")):
        live = CausalLM.from_preset(work / "quickstart" / "runs" / family / "preset")
        assert live.generate(PROMPT, **SAMPLING).text == result[key]


def test_what_is_deployed_serves_the_quickstarts_model(quickstart):
    result, work = quickstart
    models, deploy = work / "quickstart" / "models", work / "deploy"
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(["deploy", str(deploy), "--model", str(models / "gpt")]) == 0
    config = deploy / "models.config"
    config.write_text(config.read_text().replace("/models/", f"{models}/"))
    server = yaml.safe_load((deploy / "compose.yaml").read_text())["services"]["serving"]
    port, rest_port = free_port(), free_port()
    flags = [
        flag.replace("/config/", f"{deploy}/")
        .replace("8500", str(port))
        .replace("8501", str(rest_port))
        for flag in server["command"]
    ]
    pod = yaml.safe_load((deploy / "kubernetes" / "serving.yaml").read_text())
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    ready = container["readinessProbe"]["httpGet"]["path"]

    def fetch(path):
        with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}{path}", timeout=60) as answer:
            return answer.read().decode()

    environment = {**os.environ, **server["environment"], "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen([sys.executable, "-m", "tfllm", "serve", *flags], env=environment)
    try:
        with Client(f"127.0.0.1:{port}", "gpt", version_label="stable") as client:
            client.wait_until_available(120)
            assert client.generate(PROMPT, **SAMPLING).text == result["text"]
        fetch(ready)
        fetch(container["livenessProbe"]["httpGet"]["path"])
        with pytest.raises(urllib.error.HTTPError, match="Bad Request"):
            fetch(ready.replace("stable", "canary"))
        with contextlib.redirect_stdout(io.StringIO()):
            canary = ["--version", "1", "--label", "canary", "--config", str(config)]
            assert cli.main(["promote", f"127.0.0.1:{port}/gpt", *canary]) == 0
        fetch(ready.replace("stable", "canary"))
        page = fetch("/monitoring/prometheus/metrics")
        assert 'queuing_latency_count{thread_pool_name="batches"}' in page
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0


def test_both_models_are_measured_on_held_out_text(quickstart):
    result, _ = quickstart
    assert set(result["bits_per_byte"]) == {"gpt", "lstm"}
    assert all(0 < bits < 8 for bits in result["bits_per_byte"].values())


def test_tensorboard_has_both_runs(quickstart):
    result, work = quickstart
    for logs in result["tensorboard"]:
        assert list((work / logs).rglob("events.out.tfevents.*"))


def test_a_folder_that_holds_something_else_is_not_emptied(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert cli.main(["quickstart", "--folder", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"

"""The gateway as `tfllm deploy` starts it: its flags, the label, and only what its image has."""

import importlib.metadata
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import tensorflow as tf
import yaml

from tfllm.deployment import write_deployment
from tfllm.serving import Client, Server, promote
from tfllm.serving.config_file import ConfigFile
from tfllm.serving.states import LabelRule

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def deployed(bases, tmp_path_factory):
    """What is written for version 1 of a model with sessions, beside which there is version 2."""
    work = tmp_path_factory.mktemp("deployed")
    shutil.copytree(bases["gpt"], work / "models" / "gpt")
    write_deployment(work / "deploy", [work / "models" / "gpt"])
    config = work / "deploy" / "models.config"
    config.write_text(config.read_text().replace("/models/", f"{work}/models/"))
    (work / "deploy" / "keys.txt").write_text("sk-one name=first\n")
    shutil.copytree(work / "models" / "gpt" / "1", work / "models" / "gpt" / "2")
    return work / "deploy"


@pytest.fixture(scope="module")
def address(deployed):
    """Of a server with both versions; `stable` is 1, the newest is 2."""
    config = deployed / "models.config"
    models = ConfigFile(config, label_rule=LabelRule.NEW).models
    with Server(models, port=0) as server:
        server.wait_until_available(60)
        address = f"127.0.0.1:{server.port}"
        promote([address], "gpt", 2, label="canary", config_file=config)
        yield address


def test_a_gateway_asks_for_the_label_that_it_is_told(address, start_gateway):
    for label, version in (("stable", 1), ("canary", 2), (None, 2)):
        running = start_gateway((address, "gpt"), version_label=label)
        (scheduler,) = running.gateway._served.named("gpt").schedulers
        assert scheduler.backend.version == version


def test_the_image_has_all_that_the_gateway_needs(deployed, address, tmp_path):
    # What gateway/Dockerfile installs, by links; -S keeps the interpreter from finding more.
    dockerfile = (deployed / "gateway" / "Dockerfile").read_text()
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in set(with_dependencies(re.findall(r'"([\w.-]+)>=', dockerfile))) - {"tensorflow"}:
        link_package(name, packages)
    (packages / "tfllm").symlink_to(ROOT / "tfllm")
    origin = Path(tf.__file__).parent
    for path in origin.glob("**/*_pb2.py"):
        link = packages / "tensorflow" / path.relative_to(origin)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)

    command = yaml.safe_load((deployed / "compose.yaml").read_text())["services"]["gateway"][
        "command"
    ]
    changed = {
        "serving:8500": address,
        "0.0.0.0": "127.0.0.1",
        "8080": "0",
        "8081": "0",
        "/keys/": f"{deployed}/",
    }
    for old, new in changed.items():
        command = [argument.replace(old, new) for argument in command]
    running = subprocess.Popen(
        [sys.executable, "-S", "-m", "tfllm", "gateway", *command],
        env={"PYTHONPATH": str(packages)},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        for line in running.stderr:
            lines.append(line)
            if "version 1 of gpt" in line:
                break
        else:
            raise AssertionError("".join(lines))
        assert running.poll() is None, "".join(lines)
        (port,) = re.findall(r"listening on http://127.0.0.1:(\d+)", "".join(lines))
        (grpc_port,) = re.findall(r"listening on 127.0.0.1:(\d+) for gRPC", "".join(lines))
        body = {"model": "gpt", "prompt": "one two", "max_tokens": 8, "temperature": 1, "seed": 3}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/completions",
            json.dumps(body).encode(),
            {"Authorization": "Bearer sk-one"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            (choice,) = json.load(response)["choices"]
        with Client(address, "gpt") as client:
            right = client.generate("one two", max_new_tokens=8, temperature=1.0, seed=3)
        assert choice["text"] == right.text
        headers = {"authorization": "Bearer sk-one"}
        with Client(f"127.0.0.1:{grpc_port}", "gpt", headers=headers) as asks:
            pieces = asks.stream("one two", max_new_tokens=8, temperature=1.0, seed=3)
            assert "".join(piece.text for piece in pieces) == right.text
    finally:
        running.send_signal(signal.SIGTERM)
        said = running.stderr.read()
        assert running.wait(60) == 0, said


def with_dependencies(names):
    """Names of distributions, and of those that they ask for; TensorFlow's own are left out."""
    for name in names:
        yield name
        if not name.startswith("tensorflow"):
            asked = importlib.metadata.requires(name) or []
            asked = [each for each in asked if "extra ==" not in each]
            asked = [re.match(r"[\w.-]+", each)[0] for each in asked]
            yield from with_dependencies([each for each in asked if is_installed(each)])


def is_installed(name):
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def link_package(name, folder):
    """Links the parts of a distribution into a folder; `google` is shared by several."""
    found = importlib.metadata.distribution(name)
    for file in found.files:
        depth = 2 if file.parts[0] == "google" else 1
        link = folder.joinpath(*file.parts[:depth])
        if ".." not in file.parts and not link.exists():
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(found.locate_file(Path(*file.parts[:depth])))

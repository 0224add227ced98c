"""Small models of every kind, two of them served as well."""

from pathlib import Path

import pytest
import tensorflow as tf

import tfllm
from tfllm import contract
from tfllm.models.text_functions import build
from tfllm.serving import Client, Server

FIXTURES = Path(__file__).parents[1] / "huggingface" / "fixtures"
KINDS = {"classifier": "bert-classifier", "embedder": "bert-embedder", "qa": "bert-qa"}
SERVED = {
    "classifier": (contract.CLASSIFY, contract.TOKENIZE),
    # Without `generate`, whose loops take long to load.
    "gpt": (contract.SCORE, contract.TOKENIZE, contract.DETOKENIZE),
}


@pytest.fixture(scope="session")
def live(gpt):
    """Models by name; tests do not change them."""
    imported = {name: tfllm.from_huggingface(FIXTURES / folder) for name, folder in KINDS.items()}
    return imported | {"gpt": gpt}


@pytest.fixture(scope="session")
def server(live, tmp_path_factory):
    """Serves two of them by name, with what the tests ask of them."""
    bases = {}
    for name, signatures in SERVED.items():
        functions = build(live[name].text())
        module = tf.Module()
        module.weights = [variable.value for variable in live[name].variables]
        bases[name] = tmp_path_factory.mktemp("served") / name
        tf.saved_model.save(
            module, str(bases[name] / "1"), signatures={n: functions[n] for n in signatures}
        )
    with Server(bases, port=0) as server:
        server.wait_until_available(60)
        yield server


@pytest.fixture(scope="session", params=["live", "served"])
def ask(request, live):
    """A model of `SERVED` by name: the live one, or a client of the served one."""
    if request.param == "live":
        yield live.__getitem__
        return
    port = request.getfixturevalue("server").port
    clients = {name: Client(f"127.0.0.1:{port}", name) for name in SERVED}
    yield clients.__getitem__
    for client in clients.values():
        client.close()

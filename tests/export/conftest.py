"""One export of each model, written once; tests read it and do not change it."""

import pytest

from tfllm.export import for_serving


@pytest.fixture(scope="session")
def exported_gpt(gpt, tmp_path_factory):
    return for_serving(gpt, tmp_path_factory.mktemp("exports") / "gpt", source="runs/gpt/preset")


@pytest.fixture(scope="session")
def exported_lstm(lstm, tmp_path_factory):
    return for_serving(lstm, tmp_path_factory.mktemp("exports") / "lstm")


@pytest.fixture(scope="session")
def exported(request, model):
    """The version folder of `model`."""
    kind = "gpt" if model is request.getfixturevalue("gpt") else "lstm"
    return request.getfixturevalue(f"exported_{kind}")

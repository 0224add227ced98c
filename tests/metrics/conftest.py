import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def recorded():
    """What the reference libraries answered, see tests/parity/make_metrics.py."""
    return json.loads((Path(__file__).parent / "fixtures" / "metrics.json").read_text("utf-8"))

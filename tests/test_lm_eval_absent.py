"""The adapter to lm-eval, where lm-eval is not installed."""

import sys

import pytest

from tfllm.errors import UserError


def test_without_lm_eval_the_adapter_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.api", None)
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    monkeypatch.delitem(sys.modules, "tfllm.lm_eval_adapter", raising=False)
    with pytest.raises(UserError, match=r"pip install 'tfllm\[lm_eval\]'"):
        import tfllm.lm_eval_adapter  # noqa: F401

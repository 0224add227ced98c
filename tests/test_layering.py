"""The architecture: which package may import which. A wrong arrow fails here."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "tfllm": ROOT / "tfllm",
    "tfllm.trainers": ROOT / "trainers",
    "tfllm.export": ROOT / "export",
}

LEAVES = {
    "contract", "errors", "_version", "rows", "aside", "calls", "chat", "stderr_log",
    "tensorflow_messages",
}  # fmt: skip
MAY_IMPORT = {
    "contract": set(),
    "errors": set(),
    "_version": set(),
    "rows": set(),
    "stderr_log": set(),
    "tensorflow_messages": set(),
    "calls": set(),
    "chat": {"templates"},
    "templates": set(),
    "aside": set(),
    "layers": set(),
    "decoding": {"layers"},
    "tokenizers": set(),
    "optimizers": {"layers"},
    "metrics": set(),
    "models": {"layers", "decoding", "tokenizers", "optimizers"},
    "data": {"tokenizers"},
    "evaluators": {"models", "data", "metrics"},
    "reports": {"evaluators", "models", "data", "metrics"},
    "huggingface": {"models", "decoding", "tokenizers", "layers"},
    "serving": set(),
    "gateway": {"serving"},
    "trainers": {"models", "data", "evaluators", "optimizers"},
    "export": {"models", "decoding", "layers"},
    "deployment": {"export"},
    "quickstart": {"data", "trainers", "export", "serving", "models"},
    "cli": {"commands"},
    "commands": {
        "data",
        "deployment",
        "gateway",
        "trainers",
        "export",
        "serving",
        "models",
        "evaluators",
        "reports",
        "quickstart",
        "from_huggingface",
        "from_preset",
    },
    "lm_eval_adapter": {"evaluators", "serving"},
    "__main__": {"cli"},
    "__init__": {"models", "huggingface"},
}


def modules():
    for name, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            inner = path.relative_to(folder).with_suffix("").parts
            if name == "tfllm" and inner[0] in ("trainers", "export"):
                continue  # links to the top-level folders
            yield ".".join([name, *inner]), path


def imports(path):
    """Dotted names that a file imports, wherever in it; typing-only imports too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(dotted):
    """tfllm.models.gpt -> models."""
    return dotted.split(".")[1]


@pytest.mark.parametrize(("module", "path"), list(modules()))
def test_a_module_imports_only_what_its_package_may(module, path):
    here = part(module)
    for name in imports(path):
        if name.startswith("tfllm."):
            there = part(name)
            allowed = MAY_IMPORT[here] | LEAVES | {here}
            assert there in allowed, f"{module} imports {name}: {here} may not import {there}"


@pytest.mark.parametrize(("module", "path"), list(modules()))
def test_private_modules_of_keras_are_never_imported(module, path):
    private = [name for name in imports(path) if name.startswith(("keras.src", "keras_hub.src"))]
    assert not private, f"{module} imports {private}"


def test_the_contract_needs_nothing_but_the_standard_library():
    names = {name.split(".")[0] for name in imports(ROOT / "tfllm" / "contract.py")}
    assert names <= {"__future__", "typing"}

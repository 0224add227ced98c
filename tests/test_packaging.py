"""A sub-package missing from setup.cfg works in an editable install and is absent from a wheel."""

import configparser
import subprocess
import sys
from pathlib import Path

import tfllm

ROOT = Path(__file__).parents[1]


def config():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def lines(section, key):
    return [line for line in config()[section][key].splitlines() if line]


def test_setup_lists_exactly_the_packages_that_exist():
    mapping = dict(line.replace(" ", "").split("=") for line in lines("options", "package_dir"))
    found = set()
    for name, folder in [("tfllm", "tfllm"), *mapping.items()]:
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            if name == "tfllm" and inner[:1] in (("trainers",), ("export",)):
                continue  # links to the top-level folders
            found.add(".".join([name, *inner]))
    assert set(lines("options", "packages")) == found


def test_setup_lists_every_file_that_is_no_code():
    listed = set()
    for package, globs in config()["options.package_data"].items():
        folder = ROOT / package.replace(".", "/")
        listed.update(path for glob in globs.split() for path in folder.glob(glob))
    found = {path for path in (ROOT / "tfllm").rglob("*") if path.suffix not in (".py", ".pyc")}
    assert {path for path in found if path.is_file()} == {path for path in listed if path.is_file()}


def test_every_folder_with_code_is_a_package():
    for folder in ("tfllm", "trainers", "export"):
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py"


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_tfllm_does_not_import_tensorflow_until_a_name_needs_it():
    code = """
import sys, tfllm
before = "tensorflow" in sys.modules
tfllm.CausalLM
print(before, "tensorflow" in sys.modules)
"""
    assert run(code) == "False True"


def test_the_parser_of_the_command_line_imports_nothing_heavy():
    code = """
import sys
from tfllm import cli
try:
    cli.main(["--help"])
except SystemExit:
    pass
print(sorted({"tensorflow", "keras", "numpy", "grpc"} & set(sys.modules)))
"""
    assert run(code).endswith("[]")


def test_the_public_names_exist_and_an_unknown_one_is_refused():
    for name in dir(tfllm):
        getattr(tfllm, name)
    assert not hasattr(tfllm, "no_such_name")

# The two commands of the README: `make quickstart` and `make test`. Each builds its environment.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

.PHONY: quickstart test slow dev lint types parity compatibility tpu-compile dist clean

quickstart: $(INSTALLED)
	$(BIN)/tfllm quickstart

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The tests that `make test` leaves out for their time.
slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

# One tree for every tool: tfllm.trainers and tfllm.export live in top-level folders.
dev: $(INSTALLED)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .[dev]

lint: dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: dev
	$(BIN)/mypy

# Against the libraries that our answers must equal: torch and transformers, which nothing else here
# needs. Makes random checkpoints anew.
parity: dev
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .[parity]
	$(BIN)/python -m pytest tests/parity

# The whole test suite under the older of the two TensorFlows that are supported.
compatibility:
	$(MAKE) test VENV=.venv-2.20 CONSTRAINTS="tensorflow==2.20.* tensorflow-text==2.20.*"

# The training step of every kind of recipe through the compiler of a TPU, without one: the memory
# that each needs. jax and libtpu have an environment of their own; nothing else here uses them.
tpu-compile: $(INSTALLED)
	test -x .venv-tpu/bin/python || $(PYTHON) -m venv .venv-tpu
	.venv-tpu/bin/python -m pip install -q --disable-pip-version-check "jax>=0.10.2,<0.11" "libtpu>=0.0.52,<0.1"
	$(BIN)/python benchmarks/tpu_steps.py build/tpu
	.venv-tpu/bin/python benchmarks/tpu_compile.py build/tpu

dist: dev
	$(BIN)/python -m pip wheel -q --no-deps -w dist .

clean:
	rm -rf .venv .venv-2.20 .venv-tpu build dist *.egg-info quickstart

$(INSTALLED): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	ln -sfn ../trainers tfllm/trainers
	ln -sfn ../export tfllm/export
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .[test] $(CONSTRAINTS)
	touch $@

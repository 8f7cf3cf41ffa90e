# Two commands: `make demo` trains, compares and recommends; `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# One thread for each process: two test files run at a time, each in a process of its own.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q --durations=20
WORKERS ?= -n 2 --dist loadfile

.PHONY: demo smoke three-stage test lint check format slow reliability nightly network docs deletion clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

smoke: $(VENV)/.demo
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/smoke.sh

three-stage: $(VENV)/.demo
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/three_stage.sh

test: lint
	$(PYTEST) $(WORKERS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" lint-imports

check: format test

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

slow: $(VENV)/.dev
	$(PYTEST) $(WORKERS) -m slow

# The trials of docs/reliability.md, whose record and page it writes; a failure is written down too.
reliability: $(VENV)/.dev
	$(PYTEST) $(WORKERS) -m "reliability and not slow" -o junit_family=xunit1 --junitxml .reliability.xml; status=$$?; \
	$(BIN)/python docs/reliability.py .reliability.xml; exit $$status

# Ten times the kills and made tables, every change to a file, and the tests marked slow.
nightly: export HLLM_NIGHTLY = 1
nightly: reliability slow

network: $(VENV)/.dev
	$(PYTEST) -m network

# The documentation, into site/. A broken link is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Delete each system and each add-on package in turn; the rest must stay green.
deletion: $(VENV)/.dev
	$(BIN)/python tests/deletion.py

clean:
	rm -rf $(VENV) demo-output three-stage-output site

# Installed in one step each, so that a stopped install is taken up again.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable ".[demo]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable ".[dev]"
	touch $(VENV)/.demo $@ # dev contains demo

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable ".[docs]"
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("hllm needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

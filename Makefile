# The two commands of the README: `make survey` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out/survey
MODEL ?= trained(cnn, digits, epochs=5)
BATCHES ?= digits(test)
PYTEST_ARGS ?= -n 2 --dist worksteal
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help survey test test-long check format docs clean

help:
	@echo "make survey   environment, then a survey of a small CNN: prints the path of report.html"
	@echo "make test     environment, then the tests (under 10 minutes on 2 cores)"
	@echo "make test-long  the checks that take minutes"
	@echo "make check    formatting, lint, types"
	@echo "make docs     the documentation, into docs/_build/html"

survey: $(VENV)/.base
	$(BIN)/isogon survey "$(MODEL)" --batches "$(BATCHES)" --out "$(OUT)"

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-long: $(VENV)/.dev
	$(BIN)/python -m pytest -m long

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "isogon needs Python >= 3.11: apt-get install python3"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "isogon needs Python >= 3.11, got $$("$(PYTHON)" --version): set PYTHON=..."; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"

$(VENV)/.base: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $(VENV)/.base $@

clean:
	rm -rf "$(VENV)" out docs/_build

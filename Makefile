# storm-edge: one command for every step. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# Extra words for pip, e.g. the index of CPU-only PyTorch wheels on a machine without a GPU.
PIP_FLAGS ?=
EXTRAS := cpu,export,dev

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := plugins runtime export demo cli

.PHONY: help setup check test format clean
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with everything the other commands need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old: install Python 3.11 or newer, or name one with PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "error: Python's venv module is missing: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_FLAGS) -e '.[$(EXTRAS)]'
	@touch $@

.mypy_root: Makefile
	@mkdir -p .mypy_root/storm_edge
	@for package in $(PACKAGES); do ln -sfn ../../$$package .mypy_root/storm_edge/$$package; done
	@touch $@

check: $(STAMP) .mypy_root ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p storm_edge

format: $(STAMP) ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(STAMP) ## The whole test suite
	$(BIN)/python -m pytest

clean: ## Remove build products and the environment
	rm -rf $(VENV) .mypy_root .mypy_cache .ruff_cache .pytest_cache build dist out *.egg-info

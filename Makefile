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

OUT := out/demo
# What `make export`, `make build` and `make verify` work on.
CHECKPOINT ?= $(if $(wildcard demo/checkpoint/config.json),demo/checkpoint,$(OUT)/checkpoint)
BUNDLE ?= $(OUT)/bundle
TARGET ?= cpu

.PHONY: help setup demo export build verify check test format parity clean
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with everything the other commands need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old: install Python 3.11 or newer, or name one with PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "error: Python's venv module is missing: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV); the first time takes a few minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_FLAGS) -e '.[$(EXTRAS)]'
	@touch $@

.mypy_root: Makefile
	@mkdir -p .mypy_root/storm_edge
	@for package in $(PACKAGES); do ln -sfn ../../$$package .mypy_root/storm_edge/$$package; done
	@touch $@

demo: export build verify ## From checkpoint to an answer about a video, on this machine's CPU
	$(BIN)/python -m storm_edge.demo $(OUT)
	@echo "question: $$(cat $(OUT)/question.txt)  (truth: $$(cat $(OUT)/answer.txt))"
	$(BIN)/storm run $(BUNDLE) $(OUT)/clip.mp4 "$$(cat $(OUT)/question.txt)" --max-tokens 16
	@test -e demo/checkpoint/config.json || echo "note: this checkpoint is untrained, so its words mean nothing; the path is real."

$(OUT)/checkpoint: $(STAMP)
	$(BIN)/storm init storm-mini -o $@ --force

export: $(STAMP) $(if $(filter $(OUT)/checkpoint,$(CHECKPOINT)),$(OUT)/checkpoint) ## CHECKPOINT=... to BUNDLE=...
	$(BIN)/storm export $(CHECKPOINT) -o $(BUNDLE) --force

build: $(STAMP) ## Engine for TARGET=... from BUNDLE=...
	$(BIN)/storm build $(BUNDLE) --target $(TARGET)

verify: $(STAMP) ## Compare the engine of BUNDLE=... with PyTorch's record
	$(BIN)/storm verify $(BUNDLE)

check: $(STAMP) .mypy_root ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p storm_edge

format: $(STAMP) ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(STAMP) ## The whole test suite
	$(BIN)/python -m pytest

parity: $(STAMP) ## Measure parity with PyTorch and timings: writes docs/parity.md (minutes, 10 GB)
	$(BIN)/python benchmarks/parity.py > docs/parity.md.partial
	mv docs/parity.md.partial docs/parity.md

clean: ## Remove build products and the environment
	rm -rf $(VENV) .mypy_root .mypy_cache .ruff_cache .pytest_cache build dist out *.egg-info

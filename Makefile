# storm-edge: one command for every step. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# Extra words for pip, e.g. the index of CPU-only PyTorch wheels on a machine without a GPU.
PIP_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# A Jetson, and a Python as old as JetPack 6.2's, get the packages that run and build engines there, and see JetPack's own;
# exporting needs PyTorch and a newer Python, so it is done on a workstation.
PYTHON_VERSION := $(shell $(or $(wildcard $(BIN)/python),$(PYTHON)) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null)
ifneq ($(wildcard /etc/nv_tegra_release)$(filter 3.10,$(PYTHON_VERSION)),)
  EXTRAS := cpu,serve,jetson
  VENV_FLAGS := --system-site-packages
else
  EXTRAS := cpu,export,demo,serve,batch,dev,debug
endif
# A CUDA build of ONNX Runtime shares its folder with the CPU's: installing this over that breaks it.
HAS_CUDA := 'import onnxruntime, sys; sys.exit("CUDAExecutionProvider" not in onnxruntime.get_available_providers())'
CONSTRAINTS := $(if $(filter 3.10,$(PYTHON_VERSION)),constraints-jp62.txt,constraints.txt)
PACKAGES := plugins runtime export calibration demo server batch cli

OUT := out/demo
# What `make export`, `make build` and `make verify` work on.
DEMO := $(if $(wildcard demo/checkpoint/config.json),demo/checkpoint,$(OUT)/checkpoint)
CHECKPOINT ?= $(DEMO)
BUNDLE ?= $(if $(filter $(DEMO),$(CHECKPOINT)),$(OUT)/bundle,out/$(notdir $(CHECKPOINT:%/=%))/bundle)
TARGET ?= cpu
# The demo's model is recorded on clips of its own kind.
EXPORT_FLAGS ?= $(if $(filter demo/checkpoint,$(CHECKPOINT)),--clips demo)

# What int8 and fp8 are calibrated on: videos like those the engine will see; the demo's own clips for the demo.
DATA ?= $(if $(filter $(DEMO),$(CHECKPOINT)),demo)
CALIBRATION ?= $(notdir $(abspath $(DATA)))$(if $(filter fp8,$(LLM_PRECISION)),-llm)
RANGES := $(BUNDLE)/calibration/$(CALIBRATION)/ranges.safetensors
CALIBRATE = $(BIN)/storm calibrate $(BUNDLE) --data $(DATA) --name $(CALIBRATION) \
  $(if $(filter fp8,$(LLM_PRECISION)),--llm) $(CALIBRATE_FLAGS)
# What an engine needs of them: without DATA a calibration that is there already will do.
RANGES_WANTED := $(filter int8 fp8,$(PRECISION))$(filter fp8,$(LLM_PRECISION))
RANGES_THERE := $(if $(DATA),,$(wildcard $(BUNDLE)/calibration/*/ranges.safetensors))
RANGES_MADE := $(if $(RANGES_WANTED),$(if $(RANGES_THERE),,$(RANGES)))

.PHONY: help setup demo export build calibrate data-given engine serve watch verify check test plugin wheel fuzz test-gpu test-sanitize test-tensorrt format parity \
  engines-report gpu-report bench bench-full bench-inputs clean
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with everything the other commands need

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: $$($(PYTHON) --version) is too old: install Python 3.11 or newer, or name one with PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV_FLAGS) $(VENV) || \
	  { rm -rf $(VENV); echo "error: Python's venv module is missing: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV); the first time takes a few minutes"
	@extras=$(EXTRAS); if $(BIN)/python -c $(HAS_CUDA) 2> /dev/null; then extras=$${extras#cpu,}; \
	  echo "keeping the ONNX Runtime with CUDA that is there"; fi; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) $(PIP_FLAGS) -e ".[$$extras]"
	@touch $@

.mypy_root: Makefile
	@mkdir -p .mypy_root/storm_edge
	@for package in $(PACKAGES); do ln -sfn ../../$$package .mypy_root/storm_edge/$$package; done
	@touch $@

demo: export build verify ## From checkpoint to an answer about a video, on this machine's CPU
	$(BIN)/python -m storm_edge.demo $(OUT)
	@echo "question: $$(cat $(OUT)/question.txt)  (truth: $$(cat $(OUT)/answer.txt))"
	$(BIN)/storm run $(BUNDLE) $(OUT)/clip.mp4 "$$(cat $(OUT)/question.txt)" --max-tokens 16
	$(BIN)/python -m storm_edge.demo $(OUT) --bundle $(BUNDLE)
	@test -e demo/checkpoint/config.json || echo "note: this checkpoint is untrained, so its words mean nothing; the path is real."

$(OUT)/checkpoint/config.json: | $(STAMP)
	$(BIN)/storm init storm-mini -o $(OUT)/checkpoint --force

export: $(CHECKPOINT)/config.json | $(STAMP) ## CHECKPOINT=... to BUNDLE=...
	$(BIN)/storm export $(CHECKPOINT) -o $(BUNDLE) $(EXPORT_FLAGS) --force

build: $(STAMP) ## Engine for TARGET=... from BUNDLE=...
	$(BIN)/storm build $(BUNDLE) --target $(TARGET)

calibrate: data-given $(BUNDLE)/manifest.json ## Ranges of int8 and fp8 from the videos of DATA=...; alone: the demo's clips
	$(CALIBRATE)

$(RANGES): $(BUNDLE)/manifest.json | $(STAMP)
	$(CALIBRATE)

data-given:
	@test -n "$(DATA)" || { echo "error: int8 and fp8 are calibrated on videos like those the engine will see: name a" \
	  "folder of them, DATA=DIR" >&2; exit 1; }

# LLM=tensorrt-llm and TP=2, for instance: what runs the language model in a data center, on how many GPUs.
engine: $(if $(RANGES_MADE),data-given) $(BUNDLE)/manifest.json $(RANGES_MADE) ## CHECKPOINT=... to an engine for TARGET=... PRECISION=... LLM=...; alone: the demo, here
	$(BIN)/storm build $(BUNDLE) --target $(TARGET) $(if $(PRECISION),--precision $(PRECISION)) \
	  $(if $(LLM_PRECISION),--llm-precision $(LLM_PRECISION)) $(if $(LLM),--llm $(LLM)) $(if $(TP),--tp $(TP)) \
	  $(if $(RANGES_MADE),--calibration $(CALIBRATION)) $(BUILD_FLAGS)

$(BUNDLE)/manifest.json: $(CHECKPOINT)/config.json | $(STAMP)
	$(BIN)/storm export $(CHECKPOINT) -o $(BUNDLE) $(EXPORT_FLAGS) --force

SERVE_FLAGS ?=
serve: $(BUNDLE)/manifest.json ## Answer questions about videos over HTTP, with a page; SERVE_FLAGS='--port 8080'
	@ls $(BUNDLE)/engines/*/engine.json > /dev/null 2>&1 || $(BIN)/storm build $(BUNDLE) --target $(TARGET)
	$(BIN)/storm serve $(BUNDLE) $(SERVE_FLAGS)

WATCH_FLAGS ?=
watch: $(BUNDLE)/manifest.json ## Live answers about a stream of the demo's scenes, the truth beside them; WATCH_FLAGS='--seconds 60'
	@ls $(BUNDLE)/engines/*/engine.json > /dev/null 2>&1 || $(BIN)/storm build $(BUNDLE) --target $(TARGET)
	$(BIN)/python -m storm_edge.demo.live $(BUNDLE) $(WATCH_FLAGS)

verify: $(STAMP) ## Compare the engine of BUNDLE=... with PyTorch's record
	$(BIN)/storm verify $(BUNDLE)

check: $(STAMP) .mypy_root ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p storm_edge

format: $(STAMP) ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(STAMP) ## The whole test suite, after `make plugin`
	@$(MAKE) --no-print-directory plugin || echo "note: the tests of the native operators are skipped"
	$(BIN)/python -m pytest

# Definitions for CMake, e.g. -DSTORM_CUDA=OFF, -DTENSORRT_ROOT=/opt/TensorRT or -DSTORM_CUDA_ARCHITECTURES=87.
PLUGIN_FLAGS ?=

plugin: | $(STAMP) ## Build the operators as native code: CPU, ONNX Runtime, and CUDA and TensorRT where they are
	@GNUMAKEFLAGS=--no-print-directory $(BIN)/python -m storm_edge.plugins.build $(PLUGIN_FLAGS)

wheel: $(STAMP) ## A wheel with the compiled CPU operators, in dist/
	$(BIN)/python -m storm_edge.plugins.wheel $(PLUGIN_FLAGS)

NVCC := $(or $(shell command -v nvcc 2> /dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
test-gpu: $(STAMP) ## The operators' kernels, the TensorRT plugin, NVDEC and the scaling of frames on this machine's GPU
	@if ! $(BIN)/python -c 'import sys; from storm_edge.plugins.gpus import find_gpus; sys.exit(not find_gpus())'; then echo "skipped: this machine has no NVIDIA GPU, or its driver does not answer"; \
	elif [ -z "$(NVCC)" ]; then echo "skipped: there is no nvcc: install the CUDA toolkit"; \
	else $(MAKE) --no-print-directory plugin && $(BIN)/python -m pytest -rs tests/plugins/cuda tests/plugins/tensorrt \
	  tests/plugins/selective_scan/cuda tests/plugins/causal_conv1d/cuda tests/runtime/answer/test_on_gpu.py \
	  tests/runtime/video/test_nvdec.py; fi

# CMake is the environment's, or the system's where it has none.
CMAKE := PATH="$(CURDIR)/$(BIN):$$PATH" cmake
test-sanitize: $(STAMP) ## The CPU kernels' tests under AddressSanitizer, UBSan and ThreadSanitizer
	@for sanitizers in address,undefined thread; do \
	  build=build/sanitize/$$sanitizers; \
	  $(CMAKE) -S plugins -B $$build -DSTORM_TESTS=ON -DSTORM_ONNXRUNTIME=OFF -DSTORM_SANITIZE=$$sanitizers; \
	  $(CMAKE) --build $$build --parallel --target storm_cpu_test; \
	  echo "storm_cpu_test with $$sanitizers:"; $$build/storm_cpu_test; \
	done

fuzz: $(STAMP) ## Damaged files, 500 hostile bundles, the operators under sanitizers, 50 killed commands (minutes)
	@failed=0; \
	$(BIN)/python tests/fuzz/run.py --videos 500 --models 200 --calibrations 200 || failed=1; \
	$(BIN)/python tests/fuzz/bundles.py --cases 500 || failed=1; \
	$(BIN)/python tests/fuzz/operators.py --seconds 60 || failed=1; \
	$(BIN)/python tests/fuzz/kill.py --kills 50 || failed=1; \
	echo "fuzz: $$([ $$failed = 0 ] && echo passed || echo FAILED) in $$SECONDS s"; exit $$failed

parity: $(STAMP) ## Measure parity with PyTorch and timings: writes docs/parity.md (minutes, 10 GB)
	$(BIN)/python benchmarks/parity.py > docs/parity.md.partial
	mv docs/parity.md.partial docs/parity.md

engines-report: $(STAMP) ## Compile every form for every GPU that can be compiled for: writes docs/engines.md (minutes)
	$(BIN)/python benchmarks/engines.py > docs/engines.md.partial
	mv docs/engines.md.partial docs/engines.md

# Who is measured beside this project, where its packages disturb nobody: compiled for this machine.
PEERS := build/bench-venv
PEER_PACKAGES := llama-cpp-python==0.3.36 gguf==0.19.0 onnxruntime-genai==0.18.0
BENCH_MODEL ?= edge
SIDE_BY_SIDE := $(BIN)/python benchmarks/side_by_side/main.py $(BENCH_MODEL)

$(PEERS)/.installed: | $(STAMP)
	$(BIN)/python -m venv $(PEERS)
	@# Sees what is in $(VENV), so that only what is not there is installed.
	@$(PEERS)/bin/python -c 'import site, sys; open(site.getsitepackages()[0] + "/base.pth", "w").write("import site; site.addsitedir(%r)" % sys.argv[1])' \
	  "$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')"
	CMAKE_ARGS="-DGGML_NATIVE=ON" $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) $(PIP_FLAGS) \
	  --no-binary llama-cpp-python $(PEER_PACKAGES)
	@touch $@

bench-inputs: $(PEERS)/.installed
	$(BIN)/python benchmarks/side_by_side/prepare.py $(BENCH_MODEL)
	$(PEERS)/bin/python benchmarks/side_by_side/gguf_file.py $(BENCH_MODEL)
	$(PEERS)/bin/python benchmarks/side_by_side/genai_folder.py $(BENCH_MODEL)

bench: bench-inputs ## Measure beside PyTorch, llama.cpp and onnxruntime-genai: writes docs/benchmarks.md (minutes, 8 GB)
	$(SIDE_BY_SIDE)

bench-full: bench-inputs ## The same with clips of up to 512 frames and prompts of up to 25,000 tokens (an hour)
	$(SIDE_BY_SIDE) --full

test-tensorrt: $(STAMP) ## The contract of every session kind, on TensorRT where it and a GPU are
	$(BIN)/python -m pytest tests/runtime/sessions -rs

# Wheels to install from where there is no network; mamba_ssm's source, to measure its kernel beside ours.
WHEELS ?=
MAMBA ?=
gpu-report: ## All that a machine with an NVIDIA GPU can say: writes docs/gpu/ (ten minutes); WHEELS=DIR without a network
	@$(PYTHON) benchmarks/gpu_report.py $(if $(WHEELS),--wheels $(WHEELS)) $(if $(MAMBA),--mamba $(MAMBA))

clean: ## Remove build products and the environment
	rm -rf $(VENV) .venv-gpu .mypy_root .mypy_cache .ruff_cache .pytest_cache build dist out *.egg-info

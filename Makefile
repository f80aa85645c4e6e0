# make help lists the targets. Everything is installed into $(VENV); nothing outside the checkout is touched.
VENV ?= .venv
PYTHON ?= python3
# The newest torch brings gigabytes of CUDA packages where none is installed yet; TORCH= says which one to take.
TORCH ?= torch==2.13.0
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
BUNDLE ?= engine/worldrt/engine/models/nano
PROMPT ?= A red car drives along a coast road in the evening sun
ROOMS = engine export runtime kernels benchmarks

.PHONY: help demo test lint soak kernels bench gpu-suite clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 14

$(VENV)/.export: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -e '.[export]'
	@touch $@

$(VENV)/.bench: $(VENV)/.export
	$(PIP) -e '.[export,bench]'
	@touch $@

$(VENV)/.test: $(VENV)/.export
	$(PIP) -e '.[export,test]'
	@touch $@

$(VENV)/.run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

demo: $(VENV)/.run ## write output/demo.mp4 from a prompt, with the small model that comes with the package
	$(VENV)/bin/trt-run text2world --bundle $(BUNDLE) --prompt "$(PROMPT)" --save_path output/demo.mp4 --overwrite

test: $(VENV)/.test lint ## lint, type-check and test (no GPU needed)
	$(VENV)/bin/python -m pytest -n 2 -m "not gpu and not multi and not slow" --durations=25 --durations-min=5

lint: $(VENV)/.test ## ruff, mypy and the floors
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

kernels: ## build the C++ and, with nvcc, the CUDA kernels in place
	cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release
	cmake --build build
	cmake --install build

bench: $(VENV)/.bench ## measure all that this machine can do and write benchmarks/out/report.html
	$(VENV)/bin/trt-bench all --output benchmarks/out

soak: $(VENV)/.test ## 10,000 frames while workers of a Ray cluster are killed; ranks killed in every phase (minutes)
	$(PIP) -e '.[export,test,ray]'
	$(VENV)/bin/python -m pytest -m slow tests/runtime/parallel/pools tests/runtime/parallel/test_faults.py \
	  tests/runtime/parallel/test_killed.py

gpu-suite: ## tests and timings of a machine with a GPU, with $(PYTHON) as it is (no install)
	PYTHON=$(PYTHON) bash benchmarks/gpu_suite.sh

clean: ## remove what the targets made
	rm -rf build dist output bundles benchmarks/out $(VENV)

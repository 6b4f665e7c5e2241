# Every target is idempotent. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
PYVER = $(shell $(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# uv reads its own variable where pip has PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

.PHONY: help demo test setup setup-dev lint type docs examples bench fuzz lock clean

help: ## this list
	@awk -F':.*## ' '/^[a-z%-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup ## the whole loop on scikit-learn's digits, under 3 minutes; leaves ./demo-output
	@$(BIN)/python -m examples.demo

test: setup-dev ## install what the tests need and run them all
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: setup-dev ## style, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

type: setup-dev ## strict types
	@$(BIN)/mypy

docs: setup-dev ## build the documentation into site/, warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

examples: setup-dev ## run every example
	@set -e; for example in examples/[0-9]*.py; do echo "== $$example"; $(BIN)/python $$example; done

bench: bench-spine bench-evaluation bench-profile_serving bench-serving ## every benchmark; what wrk, h2load or nginx are missing for is left out

bench-%: setup-dev ## one benchmark: prints a table, writes benchmarks/results/NAME.json
	@$(BIN)/python -m benchmarks.$*

fuzz: setup-dev ## 100,000 requests that no client should send, to servers of each kind (some minutes)
	@$(BIN)/python -m benchmarks.fuzz

lock: $(UV) ## resolve the dependencies again
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  pyproject.toml --extra all --extra nncf --extra s3 --group dev -o requirements/dev.txt
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  pyproject.toml --extra optimize --extra sklearn --group build -c requirements/dev.txt -o requirements/demo.txt
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  pyproject.toml --extra huggingface --extra keras --extra prune -o requirements/torch.txt
	@echo uv==$$($(UV) --version | cut -d' ' -f2) > $(VENV)/uv.in
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate $(VENV)/uv.in -o requirements/uv.txt

setup: $(VENV)/.demo
setup-dev: $(VENV)/.dev

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Fairway needs Python 3.11 to 3.13; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@if [ -f requirements/uv.txt ]; then $(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt; \
	  else $(BIN)/pip install -q uv; fi

$(VENV)/.demo: requirements/demo.txt pyproject.toml | $(UV)
	@echo "installing the package and what the demo needs"
	@$(UV) pip install -q --compile-bytecode --require-hashes -r requirements/demo.txt
	@$(UV) pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/torch.txt pyproject.toml | $(UV)
	@echo "installing the package and what the tests need"
	@$(UV) pip install -q --compile-bytecode --require-hashes -r requirements/dev.txt
	@if [ "$(PYVER)" = 3.11 ] || [ -n "$(TORCH)" ]; then \
	  $(UV) pip install -q --compile-bytecode --require-hashes -r requirements/torch.txt \
	  || echo "PyTorch could not be installed: its tests will be skipped (put a CPU wheel of it where UV_FIND_LINKS points)"; fi
	@$(UV) pip install -q --no-deps --no-build-isolation -e .
	@touch $@

clean: ## remove what was built; the virtual environment stays
	@rm -rf site dist demo-output .fairway .mypy_cache .ruff_cache .pytest_cache .hypothesis

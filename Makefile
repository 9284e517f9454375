# Every target installs what it needs: a fresh clone requires Python 3.11 or newer, and make.
#   PYTHON=python3.12 make demo     another interpreter
#   VENV=/some/directory make test     another location of the virtual environment

VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1

# Python interpreters to try, in this order; the rule of the virtual environment uses the first one that is new enough.
CANDIDATES := $(PYTHON) python3 python python3.14 python3.13 python3.12 python3.11
NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

# Address of `make serve`.
ADDRESS ?= 127.0.0.1:8000

# Additional arguments of pytest in `make test`.
PYTEST ?= -m "not slow and not nightly"

# Processes of `make test`: one for each core, at most four.
#   make test WORKERS=     one process, as a debugger needs
WORKERS ?= -n logical --maxprocesses 4 --dist worksteal

# Processes of `make slow`: each takes whole files, in the order of tests/conftest.py, since fixtures of a file take a minute.
FILES = $(subst --dist worksteal,--dist loadfile --no-loadscope-reorder,$(WORKERS))

# Damaged files of each kind in `make nightly`.
DAMAGED ?= 2000

.DEFAULT_GOAL := help
.PHONY: help demo test slow nightly docs serve screenshots parity lint types format bench dev clean

help:  ## This list
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  \1	\2/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/.stamp-run  ## Train a small GPT on real text for a few minutes and generate with it
	@$(BIN)/gptkit demo

test: $(VENV)/.stamp-test  ## Run the tests, except slow ones
	@$(BIN)/python -m pytest $(WORKERS) $(PYTEST)

slow: $(VENV)/.stamp-dev  ## Run the slow tests: minutes of compilation, processes and pages
	@$(BIN)/python -m pytest $(FILES) -m "slow and not nightly"

nightly: $(VENV)/.stamp-dev  ## Run what only repeats slow tests: further presets, thousands of damaged files
	@$(BIN)/python -m pytest $(FILES) -m nightly
	@GPTKIT_DAMAGED_FILES=$(DAMAGED) $(BIN)/python -m pytest $(WORKERS) -m slow \
	    tests/interop/test_damaged_files.py tests/runs/test_damaged_checkpoints.py tests/runs/test_damaged_inputs.py

docs: $(VENV)/.stamp-dev  ## Build the documentation into site/
	@$(BIN)/gptkit docs build --out site

serve: $(VENV)/.stamp-dev  ## Serve the documentation at http://127.0.0.1:8000, with live reload
	@$(BIN)/gptkit docs serve --address $(ADDRESS)

screenshots: $(VENV)/.stamp-dev  ## Take the screenshots of the documentation, from site/
	@$(BIN)/python tools/screenshots.py site

parity: $(VENV)/.stamp-test  ## Compare every family with transformers, and update docs/parity.md
	@GPTKIT_PARITY=docs/parity.md $(BIN)/python -m pytest tests/interop/test_parity.py

lint: $(VENV)/.stamp-dev  ## Check style, formatting, wording and import contracts
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check . || { echo "run: make format"; exit 1; }
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python tools/wording.py
	@echo "lint: clean"

types: $(VENV)/.stamp-dev  ## Check types
	@$(BIN)/mypy

format: $(VENV)/.stamp-dev  ## Format the code
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

bench: $(VENV)/.stamp-dev  ## Compare speed with handwritten models
	@$(BIN)/python -m benchmarks.assembled_vs_handwritten $(BENCH)

dev: $(VENV)/.stamp-dev  ## Install everything needed to work on gptkit

clean:  ## Remove build outputs; keep the virtual environment and runs
	@rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache
	@find gptkit tests -name __pycache__ -type d -prune -exec rm -rf {} +

# -- the virtual environment: one stamp for each set of dependencies; a larger set implies the smaller ones -----------------

$(VENV)/.stamp-venv:
	@for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c "$(NEW_ENOUGH)" 2>/dev/null; then \
	        echo "creating $(VENV) with $$($$candidate --version)"; \
	        "$$candidate" -m venv $(VENV) && touch $@ && exit 0; \
	    fi; \
	done; \
	echo "no Python 3.11 or newer with venv was found; specify one: PYTHON=/path/to/python make $(MAKECMDGOALS)" >&2; \
	exit 1

$(VENV)/.stamp-run: pyproject.toml constraints.txt | $(VENV)/.stamp-venv
	@echo "installing gptkit (the first time takes a minute or two)"
	@$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e '.[gpt2]'
	@touch $@

$(VENV)/.stamp-test: pyproject.toml constraints.txt | $(VENV)/.stamp-venv
	@echo "installing gptkit and its test dependencies (the first time takes a minute or two)"
	@$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e '.[test]'
	@touch $(VENV)/.stamp-run $@

$(VENV)/.stamp-dev: pyproject.toml constraints.txt | $(VENV)/.stamp-venv
	@echo "installing gptkit and its development tools (the first time takes a few minutes)"
	@$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.stamp-run $(VENV)/.stamp-test $@

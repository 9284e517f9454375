# Everything sets itself up: a fresh clone needs Python 3.11 or newer, and make.
#   PYTHON=python3.12 make demo     another interpreter
#   VENV=/some/folder make test     another place for the virtual environment

VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1

# The first of these that is new enough; the venv's rule explains itself where none is.
CANDIDATES := $(PYTHON) python3 python python3.14 python3.13 python3.12 python3.11
NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help demo test docs parity lint types format bench dev clean

help:  ## This list
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  \1	\2/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/.stamp-run  ## Train a small GPT on real text for a few minutes and let it write
	@$(BIN)/gptkit demo

test: $(VENV)/.stamp-test  ## Run the tests (PYTEST="-m 'not slow'" for the quick ones)
	@$(BIN)/python -m pytest $(PYTEST)

docs: $(VENV)/.stamp-dev  ## Build the documentation into site/
	@said=$$($(BIN)/mkdocs build --strict 2>&1) || { echo "$$said"; exit 1; }
	@echo "documentation: site/index.html"

parity: $(VENV)/.stamp-test  ## Measure every family against transformers, and write docs/parity.md
	@GPTKIT_PARITY=docs/parity.md $(BIN)/python -m pytest tests/interop/test_parity.py

lint: $(VENV)/.stamp-dev  ## Check style, formatting and who imports whom
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check . || { echo "run: make format"; exit 1; }
	@$(BIN)/lint-imports --no-logo
	@echo "lint: clean"

types: $(VENV)/.stamp-dev  ## Check types
	@$(BIN)/mypy

format: $(VENV)/.stamp-dev  ## Put the code into its format
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

bench: $(VENV)/.stamp-dev  ## Measure against models written by hand
	@$(BIN)/python -m benchmarks.assembled_vs_handwritten $(BENCH)

dev: $(VENV)/.stamp-dev  ## Set up everything that working on gptkit needs

clean:  ## Remove what was built; the virtual environment and runs stay
	@rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache
	@find gptkit tests -name __pycache__ -type d -prune -exec rm -rf {} +

# -- the virtual environment: one stamp for each set of dependencies, the larger sets count for the smaller ones ----------

$(VENV)/.stamp-venv:
	@for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c "$(NEW_ENOUGH)" 2>/dev/null; then \
	        echo "making $(VENV) with $$($$candidate --version)"; \
	        "$$candidate" -m venv $(VENV) && touch $@ && exit 0; \
	    fi; \
	done; \
	echo "no Python 3.11 or newer with venv was found; name one: PYTHON=/path/to/python make $(MAKECMDGOALS)" >&2; \
	exit 1

$(VENV)/.stamp-run: pyproject.toml constraints.txt | $(VENV)/.stamp-venv
	@echo "installing gptkit (the first time takes a minute or two)"
	@$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.stamp-test: pyproject.toml constraints.txt | $(VENV)/.stamp-venv
	@echo "installing gptkit and what its tests need (the first time takes a minute or two)"
	@$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e '.[test]'
	@touch $(VENV)/.stamp-run $@

$(VENV)/.stamp-dev: pyproject.toml constraints.txt | $(VENV)/.stamp-venv
	@echo "installing gptkit and the tools to work on it (the first time takes a few minutes)"
	@$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.stamp-run $(VENV)/.stamp-test $@

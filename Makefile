# make demo | test | lint | docs | bench | notebooks | lock | clean. Needs Python 3.11 to
# 3.13 and git.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-long coverage lint docs bench notebooks lock clean

help:  ## List the targets.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

# A stamp per requirement set: the second run installs nothing.
$(VENV)/.scripts: requirements/scripts.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/scripts.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.scripts
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

demo: $(VENV)/.scripts  ## Run every system at its demo preset; ends in runs/report.html.
	$(BIN)/python -m train_scripts assets
	$(BIN)/python -m train_scripts demo

test: $(VENV)/.dev  ## Run the whole test suite.
	$(BIN)/python -m train_scripts assets || echo "Tests that need these data will skip."
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-long: $(VENV)/.dev  ## The same, with parsers fuzzed six times as long.
	JEFF_EXAMPLES=long $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

coverage: $(VENV)/.dev  ## The same, and which lines and branches it runs.
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

lint: $(VENV)/.dev  ## Check formatting, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright

docs: $(VENV)/.dev  ## Build the site, docs/_build/index.html; a warning is an error.
	$(BIN)/python -m sphinx -W --keep-going -n -q -j 2 -c docs . docs/_build

bench: $(VENV)/.scripts  ## Run the benchmarks (the peers must be installed).
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.memory

notebooks: $(VENV)/.dev  ## Write notebooks/*.ipynb from their sources.
	$(BIN)/python tests/programs/notebooks.py write

lock:  ## Renew the hash-pinned requirement files (needs uv).
	echo "setuptools>=77" | uv pip compile pyproject.toml - --quiet --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --extra scripts --extra llm --extra bio -o requirements/scripts.txt
	echo "setuptools>=77" | uv pip compile pyproject.toml - --quiet --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  -c requirements/scripts.txt --extra scripts --extra llm --extra bio --extra dev --extra docs -o requirements/dev.txt
	uv pip compile pyproject.toml --quiet --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  -c requirements/dev.txt --extra peers --extra data -o requirements/peers.txt

clean:  ## Remove the environment and the runs.
	rm -rf $(VENV) runs docs/_build docs/api

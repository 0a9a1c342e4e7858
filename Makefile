# Each target does its own set-up: Python 3.11 or newer with pip, and make, are all that a machine needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test lint ci golden bench soak clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

run: $(VENV)/.run ## from data to live traffic on this machine: ekiben run
	$(BIN)/ekiben run

test: $(VENV)/.dev ## all tests; what is not installed is skipped, and said
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev ## formatting, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ci: lint test ## everything that must pass before a change lands: lint, test, run
	$(MAKE) run
	$(BIN)/ekiben down

golden: $(VENV)/.dev ## write the YAML of every workflow anew; read the diff
	for file in workflows/*.yaml; do $(BIN)/ekiben workflow export --write $$(basename $$file .yaml); done

bench: $(VENV)/.dev ## side-by-side measurements; each prints ratios
	for file in benchmarks/*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py); done

soak: $(VENV)/.dev ## the long tests
	$(BIN)/python -m pytest -m soak $(PYTEST_ARGS)

clean: ## stop what runs and remove what was made here
	-[ -x $(BIN)/ekiben ] && $(BIN)/ekiben down
	rm -rf $(VENV) .ekiben dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[sklearn]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.run

# Each target does its own set-up: Python 3.11 or newer with pip, and make, are all that a machine needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# torch has an environment of its own: where it is installed, skops takes 4 s longer to import.
VENV_TORCH ?= .venv-torch

.DEFAULT_GOAL := help
.PHONY: help run test test-journey contract test-cluster test-image test-torch lint ci golden bench bench-torch soak clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 15

run: $(VENV)/.run ## from data to live traffic on this machine: ekiben run
	$(BIN)/ekiben run

test: $(VENV)/.dev ## the tests; what is not installed is skipped, and said
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

contract: $(VENV)/.dev $(VENV)/oldest/.ready ## the tracker's contract with the oldest supported wandb client
	EKIBEN_CLIENT_PYTHON=$(abspath $(VENV)/oldest/bin/python) $(BIN)/python -m pytest tests/contract $(PYTEST_ARGS)

test-journey: $(VENV)/.dev ## the main job end to end, with kill -9 between, and the README's commands; alone, for it measures load
	$(BIN)/python -m pytest -m journey tests/e2e $(PYTEST_ARGS)

test-cluster: $(VENV)/.dev ## releases on a real cluster: KUBECONFIG and EKIBEN_E2E_*, see tests/e2e/kubernetes and argo, settings.py
	$(BIN)/python -m pytest -m cluster tests/e2e/kubernetes tests/e2e/argo $(PYTEST_ARGS)

test-image: $(VENV)/.dev ## the tests that build images; skipped without root, buildah and debootstrap
	$(BIN)/python -m pytest -m image $(PYTEST_ARGS)

test-torch: $(VENV_TORCH)/.dev ## the tests that need torch, in .venv-torch
	$(VENV_TORCH)/bin/python -m pytest -m 'not soak and not image' -k 'cnn or torch' \
		tests/e2e/test_digits_cnn.py tests/e2e/test_new.py $(PYTEST_ARGS)

lint: $(VENV)/.dev ## formatting, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini
	$(BIN)/lint-imports

ci: lint test test-journey contract test-image test-torch ## everything that must pass before a change lands
	$(MAKE) run
	$(BIN)/ekiben down

golden: $(VENV)/.dev ## write the YAML of every workflow, and of typical services, anew; read the diff
	for file in workflows/*.yaml; do $(BIN)/ekiben workflow export --write $$(basename $$file .yaml); done
	EKIBEN_WRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/golden/test_manifests.py

bench: $(VENV)/.dev ## side-by-side measurements; each prints ratios
	for file in benchmarks/*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py); done

bench-torch: $(VENV_TORCH)/.dev ## services beside BentoML, FastAPI and LitServe, torch models too
	$(VENV_TORCH)/bin/python -m benchmarks.service

soak: $(VENV)/.dev ## the long tests
	$(BIN)/python -m pytest -m soak $(PYTEST_ARGS)

clean: ## stop what runs and remove what was made here
	-[ -x $(BIN)/ekiben ] && $(BIN)/ekiben down
	rm -rf $(VENV) $(VENV_TORCH) .ekiben dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/oldest/.ready: $(BIN)/python
	$(PYTHON) -m venv $(VENV)/oldest
	$(VENV)/oldest/bin/python -m pip install --quiet --disable-pip-version-check 'wandb==0.28.*'
	touch $@

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[sklearn]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.run

$(VENV_TORCH)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV_TORCH)
	$(VENV_TORCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,torch,bench]'
	touch $@

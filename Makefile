# Two commands for people: `make train` and `make test`. Both start from a machine with Python 3.11+, a C compiler and make.
PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= configs/quickstart.yaml
DATA ?= configs/data/embedded.yaml
RANKS ?= 1
# processes that share the tests, file by file; many tests start ranks of their own
WORKERS ?= 2
# one process gets all cores; several share them
export OMP_NUM_THREADS ?= $(shell expr `nproc` / $(RANKS))
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: train test test-all check setup clean

train: setup  ## from nothing to a trained model and a table of what it learnt
	dualmask data build --config $(DATA)
	deepspeed --num_gpus $(RANKS) launcher/train.py --config $(CONFIG) --resume auto
	python -m launcher.quickstart --config $(CONFIG)

test: setup check  ## every check that CI runs
	OMP_NUM_THREADS=1 pytest -n $(WORKERS) --dist loadfile --durations=25 -m "not slow"

test-all: setup check  ## the same and the slow ones
	OMP_NUM_THREADS=1 pytest

check: setup  ## format, lint, types, who may import whom
	ruff format --check .
	ruff check .
	mypy
	lint-imports

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "DualMask needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:  ## remove what was built here, not what was trained
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache

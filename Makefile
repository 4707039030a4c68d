# Commands for people: `make train`, `make english` and `make test`. All start from a machine with Python 3.11+, a C compiler
# and make.
PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= configs/quickstart.yaml
DATA ?= configs/data/embedded.yaml
RANKS ?= 1
# of english: its texts, jsonl files with commas between them; and sentences with corrections, to measure it on
TEXTS ?= corpus/english-*.jsonl.xz
GEC ?=
# of english-gpu
FOLDER ?= data/english
RUN ?= runs/english_gpu
# processes that share the tests, file by file; many tests start ranks of their own
WORKERS ?= 2
# of gpu-check: for all of it, and where its results go; of gpu-wheels: the Python of the machine with the GPU
MINUTES ?= 9
OUT ?= runs/gpu-check
GPU_PYTHON ?= 3.12
WHEELS ?= build/gpu-wheels
# one process gets all cores; several share them
export OMP_NUM_THREADS ?= $(shell expr `nproc` / $(RANKS))
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: train english english-gpu test test-all check gpu-check gpu-wheels setup clean

train: setup  ## from nothing to a trained model and a table of what it learnt
	dualmask data build --config $(DATA)
	deepspeed --num_gpus $(RANKS) launcher/train.py --config $(CONFIG) --resume auto
	python -m launcher.quickstart --config $(CONFIG)

english: setup  ## a model that mends everyday English, from the texts TEXTS (configs/english.yaml)
	dualmask data build --config configs/data/english.yaml --set 'source.paths=[$(TEXTS)]'
	deepspeed --num_gpus $(RANKS) launcher/train.py --config configs/english.yaml --resume auto
	python -m launcher.quickstart --config configs/english.yaml
	$(if $(GEC),dualmask eval gec --model runs/english --data $(GEC) --json runs/english/gec.json)

english-gpu:  ## the same with 19 M parameters on one GPU, from FOLDER, which was built elsewhere, into RUN (docs/gpu.md)
	$(PYTHON) launcher/train.py --config configs/english_gpu.yaml --set data.path=$(FOLDER) --set output=$(RUN) --resume auto

test: setup check  ## every check that CI runs
	OMP_NUM_THREADS=1 pytest -n $(WORKERS) --dist loadfile --durations=25 -m "not slow"

test-all: setup check  ## the same and the slow ones
	OMP_NUM_THREADS=1 pytest

check: setup  ## format, lint, types, who may import whom
	ruff format --check .
	ruff check .
	mypy
	lint-imports

gpu-check:  ## parity, speed and memory on one GPU, with whatever Python is there (docs/gpu.md)
	$(PYTHON) -m benchmarks.gpu_check --minutes $(MINUTES) --out $(OUT)

gpu-wheels: setup  ## what gpu-check needs beside torch, for a machine without network
	mkdir -p $(WHEELS)
	DS_BUILD_OPS=0 python -m pip wheel --quiet --no-deps --no-build-isolation -c constraints.txt -w $(WHEELS) deepspeed
	python -m pip download --quiet --no-deps --only-binary :all: --find-links $(WHEELS) -c constraints.txt -d $(WHEELS) \
	  --python-version $(GPU_PYTHON) --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
	  -r benchmarks/gpu_check/requirements.txt
	cp benchmarks/gpu_check/requirements.txt $(WHEELS)

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "DualMask needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:  ## remove what was built here, not what was trained
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache

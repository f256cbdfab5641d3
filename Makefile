# Everything a new user needs; each target creates .venv and installs on first use.
PYTHON ?= python3
BIN := .venv/bin
# One thread a process: several processes share the cores better than threads do.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false
# Else every test process compiles all of the code anew.
unexport PYTHONDONTWRITEBYTECODE
# Test processes side by side: many wait for processes of their own.
WORKERS ?= 3

.PHONY: help demo test test-slow coverage check docs bench board clean

help:
	@echo "make demo      install, run the quickstart ablation on embedded real data, show its table"
	@echo "make test      install, run the tests"
	@echo "make coverage  which lines of the product the tests run"
	@echo "make check     lint, format and types"
	@echo "make docs      these pages, with the notebooks run, into docs/_build/html"
	@echo "make bench     speed and memory, side by side with a plain reference"
	@echo "make board     TensorBoard on loopback over runs/"

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed, $(PYTHON) is %d.%d; choose one with make PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/.installed
	$(BIN)/pretzel data embed -c ablations/base/easy_vqa.yaml
	$(BIN)/pretzel grid run ablations/quickstart.yaml

test: .venv/.installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-slow: .venv/.installed
	$(BIN)/python -m pytest -m slow --timeout 3600

coverage: .venv/.installed
	$(BIN)/python -m coverage run -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --timeout 1800
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: .venv/.installed
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: .venv/.installed
	$(BIN)/python -m benchmarks.flow

board: .venv/.installed
	$(BIN)/tensorboard --logdir runs --host 127.0.0.1

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info docs/_build docs/reference/api

# Needs Python 3.11 or later and a package index; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
# One thread a worker: the tests run in as many workers as there are processors.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup

.PHONY: demo train-small test test-quick test-slow lint clean

demo: $(VENV)/.installed  ## build a phantom cohort, segment it, write demo/report.html and demo/scores.csv
	$(BIN)/musclekit demo -o demo

train-small: $(VENV)/.installed  ## train hard-to-easy on phantoms: docs/train.md, minutes on two processors
	test -f runs/small/cases/manifest.csv || $(BIN)/musclekit phantom -o runs/small/cases --subjects 16 --grade healthy,minor,moderate,severe --slices 8 --seed 11 --prefix learn
	$(BIN)/musclekit train docs/train_small.toml --cases runs/small/cases/manifest.csv -o runs/small/hard-to-easy

test: test-quick test-slow  ## every test, the quick ones first

test-quick: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow" --cov=musclekit --cov-report=term

test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow

lint: $(VENV)/.installed-dev  ## style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) demo build dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("musclekit needs Python 3.11 or later; this is %s. Try: make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing musclekit into $(VENV) (about two minutes the first time)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need into $(VENV)"
	$(PIP) --editable ".[dev]"
	@touch $@

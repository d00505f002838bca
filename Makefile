# From a fresh clone, each target sets up what it needs: `make demo`, `make test`.
# Another interpreter: `make test PYTHON=python3.12`. More workers: `make test WORKERS=8`.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
EXTRAS := test,dev,report,zoo,lerobot,docs

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq
AIME_GYM := $(BIN)/aime-gym
# What is installed, and how this system renders (a value of MUJOCO_GL).
INSTALLED := $(VENV)/.installed
GL := $(VENV)/.gl
RENDERING := MUJOCO_GL=$${MUJOCO_GL:-$$(cat $(GL))}

# Installing without bytecode is twice as fast: it is written when a module is first imported.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-all check format docs clean

help:
	@echo "make demo      train and compare agents on one task, from nothing; results in runs/demo"
	@echo "make test      the tests, without the slow ones"
	@echo "make test-all  all tests"
	@echo "make check     lint, format and types"
	@echo "make format    apply what can be applied of make check"
	@echo "make docs      the documentation, into site/; warnings are errors"
	@echo "make setup     the virtual environment in $(VENV), and a GL library that renders"
	@echo "make clean     remove the virtual environment and the caches; runs/ stays"

setup: $(INSTALLED) $(GL)

demo: setup
	$(RENDERING) $(AIME_GYM) compare reach-v3 --modality position --out runs/demo

test: setup
	$(RENDERING) $(BIN)/pytest -n $(WORKERS) --dist worksteal -q -m "not slow"

test-all: setup
	$(RENDERING) $(BIN)/pytest -n $(WORKERS) --dist worksteal -q

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The variable silences a note on the future of MkDocs.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# torch goes first: resolved together with the rest, pip may prefer a build that is gigabytes larger.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit("aime_gym needs Python 3.11, 3.12 or 3.13; $(PYTHON) is %d.%d. Name another one: make PYTHON=..." % v)'
	@echo "Setting up $(VENV): this takes a minute, once"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --no-compile -c constraints.txt setuptools torch
	@$(PIP) install --no-compile --no-build-isolation -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

$(GL): $(INSTALLED) .ci/gl
	@.ci/gl $(BIN)/python > $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# An active virtual environment is used; otherwise .venv is made here.
VENV    := $(or $(VIRTUAL_ENV),.venv)
PYTHON  ?= python3
BIN     := $(VENV)/bin
# Whose stamp it is stands in it: one environment may serve two checkouts in turn.
STAMP   := $(VENV)/.es2-lightning-installed
OWNER   := $(shell cat "$(STAMP)" 2>/dev/null)
# Passed on to the command: make train ARGS="loss.kl_weight=0.5"
ARGS    ?=
# One process per core, up to 4, each with one thread, so that they do not fight for the cores.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN); [ $$n -lt 4 ] && echo $$n || echo 4)
PYTEST  := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install train test test-all lint FORCE

help:  ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(STAMP)  ## set up the environment (the other targets do it by themselves)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, $(PYTHON) is %s. Name one: make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt $(if $(filter-out $(CURDIR),$(OWNER)),FORCE) | $(VENV)/bin/python
	$(BIN)/python -m pip install -e '.[dev]' -c constraints.txt
	@printf '%s' '$(CURDIR)' > $(STAMP)

train: $(STAMP)  ## fine-tune the built-in model organism (ARGS="loss.kl_weight=0.5 …")
	$(BIN)/python -m es2_lightning.train $(ARGS)

test: $(STAMP)  ## the tests, without the slow ones (ARGS="-k name" selects)
	$(PYTEST) -m "not slow and not gpu" $(ARGS)

test-all: $(STAMP)  ## the slow tests, and on a GPU those that need one
	@# Status 5 is "no tests": right only where there are tests and none of them is slow.
	$(PYTEST) -m "slow or gpu" $(ARGS) || { \
		[ $$? -eq 5 ] && [ -z '$(ARGS)' ] && $(BIN)/python -m pytest -q --collect-only > /dev/null \
		&& echo "No test is slow yet."; }

lint: $(STAMP)  ## formatting, lint, spelling, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy

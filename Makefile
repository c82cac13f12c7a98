# Every target works alone on a fresh machine: it installs first, into .venv in this folder.
#   make demo   a simulated session, live, ending in a one-page report
#   make test   everything is installed and the tests pass
# Options: PYTHON=/path/to/python3.12   ARGS="-k star" (for pytest)   OUT=folder (for demo)
#          JOBS=2 (tests at a time, a file each)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo test test-all bench fuzz lint clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?=
ARGS ?=
OUT ?=
JOBS ?= 2

# Workers and tests run side by side: more threads than cores only slow each other down.
export OMP_NUM_THREADS ?= 1

help:
	@grep -E '^#   make' Makefile | cut -c 4-
	@echo "  make test-all | bench | fuzz | lint | install | clean"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt .ci/find-python
	@python="$$(.ci/find-python $(PYTHON))"; \
	if ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
	  echo "Making $(VENV) with $$python"; "$$python" -m venv --clear $(VENV); fi
	@# torch first and alone: with it in place no other package pulls in a different build.
	@$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	@# Numba makes some loops quick; without it everything works.
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,fast]' || \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@
	@echo "coldstream is installed in $(VENV)"

demo: install
	$(BIN)/coldstream demo $(if $(OUT),--out "$(OUT)")

# A folder of its own on a local disk: journals refuse network file systems.
define pytest
	@work="$$(mktemp -d -t coldstream.XXXXXX)"; trap 'rm -rf "$$work"' EXIT; \
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --basetemp="$$work/t" $(1) $(ARGS)
endef

test: install
	$(call pytest,)

test-all: install
	$(call pytest,-m "slow or not slow")

bench: install
	$(BIN)/python -m tests.bench $(ARGS)

# Ten minutes for each parser; ARGS="--seconds 60 mdoc tiff" for less.
fuzz: install
	nice $(BIN)/python -m tests.fuzz $(ARGS)

lint: install
	$(BIN)/ruff check . docs/generate.py
	$(BIN)/ruff format --check . docs/generate.py
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tests/check_sizes.py

# What the other targets made, but no session: those belong to the person who ran them.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `make demo`, `make test`, `make check` and `make docs` set up what they need, in .venv.
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)

.PHONY: demo test check docs clean

demo: .venv/.installed
	$(BIN)/hfsafemerge demo $(DEMO_ARGS)

test: .venv/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile $(TEST_ARGS)

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell

docs: .venv/.installed-docs
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv build dist *.egg-info site hfsafemerge-demo

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "hfsafemerge needs Python 3.10 or newer; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python requirements.txt constraints.txt pyproject.toml
	$(INSTALL) -e .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(INSTALL) -e '.[dev]'
	touch $@

.venv/.installed-docs: .venv/.installed-dev
	$(INSTALL) -e '.[docs]'
	touch $@

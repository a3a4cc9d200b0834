# Every target does its own set-up: a virtual environment in the checkout, with the versions
# of constraints.txt. All that is needed is Python >= 3.11 and make.
#
#   make test PYTHON=python3.13       another interpreter
#   make test ARGS='-k upcast -x'     arguments for the tool behind the target

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

# Paths are relative on purpose: the checkout may lie in a folder with a space in its name.
BIN := $(VENV)/bin
VERSION := $(shell "$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
READY := $(VENV)/.ready-$(VERSION)
READY_BENCH := $(VENV)/.ready-bench-$(VERSION)
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint format docs bench soak clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## make the virtual environment (the other targets do it themselves)

demo: $(READY) ## watch a stored history of one release become the next one
	@$(BIN)/eventmig demo $(ARGS)

# Many tests start processes; each finds its modules compiled, also where Python may write none.
test: $(READY) ## run all tests, on all cores
	@$(BIN)/python -m compileall -q eventmig upcasters projections examples bench tests docs
	@$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

lint: $(READY) ## ruff, mypy --strict, and the check of the import table
	@$(BIN)/python -m ruff check
	@$(BIN)/python -m ruff format --check
	@$(BIN)/python -m mypy
	@$(BIN)/lint-imports --no-logo

format: $(READY) ## format the code and mend what ruff can mend
	@$(BIN)/python -m ruff check --fix
	@$(BIN)/python -m ruff format

docs: $(READY) ## write the generated pages, and what the pages' commands print now
	@$(BIN)/python -m docs.generate $(ARGS)
	@$(BIN)/python -m tests.docs

bench: $(READY_BENCH) ## run the benchmarks (ratios within one run)
	@$(BIN)/python -m compileall -q eventmig bench
	@$(BIN)/python -m bench $(ARGS)

soak: $(READY) ## kill at random under load, ARGS='MINUTES --store …' (10, both)
	@$(BIN)/python -m tests.acceptance.soak $(ARGS)

clean: ## remove the virtual environment, caches and built files
	rm -rf "$(VENV)" build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .owners
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Redone from nothing when the versions change: what was taken out is then gone, too.
$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$("$(PYTHON)" --version 2>&1) || found="nothing that runs"; \
	  echo "eventmig needs Python 3.11 or newer; \"$(PYTHON)\" is: $$found" >&2; \
	  echo "Name another one, for example: make $(or $(MAKECMDGOALS),test) PYTHON=python3.13" >&2; \
	  exit 1; }
	@echo "Setting up $(VENV) with Python $(VERSION) (once; takes about half a minute)" >&2
	@"$(PYTHON)" -m venv --clear "$(VENV)"
	@$(PIP_INSTALL) pip
	@$(PIP_INSTALL) --build-constraint constraints.txt --group dev -e .
	@touch $@

$(READY_BENCH): $(READY)
	@$(PIP_INSTALL) --group bench
	@touch $@

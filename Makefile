# Two commands for everyone: make demo, make test. Both install what they need into .venv first.
PYTHON ?= python3
BIN := .venv/bin
export PYTHONPATH :=
export FLWR_TELEMETRY_ENABLED := 0

.PHONY: audit mutation pythons install demo flower-demo test test-slow lint types contracts docs unit clean

install: .venv/.installed

# The constraints file makes one commit install the same versions everywhere. torch comes first: a plain range
# would resolve to a build with several gigabytes of GPU libraries.
.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/secagg run --demo

flower-demo: install
	$(BIN)/python examples/flower/demo.py

# The table defects x properties: what every property catches, and that sound protocols pass.
audit: install
	$(BIN)/python -m tests.defects.table docs/audit-defects.md

# What takes seconds comes first; types and pages are checked while the tests wait for processes of their own.
test: lint contracts
	$(MAKE) --no-print-directory --jobs=2 unit types docs

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

unit: install
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: install
	SECAGG_TEST_RESULTS=docs/test-slow.json $(BIN)/python -m pytest -m slow

# Installs a wheel on every Python that the metadata names and runs it there; docs/pythons.json keeps the outcome.
pythons: install
	$(BIN)/python -m tests.pythons

# Small changes to the code that some test must notice; docs/mutation.md explains those that none does.
mutation: install
	$(BIN)/python -m pip install --quiet mutmut==3.8.1
	$(BIN)/python -m tests.mutation

clean:
	rm -rf .venv build dist site .mypy_cache .pytest_cache .ruff_cache

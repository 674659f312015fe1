# Two commands for everyone: make demo, make test. Both install what they need into .venv first.
PYTHON ?= python3
BIN := .venv/bin
export PYTHONPATH :=
# Compiled files are kept: otherwise every process that a test starts compiles the packages again.
export PYTHONDONTWRITEBYTECODE :=
export FLWR_TELEMETRY_ENABLED := 0

.PHONY: tradeoff tradeoff-full audit mutation pythons install demo flower-demo test test-slow lint types contracts docs unit clean

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

# Three data sets, every layer, epsilon in 1, 2, 4, 8 and none, three seeds, coarse to fine: about ten minutes on two
# cores, and `make tradeoff MINUTES=3` gives one seed of each. It goes on where it was; report.html is the page.
MINUTES ?= 10
SWEEPS := digits fashion-mnist femnist
tradeoff: install
	$(BIN)/secagg tradeoff $(SWEEPS:%=benchmarks/tradeoff/%.toml) --output build/tradeoff --resume --minutes $(MINUTES)
	$(BIN)/secagg report $(SWEEPS:%=build/tradeoff/%) --output build/tradeoff/report.html

# The rows of docs/dp-layers.md again, with their own epsilons and seeds: about three hours of one core (fashion-mnist
# two and a half, femnist a third, mean minutes); every run that ends is kept but mean's, and a second call goes on. It
# ends with what came out beside what the page says, and fails where a row differs or is missing.
FULL := build/tradeoff-full
tradeoff-full: install
	mkdir -p $(FULL)
	$(BIN)/python -m benchmarks dp --case mean --json > $(FULL)/mean.json
	$(BIN)/python -m benchmarks dp --case femnist --seeds 2 --work $(FULL) --json > $(FULL)/femnist.json
	$(BIN)/python -m benchmarks dp --case fashion-mnist --work $(FULL) --json > $(FULL)/fashion-mnist.json
	$(BIN)/python -m benchmarks.dp.again $(FULL)/mean.json $(FULL)/femnist.json $(FULL)/fashion-mnist.json

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
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Three workers on two cores: whole deployments wait for most of their time.
unit: install
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not slow"

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

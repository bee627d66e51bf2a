# make demo    a year of a retailer's coupons, six methods, one report
# make test    the tests
# make check   what CI runs: format, lint, types, tests
# make bench   events per CPU-second through `belated replay`
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench clean

demo: .venv/ready
	$(BIN)/belated demo

test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

bench: .venv/ready
	$(BIN)/python benchmarks/replay.py

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

PYTHON ?= .venv/bin/python
BIN = $(dir $(PYTHON))

.PHONY: check test format docs

check:  ## Style, types, import rule, generated docs, unit tests: under a minute
	$(BIN)ruff check
	$(BIN)ruff format --check
	$(BIN)mypy
	$(BIN)lint-imports
	$(PYTHON) docs/generate.py --check
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n 2 -m "not slow"

test:  ## Everything, in an environment of its own
	sh tests/run.sh

format:
	$(BIN)ruff check --fix
	$(BIN)ruff format

docs:  ## Write docs/reference again from the code
	$(PYTHON) docs/generate.py

PYTHON ?= .venv/bin/python
BIN = $(dir $(PYTHON))

.PHONY: check lint test coverage format docs site release

check: lint  ## Style, types, import rules, generated pages, unit tests: under a minute
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n 2 -m "not slow"

lint:  ## The same without the tests
	sh tests/checks.sh $(BIN)

test:  ## Everything, in its own environment, as CI does it
	sh tests/run.sh

coverage:  ## The lines and branches that the fast tests reach; fails below 85 %
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n 2 -m "not slow" --cov --cov-fail-under=85

format:
	$(BIN)ruff check --fix
	$(BIN)ruff format

docs:  ## Write the generated pages again from the code
	$(PYTHON) docs/generate.py
	$(PYTHON) docs/structure.py --write

site:  ## The pages as a site in build/site; needs zensical (extra docs)
	PATH="$(BIN):$$PATH" $(PYTHON) docs/build_site.py

release:  ## make release VERSION=0.2.0: version, changelog, citation, commit and tag
	$(PYTHON) docs/release.py "$(VERSION)"

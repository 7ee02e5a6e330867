# make demo: the whole road on a text that every Python carries. make test: all tests. Both need Python and make alone.
# make soak: the tests that kill processes, fifty times over.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo test soak lint clean

demo: $(READY)
	$(VENV)/bin/python scripts/demo.py

test: $(READY)
	$(VENV)/bin/python -m pytest -n 2

soak: $(READY)
	SQZB_KILLS=50 $(VENV)/bin/python -m pytest -n 2 tests/reliability

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)

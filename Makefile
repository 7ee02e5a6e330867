# make demo: the whole road on a text that every Python carries. make test: all tests. Both need Python and make alone.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo test lint clean

demo: $(READY)
	$(VENV)/bin/python scripts/demo.py

test: $(READY)
	$(VENV)/bin/python -m pytest -n 2

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

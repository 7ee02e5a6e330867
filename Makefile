# make demo: all stages on the text of Python's own documentation. make test: all tests.
# Both need only Python and make.
# make test-hub: the commands against a hub on this machine, with an environment of its own; needs git.
# make soak: the tests that kill processes, with 50 kills each, 2,000 damaged files and places, and
# ten times as many examples of properties. make lint: ruff and mypy.
# make docs: the documentation as a web site in site/.
# PYTHON=python3.12 make test: with another Python, in a clone without .venv (make clean removes it).
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
HUB_VENV := .venv-hub
HUB_READY := $(HUB_VENV)/.ready

.PHONY: demo test test-hub soak lint docs clean

demo: $(READY)
	$(VENV)/bin/python scripts/demo.py

# Each process of the tests would compile them anew without the cache of Python's bytecode.
test: export PYTHONDONTWRITEBYTECODE =
test: $(READY)
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

test-hub: $(READY) $(HUB_READY)
	$(VENV)/bin/python -m pytest -n 2 -m hub tests/hub

soak: $(READY)
	SQZB_KILLS=50 $(VENV)/bin/python -m pytest -n 2 tests/reliability
	SQZB_DAMAGES=65 $(VENV)/bin/python -m pytest -s tests/robustness/test_inputs.py
	SQZB_DAMAGES=125 $(VENV)/bin/python -m pytest -s tests/robustness/test_environments.py
	$(VENV)/bin/python -m pytest -n 2 -m 'hypothesis and not hub' --hypothesis-profile=soak

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(READY)
	$(VENV)/bin/mkdocs build --strict

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

$(HUB_READY): constraints-hub.txt
	$(PYTHON) -m venv $(HUB_VENV)
	$(HUB_VENV)/bin/python -m pip install -q -c constraints-hub.txt olah
	touch $@

clean:
	rm -rf $(VENV) $(HUB_VENV) site build dist

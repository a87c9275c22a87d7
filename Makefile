# Two commands do everything on a fresh machine:
#   make sweep   install into .venv, then run the quickstart sweep
#   make test    install with the development tools, then lint, types and tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
PYTEST_ARGS ?=
SOURCES := qa_core sweeps tests benchmarks

.PHONY: sweep test lint clean

sweep: $(VENV)/.installed
	$(BIN)/python sweeps/run.py

# One compute thread for each test process: more threads than free cores slow the tests 20-100x.
test: export OMP_NUM_THREADS = 1
test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

# The stamps are younger than what they were installed from, so that a second call installs nothing.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.created
	$(PIP) install --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/.created
	$(PIP) install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(VENV)/.installed $@

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

clean:
	rm -rf $(VENV)

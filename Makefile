# Two commands do everything on a fresh machine:
#   make sweep   install into .venv, then run the quickstart sweep
#   make test    install with the development tools, then lint, types and tests
# Beside them:
#   make audit   compare what is installed with the public lists of vulnerabilities; needs the network

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
PYTEST_ARGS ?=
SOURCES := qa_core sweeps tests benchmarks

.PHONY: sweep test lint audit clean

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

# In an environment of its own, so that what is audited stays what it is. --strict: a package that could not be looked up
# is a failure; without it, "no known vulnerabilities found" is also said of packages that nobody looked at.
audit: $(VENV)/.installed $(VENV)/audit/.created
	$(VENV)/audit/bin/pip-audit --strict --skip-editable --path $$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')

$(VENV)/audit/.created: | $(VENV)/.created
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --disable-pip-version-check pip-audit
	touch $@

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

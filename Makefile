# Two commands do everything on a fresh machine:
#   make sweep   install into .venv, then run the quickstart sweep
#   make test    install with the development tools, then lint, types and tests
# Beside them:
#   make numeric the tests marked numeric again, with the kernels of older CPUs
#   make audit   compare what is installed with the public lists of vulnerabilities; needs the network

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
PYTEST_ARGS ?=
SOURCES := qa_core sweeps tests benchmarks

.PHONY: sweep test numeric lint audit clean

sweep: $(VENV)/.installed
	$(BIN)/python sweeps/run.py

# One compute thread for each test process: more threads than free cores slow the tests 20-100x.
test: export OMP_NUM_THREADS = 1
test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Which kernels torch, oneDNN and MKL take depends on the CPU: once those that every x86 CPU has, once those of AVX2.
# MKL takes a choice of instructions on Intel's CPUs alone; MKL_CBWR=COMPATIBLE changes its kernels on others too.
NUMERIC := $(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'numeric and not slow and not gpu and not chaos'
numeric: export OMP_NUM_THREADS = 1
numeric: $(VENV)/.installed-dev
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 MKL_CBWR=COMPATIBLE $(NUMERIC)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(NUMERIC)

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

# `make help` lists what there is. Two commands do everything on a fresh machine: `make sweep` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
PYTEST_ARGS ?=
# Lint and types take a minute or two of one core: they run beside the tests (-j 2), and fail the target as these do. Types
# give way to the tests: a Ray that takes more than 30 s to start gives up.
BESIDE := $(MAKE) --no-print-directory -j 2
# One process more than cores: two of them run the tests that start Ray, which mostly wait (tests/scheduling.py).
PARALLEL := -n $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --dist loadgroup
# Where this is set, every test process rewrites the assertions of all tests anew, and every program that a test starts
# compiles the packages anew.
export PYTHONDONTWRITEBYTECODE :=
SOURCES := qa_core sweeps qa_sweeps tests benchmarks

# What a change is checked with while it is written: the structure, and units that start neither Ray nor a training.
# Below 90 seconds on two cores, with lint and types: the sampler of Optuna alone would take 30 of them.
UNITS := tests/test_architecture.py tests/test_registered_files.py tests/test_safe_code.py tests/test_glossary.py tests/test_log.py tests/test_ids.py tests/test_scheduling.py tests/test_configs.py \
	tests/sweeps/spec tests/sweeps/space tests/sweeps/front tests/sweeps/run_folder \
	tests/sweeps/searchers/test_random.py tests/sweeps/searchers/test_grid.py tests/sweeps/searchers/test_nsga2.py \
	tests/qa_core/scoring tests/qa_core/test_config.py tests/qa_core/test_files.py

.PHONY: help sweep check test run-tests run-units test-long test-all numeric gpu lint audit clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1 /' | awk '{name = $$1; $$1 = ""; printf "  make %-10s%s\n", name, $$0}'

sweep: $(VENV)/.installed ## install into .venv, then run the quickstart sweep
	$(BIN)/python sweeps/run.py

# One compute thread for each test process: more threads than free cores slow the tests 20-100x.
test: $(VENV)/.installed-dev ## install with the development tools, then lint, types and the default tests
	$(BESIDE) lint run-tests

run-tests: export OMP_NUM_THREADS = 1
run-tests: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

check: $(VENV)/.installed-dev ## lint, types, structure and unit tests: while a change is written
	$(BESIDE) lint run-units

run-units: export OMP_NUM_THREADS = 1
run-units: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n logical --dist worksteal $(UNITS)

test-long: export OMP_NUM_THREADS = 1
test-long: $(VENV)/.installed-dev ## sweeps that are killed, stopped and resumed, exhaustive tables, costly tests; .ci/run runs them too
	$(BIN)/python -m pytest $(PARALLEL) -m '(long or costly) and not slow and not gpu and not chaos' $(PYTEST_ARGS)

test-all: $(VENV)/.installed-dev ## the default tests, the long and the slow ones
	$(BESIDE) lint run-tests PYTEST_ARGS="-m 'not gpu and not chaos' $(PYTEST_ARGS)"

# Which kernels torch, oneDNN and MKL take depends on the CPU: once those that every x86 CPU has, once those of AVX2,
# unless these are its own.
# MKL takes a choice of instructions on Intel's CPUs alone; MKL_CBWR=COMPATIBLE changes its kernels on others too.
# The exhaustive tables among them are long, and run once, with this CPU's own kernels (test-long).
NUMERIC := $(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'numeric and not long and not slow and not gpu and not chaos'
OWN_KERNELS := $(BIN)/python -c 'import torch; print(torch.backends.cpu.get_cpu_capability())'
numeric: export OMP_NUM_THREADS = 1
numeric: $(VENV)/.installed-dev ## the tests marked numeric again, with the kernels of older CPUs
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 MKL_CBWR=COMPATIBLE $(NUMERIC)
	if [ "$$($(OWN_KERNELS))" = AVX2 ]; then echo "this CPU's own kernels are those of AVX2: make test runs them"; \
		else ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(NUMERIC); fi

gpu: ## measure what a machine with a GPU is asked, in at most 8 minutes; installs nothing
	$(BIN)/python -m benchmarks.gpu

lint: $(VENV)/.installed-dev ## ruff and mypy
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	nice -n 19 $(BIN)/mypy

# In an environment of its own, so that what is audited stays what it is. --strict: a package that could not be looked up
# is a failure; without it, "no known vulnerabilities found" is also said of packages that nobody looked at.
audit: $(VENV)/.installed $(VENV)/audit/.created ## compare what is installed with public lists of vulnerabilities; needs the network
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

clean: ## remove .venv
	rm -rf $(VENV)

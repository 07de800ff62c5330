# wetread. `make demo` runs the main job, `make test` runs the tests; both install what they need into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
BENCH  ?=
ARGS   ?=
WORKERS ?= 2

# Tests and benchmarks start hundreds of processes: without kept bytecode each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check format bench test-slow install install-dev install-torch peers servers schemas viewer clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "wetread needs Python >= 3.11 (PYTHON=...)"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "No virtual environment could be made. On Debian and Ubuntu: apt-get install python3-venv"; rm -rf $(VENV); exit 2; }

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev,dimse,pathology,postgres,ray,s3,triton]'
	@touch $@

$(VENV)/.installed-torch: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt 'torch==2.13.0'
	$(PIP) install --quiet --constraint constraints.txt --editable '.[torch]'
	@touch $@

install: $(VENV)/.installed ## Install wetread into .venv
install-dev: $(VENV)/.installed-dev ## ... with what the tests need
install-torch: $(VENV)/.installed-torch ## ... with what training needs

demo: $(VENV)/.installed ## Send phantom studies over HTTP, print the reads
	$(BIN)/wetread demo $(ARGS)

test: $(VENV)/.installed-dev ## All tests that fit into ten minutes on two cores
	$(BIN)/python -m pytest -m 'not slow' --numprocesses $(WORKERS) --dist loadfile $(ARGS)

test-slow: $(VENV)/.installed-dev ## The long ones: chaos, fuzzing, Terraform, policies
	.ci/install-lint-tools
	$(BIN)/python -m pytest -m slow --timeout 3600 $(ARGS)

check: $(VENV)/.installed-dev ## Lint, format, types, import staircase
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@for folder in models/*/; do [ ! -f $$folder/detector.py ] || MYPYPATH=services $(BIN)/mypy --config-file pyproject.toml $$folder/detector.py || exit 1; done
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schemas: $(VENV)/.installed-dev ## Write the generated JSON Schemas and the OpenAPI document anew
	$(BIN)/python -m wetread.commands.documents

bench: $(VENV)/.installed-dev ## Benchmarks: make bench, or make bench BENCH=turnaround
	$(BIN)/python loadtest/run.py $(BENCH) $(ARGS)

viewer: $(VENV)/.installed ## Fetch the prebuilt OHIF viewer (needs npm); served under /viewer
	$(BIN)/wetread viewer install

.peers/triton/.installed: $(BIN)/python
	$(PIP) install --quiet --no-deps --target .peers/triton nvidia-pytriton==0.7.0
	@touch $@

.peers/kserve/.installed: $(BIN)/python .ci/kserve-requirements.txt
	$(PIP) install --quiet --no-deps --target .peers/kserve --requirement .ci/kserve-requirements.txt
	@touch $@

servers: .peers/triton/.installed .peers/kserve/.installed ## Unpack Triton, KServe and Orthanc into .peers, for tests and benchmarks
	.ci/install-orthanc

peers: ## Install the Debian packages of optional peers (says which; needs root)
	.ci/install-peers

clean: ## Remove everything that was installed or built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

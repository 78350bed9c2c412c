# Each target makes .venv itself when it is missing or out of date. PYTHON chooses the interpreter to make it with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: train test test-integrations lint bench bench-check docs dist clean
.DEFAULT_GOAL := train

train: $(VENV)/installed  ## learn a language model from the Python standard library's source
	@echo "== training on the source code of Python's standard library: about five minutes on two cores"
	$(BIN)/spectrain train $(ARGS)

test: $(VENV)/installed  ## run the whole suite; ARGS=--full for the large one
	@echo "== running the test suite, two processes of one thread each"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 $(ARGS)

test-integrations: $(VENV)/installed  ## with the packages of docs/integrations.md and docs/routing.md, and with Triton
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[integrations,triton]"
	OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -q --full tests/integrations tests/optim/test_architectures.py tests/kernels

lint: $(VENV)/installed  ## style, types and the layers' import contracts
	@echo "== ruff: style"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "== mypy: types"
	$(BIN)/mypy
	@echo "== import-linter: who may import whom"
	$(BIN)/lint-imports

bench: $(VENV)/installed  ## run every benchmark; records go to benchmarks/records/
	@failed=0; for program in $$(ls benchmarks/*/[a-z]*.py | sed 's/\.py$$//; s#/#.#g'); do \
	  echo "== $$program"; $(BIN)/python -m $$program $(ARGS) || failed=1; done; exit $$failed

bench-check: $(VENV)/installed  ## small sizes of what measures speed, ratios beside the recorded ones; about a minute, records nothing
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.check

docs: $(VENV)/installed  ## the documentation as a web site in site/, served on this machine
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "== http://127.0.0.1:8000 until Ctrl-C"
	$(BIN)/python -m http.server --directory site --bind 127.0.0.1 8000

dist: $(VENV)/installed  ## wheel and source in dist/, checked, and a step of Muon in an environment that holds nothing else
	@echo "== building, and checking what PyPI would show"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dist]"
	rm -rf dist
	$(BIN)/python -m build --outdir dist . >/dev/null
	$(BIN)/python -m twine check --strict dist/*
	@echo "== installing the wheel into an empty environment"
	rm -rf dist/empty && $(PYTHON) -m venv dist/empty
	dist/empty/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt torch==2.13.0
	dist/empty/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt dist/*.whl
	cd dist && empty/bin/python ../tests/optimizer_only.py
	rm -rf dist/empty

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "== making $(VENV) with $(PYTHON) and installing spectrain (torch first: its CPU build where there is one)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:  ## remove what the targets made
	rm -rf $(VENV) dist site .pytest_cache .mypy_cache .ruff_cache

# Every target makes its own environment: nothing has to be active, nothing has to be installed but Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-long test-cuda lint docs dist bench-env clean

demo: $(VENV)/.demo
	$(BIN)/python examples/digits.py

# Only what an index of Python packages does not have (Chromium, iproute2) may be missing; those tests are skipped and say so.
test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --dist loadfile

test-long: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --dist loadfile -m "long and not cuda"

# on a machine with a GPU, with the build of PyTorch that it has
test-cuda:
	$(PYTHON) -m pytest -m cuda tests/cuda

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# what a release uploads, looked at as the package index will look at it
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*

$(VENV)/.%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$*]"
	touch $@

# The peers that the benchmarks run, apart from the package's own environment. Some without their requirements: those would
# bring a torchvision that does not fit a CPU build of PyTorch.
bench-env: $(VENV)-bench/.done

$(VENV)-bench/.done: constraints-bench.txt constraints-bench-alone.txt
	test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VENV)-bench/bin/pip install --quiet --disable-pip-version-check --no-deps -r constraints-bench-alone.txt
	$(VENV)-bench/bin/pip install --quiet --disable-pip-version-check -r constraints-bench.txt -e .
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-bench build dist *.egg-info runs site

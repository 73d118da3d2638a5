# make demo    track an object in a rendered video with the small model; or VIDEO=clip.mp4 CLICK=210,350
# make test    format, lint, types and tests: the check that CI runs
# make fuzz    ten minutes of made-up files for everything that reads files; FUZZ_SECONDS=60 for a shorter run
# make docs    the API reference as HTML: build/docs/index.html
#
# Each target makes a virtual environment in .venv first, if there is none. To use another interpreter or place:
#   make test PYTHON=python3.12 VENV=/tmp/i2v-venv

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TREES := $(wildcard i2v train test_pvs tools sav_dataset)
FUZZ_SECONDS ?= 600
CONFORMANCE ?= ../shared/conformance/check.py

.PHONY: demo test fuzz docs lint format unit conformance clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/i2v demo $(if $(VIDEO),"$(VIDEO)" --overwrite) $(if $(CLICK),--click "$(CLICK)")

test: lint unit

docs: $(VENV)/.installed-dev
	$(BIN)/python tools/api_docs.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(TREES)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One thread per worker: tests are tiny, and workers that share cores slow each other down.
unit: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 $(TESTS)

# In one process, so that its figures are those of the targets. -rP shows them.
fuzz: $(VENV)/.installed-dev
	FUZZ_SECONDS=$(FUZZ_SECONDS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p no:xdist -rP tests/fuzz

# The numbers of the published model; minutes at full size. CONFORMANCE_ARGS=--fast for the short ones.
conformance: $(VENV)/.installed
	$(BIN)/python $(CONFORMANCE) $(CONFORMANCE_ARGS)

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

# torch and torchvision must fit each other, so one command of pip installs everything.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[dev,web,train,docs]"
	touch $(VENV)/.installed $@

# Debian's Python comes without ensurepip, and then leaves an environment behind that has no pip.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "i2v needs Python 3.10 or later: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "$(PYTHON) cannot make virtual environments: apt install python3-venv," \
			"or make PYTHON=/path/to/another/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

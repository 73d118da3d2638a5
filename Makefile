# make demo    track an object in a rendered video with the small model; or VIDEO=clip.mp4 CLICK=210,350
# make test    format, lint, types and tests: the check that CI runs
# make fuzz    ten minutes of made-up files for everything that reads files, and a few of requests to the service;
#              FUZZ_SECONDS=60 for a shorter run
# make wheel   the wheel in dist/, tried in an environment of its own
# make docs    the documentation as a site, with the API reference: build/docs/index.html
#
# Each target makes a virtual environment in .venv first, if there is none. To use another interpreter or place:
#   make test PYTHON=python3.12 VENV=/tmp/i2v-venv

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TREES := $(wildcard i2v train test_pvs tools sav_dataset)
OLDEST ?= $(VENV)-oldest
OLDEST_TORCH ?= -c .ci/oldest_torch.txt
# What leans on dependencies the most: configs, checkpoints, decoding, encoding, formats, services. With the oldest PyTorch
# also the model, tracking and training.
OLDEST_TESTS ?= tests/sav_dataset tests/serve $(addprefix tests/,test_config.py test_config_files.py test_checkpoint.py \
	test_hub.py test_image_file.py test_video_file.py test_overlay.py test_matte.py test_rle.py test_export.py \
	test_datasets.py test_automatic_masks.py test_cli_model.py annotator/test_session.py annotator/test_server.py \
	train/test_dataset_readers.py train/test_optimizer.py) \
	$(if $(OLDEST_TORCH),$(addprefix tests/,modeling test_predictor.py test_cli.py train/test_trainer.py))
FUZZ_SECONDS ?= 600
CONFORMANCE ?= tests/conformance/check.py

.PHONY: demo test fuzz docs lint format unit oldest conformance wheel clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/i2v demo $(if $(VIDEO),"$(VIDEO)" --overwrite) $(if $(CLICK),--click "$(CLICK)")

test: lint unit

docs: $(VENV)/.installed-dev
	$(BIN)/python tools/docs_site.py

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

# The oldest dependencies that pyproject.toml allows, in an environment of their own. Without a download of 3 GB, with the
# newest PyTorch: make oldest OLDEST_TORCH= OLDEST=/tmp/oldest
oldest: $(OLDEST)/.installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n auto --maxprocesses 4 $(OLDEST_TESTS)

# In one process, so that its figures are those of the targets. -rP shows them.
fuzz: $(VENV)/.installed-fuzz
	FUZZ_SECONDS=$(FUZZ_SECONDS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p no:xdist -rP tests/fuzz

# The numbers of the published model; minutes at full size. CONFORMANCE_ARGS=--fast for the short ones.
conformance: $(VENV)/.installed
	$(BIN)/python $(CONFORMANCE) $(CONFORMANCE_ARGS)

# The wheel, built and used in an environment and a folder of its own, with nothing of the checkout beside it.
wheel: | $(BIN)/python
	rm -rf dist build/wheel
	$(BIN)/python -m pip wheel --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --disable-pip-version-check --quiet "$$(echo dist/*.whl)[web,serve]"
	cd build/wheel && env -u PYTHONPATH bin/python $(CURDIR)/tools/try_wheel.py

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

# torch and torchvision must fit each other, so one command of pip installs everything.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[dev,web,serve,train,docs,hub,onnx]"
	touch $(VENV)/.installed $@

$(VENV)/.installed-fuzz: pyproject.toml $(VENV)/.installed-dev
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[fuzz]"
	touch $@

$(OLDEST)/.installed: pyproject.toml .ci/oldest.txt .ci/oldest_torch.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --disable-pip-version-check -c .ci/oldest.txt $(OLDEST_TORCH) -e ".[dev,web,serve,train,hub]"
	touch $@

# Debian's Python comes without ensurepip, and then leaves an environment behind that has no pip.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "i2v needs Python 3.10 or later: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "$(PYTHON) cannot make virtual environments: apt install python3-venv," \
			"or make PYTHON=/path/to/another/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

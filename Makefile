# Every target works in the project's own environment; `make setup` creates it on first use.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
MODES ?= vanilla,balance,boost,turbo

.PHONY: help setup demo test bench train-nano lint clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## create .venv and install the pinned requirements

$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, $(PYTHON) is older: run make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	@echo "Installing the pinned requirements into .venv; this takes some minutes ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

demo: setup  ## serve the web demo on port 7860
	$(BIN)/python app.py

test: setup  ## run the tests
	$(BIN)/python -m pytest

bench: setup  ## run the embedded suite in all four decoding modes and write the comparison table
	$(BIN)/python -m eval run --model nano --suite nano --modes $(MODES)

train-nano: setup  ## train nano from scratch (needs flite and espeak-ng on the PATH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-train.txt
	$(BIN)/python -m vita.training.nano

lint: setup  ## check style and annotations
	$(BIN)/ruff check .

clean:  ## remove the environment, caches and everything runs left behind
	rm -rf .venv .pytest_cache .ruff_cache runs build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

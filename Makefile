# Everything a person types. On Windows, without make: pip install -e . ; tenuto demo

PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test check evidence bench big clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,tensorboard]'
	touch .venv/installed

demo: install      ## base | plain | held on the checkpoint that ships: runs/demo/report.html
	$(BIN)/tenuto demo

test: install      ## what CI runs
	$(BIN)/python -m pytest

check: install     ## format, lint, types, import order, tests
	$(BIN)/ruff format --check src tests tools
	$(BIN)/ruff check src tests tools
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python -m pytest

evidence: install  ## the full table, hours; goes on where it was stopped
	$(BIN)/python -m benchmarks.evidence

bench: install     ## speed of generation and training
	$(BIN)/python -m benchmarks.speed

big: install       ## SD 1.5 and SDXL at full size with random weights: load, one training step on the CPU, peak memory
	$(BIN)/python -m benchmarks.big

clean:
	rm -rf .venv build dist src/*.egg-info

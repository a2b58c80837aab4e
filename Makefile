# Everything a person types. On Windows, without make: pip install -e . ; tenuto demo

PYTHON ?= python3
BIN := .venv/bin
TESTS = $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --ignore tests/cluster

.PHONY: install demo test test-whole shots check evidence leaderboard article prior-bench bench big endure docs docs-check clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,tensorboard,optimizers,tagger,web,cluster,docs]'
	touch .venv/installed

demo: install      ## base | plain | held on the checkpoint that ships: runs/demo/report.html
	$(BIN)/tenuto demo

test: install      ## all but whole jobs; three files at a time, for two cores: some wait for processes of theirs
	$(TESTS) -m "not slow and not whole"

test-whole: install  ## whole jobs: the page in Chromium, sweeps, several processes; then Ray, which wants the machine for itself
	$(TESTS) -m "whole and not slow"
	$(BIN)/python -m pytest tests/cluster

shots: install     ## a picture of every page, large and small, light and dark: build/shots
	TENUTO_SHOTS=build/shots $(BIN)/python -m pytest -n0 tests/web/test_walk.py

check: install     ## format, lint, types, import order, all tests
	$(BIN)/ruff format --check src tests tools benchmarks
	$(BIN)/ruff check src tests tools benchmarks
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(MAKE) test test-whole

evidence: install  ## the full table, hours; goes on where it was stopped
	$(BIN)/python -m benchmarks.evidence

leaderboard: install  ## every method on the same work, most of a day on two cores; goes on where it was stopped (QUICK=1: minutes; FINALISTS=1: those that held in the trial)
	$(BIN)/python -m benchmarks.leaderboard --at-once 2 $(if $(QUICK),--quick) $(if $(FINALISTS),--finalists)

article: install   ## the article's experiments (presets/article), hours; goes on where it was stopped
	$(BIN)/python -m benchmarks.article --at-once 2

prior-bench: install  ## prior images per second, and what fewer steps cost, by sampler
	$(BIN)/python -m benchmarks.prior

bench: install     ## speed of generation and training
	$(BIN)/python -m benchmarks.speed

big: install       ## SD 1.5 and SDXL at full size with random weights: load, one training step on the CPU, peak memory
	$(BIN)/python -m benchmarks.big

endure: install    ## kills, damaged inputs, a long run: hours; goes on where it was stopped
	$(BIN)/python -m benchmarks.endurance

docs: install      ## the documentation as a site: build/site/index.html, readable without a server; broken links fail
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

docs-check: install  ## runs every command of the docs, but for those that tools/docs/left.toml names, and writes down what ran: docs/commands.json
	$(BIN)/python -m tools.docs.check

clean:
	rm -rf .venv build dist src/*.egg-info

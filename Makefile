# `make` lists the commands. They need python3 (3.11 or newer) and nothing else: the first one builds .venv.
PYTHON ?= python3
WORKERS ?= 2
ARGS ?=

BIN := .venv/bin
STAMP := .venv/.installed
# One thread per worker: two workers with two threads each would fight for two cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
.DEFAULT_GOAL := help
.PHONY: bench help study report equivalence test test-slow docs test-docs lint clean .venv

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14
	@echo
	@echo "Variables: PYTHON (interpreter for .venv, now $(PYTHON)), WORKERS (parallel tests, now $(WORKERS)),"
	@echo "           ARGS (passed on to the command, e.g. make study ARGS=--quick)"

study: $(STAMP)  ## how far is each model's ELBO from its exact log-likelihood, on real data
	$(BIN)/python -m studies.elbo_gap $(ARGS)

report: $(STAMP)  ## every study's question, answer, figure and table on one page, results/report.html
	$(BIN)/python -m studies.report $(ARGS)

equivalence: $(STAMP)  ## the theorems (a flow is a VAE with delta encoder and decoder, ...): statement, formula, errors
	$(PYTEST) tests/equivalence --theorems $(ARGS)

test: lint  ## lint, type check, every test that is not slow, and the examples in README and docstrings
	$(PYTEST) -n $(WORKERS) $(ARGS)

test-slow: $(STAMP)  ## the tests that take minutes
	$(PYTEST) -n $(WORKERS) -m slow $(ARGS)

bench: .venv-bench/.installed  ## our speed beside the peers' in an environment of its own, e.g. ARGS="--device cuda"
	.venv-bench/bin/python -m benchmarks $(ARGS)
	$(if $(ARGS),,.venv-bench/bin/python -m benchmarks.memory)
	$(if $(ARGS),,.venv-bench/bin/python -m benchmarks.continuous)

.venv-bench/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	.venv-bench/bin/python -m pip install --quiet --use-pep517 --editable . --requirement benchmarks/requirements.txt
	@touch $@

docs: .venv-docs/.installed  ## the site, in an environment of its own: docs/_build/html/index.html
	OMP_NUM_THREADS=1 .venv-docs/bin/python -m sphinx -W --keep-going -q -b html docs docs/_build/html $(ARGS)
	.venv-docs/bin/python docs/check_links.py docs/_build/html
	@echo "Open docs/_build/html/index.html; it needs no network."

test-docs: docs  ## the site in a browser (Chromium), wide and narrow
	OMP_NUM_THREADS=1 .venv-docs/bin/python -m pytest -m slow tests/docs $(ARGS)

.venv-docs/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	.venv-docs/bin/python -m pip install --quiet --use-pep517 --constraint constraints.txt --editable '.[docs]'
	@touch $@

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:  ## remove .venv and every cache; results/ stays
	rm -rf .venv .venv-bench .venv-docs docs/_build docs/api docs/gallery build ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv: $(STAMP)  ## the environment that the other commands run in

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "elbogap needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	       "Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Building .venv with $$($(PYTHON) --version), once; torch is the large part of it."
	$(PYTHON) -m venv .venv
	@# torch alone and first: what follows then finds it there and cannot ask for another build of it.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --use-pep517 --constraint constraints.txt --editable '.[studies,test]'
	@touch $@

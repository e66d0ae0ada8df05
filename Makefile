# Every target does its own set-up; `make` alone lists them.

SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin

# `test` takes less than a quarter of an hour, and is ended after half an hour; a single test is
# limited by pyproject.toml.  Two processes run it: each mount hears of all that is done to the
# file system of /tmp, so that more of them keep each other busy.
PYTEST := $(BIN)/python -m pytest
BESIDE := -n 2 --dist loadfile
PYTEST_ARGS ?=

export PYTHON

.DEFAULT_GOAL := help
.PHONY: help .venv dist system-packages demo guest check format test test-fast test-long bench clean

help: ## this list
	@awk -F':.*## ' '/^[.a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.venv: ## the virtual environment, with the command at .venv/bin/farwatch
	@scripts/prepare-venv

dist: ## dist/farwatch-agent.pyz, all that a guest needs, and its systemd unit
	@$(PYTHON) scripts/build-agent

system-packages:
	@scripts/system-packages

demo: .venv ## half a minute that shows what farwatch does (root)
	@$(BIN)/farwatch demo

guest: .venv system-packages ## a shell in a QEMU guest that has DIR, or a new one, mounted (root)
	@$(BIN)/python -m tests.guest $(if $(DIR),"$(DIR)")

check: .venv ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict

format: .venv ## let ruff sort imports and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

test: .venv system-packages ## everything but the long tests (root; else what needs no root)
	@$(PYTEST) $(BESIDE) -m "not long" --session-timeout=1800 $(PYTEST_ARGS) </dev/null

test-fast: .venv ## what needs no privileges
	@$(PYTEST) $(BESIDE) -m "not long and not root and not guest" $(PYTEST_ARGS) </dev/null

test-long: .venv system-packages ## the long tests
	@$(PYTEST) -m long --timeout=1800 $(PYTEST_ARGS) </dev/null

bench: .venv system-packages ## latency, operations, bursts, and in a guest, beside native (root)
	@$(BIN)/python -m bench $(BENCH_ARGS)

clean: ## remove what the targets above made
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.git -prune -o \( -name __pycache__ -o -name '*.egg-info' \) -type d -prune -exec rm -rf {} +

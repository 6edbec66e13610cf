# Everything here needs Python 3.11 and make; the rest is fetched, pinned and verified.
SHELL := /bin/sh
.DEFAULT_GOAL := help
BIN := .venv/bin
# Where this is set, each of the hundreds of processes that tests start would compile all of Shoal anew.
unexport PYTHONDONTWRITEBYTECODE
INSTALLED := .venv/installed
# The first Python that is 3.11, whatever it is called.
PYTHON ?= $(shell for each in python3.11 python3 python; do \
	$$each -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && { echo $$each; break; }; done)

.PHONY: help install demo test check format up down promtool bench lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Make .venv from the lock (the others do it when needed)

# Made again when what it was made from changes; otherwise it costs nothing.
$(INSTALLED): requirements.lock pyproject.toml sdk/pyproject.toml
	@test -n "$(PYTHON)" || { echo "Shoal needs Python 3.11: none of python3.11, python3, python is it." \
		"Install it, or say where it is: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "making .venv"; $(PYTHON) -m venv .venv; }
	@echo "installing requirements.lock"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e . -e sdk
	@touch $@

demo: $(INSTALLED) ## Replay two years of a real shop and watch its customers move between segments
	@$(BIN)/python -m demo

test: check ## Run the checks and every test, on a real Kafka
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(INSTALLED) ## Run what needs no Kafka: format, lint, types, import rules, house rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 sdk/src
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -q tests/test_tidy.py tests/test_docs.py
	$(BIN)/python -m deploy.prometheus

format: $(INSTALLED) ## Put the code in its one form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

up: $(INSTALLED) ## Start a local Kafka and print its address
	@$(BIN)/python -m deploy.local up

down: $(INSTALLED) ## Stop it; its data stays in var/kafka
	@$(BIN)/python -m deploy.local down

promtool: $(INSTALLED) ## Fetch promtool, with which `check` then reads the alerts (needs apt, no root)
	@$(BIN)/python -m deploy.prometheus fetch

bench: $(INSTALLED) ## Measure this machine, beside idiomatic Faust; rewrites docs/performance.md
	@$(BIN)/python -m benchmarks

lock: $(INSTALLED) ## Resolve the dependencies anew into requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --universal \
		--generate-hashes --no-header --quiet --output-file requirements.lock

clean: ## Remove everything that can be made again (a local Kafka is stopped first)
	@test ! -x $(BIN)/python || $(BIN)/python -m deploy.local down
	rm -rf .venv var build sdk/build sdk/dist *.egg-info sdk/src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

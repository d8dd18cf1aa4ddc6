# The two commands of the README are `make up` and `make test`.
.PHONY: up down test test-all check unit integration machines aws clusters bench drill clean help
.DEFAULT_GOAL := help

CLUSTERCTL := .venv/bin/clusterctl
PYTEST := .venv/bin/python -m pytest
# Commands and tests compile each module once, not each time that they start.
unexport PYTHONDONTWRITEBYTECODE
LANES := $(shell cores=$$(nproc); echo $$((cores < 4 ? 1 : cores / 2)))

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' $(MAKEFILE_LIST)

up: ## build the lab's highly available cluster, everything included
	@scripts/setup lab
	$(CLUSTERCTL) up inventories/ha.py

down: ## remove that cluster
	$(CLUSTERCTL) down inventories/ha.py --yes

test: ## all tests: checks, unit, integration and end to end in the lab; of long ones another part for each commit
	@scripts/setup test
	$(CLUSTERCTL) artifacts build inventories/ha.py
	@# Tests of machines wait half of their time, so these go side by side; clusters have the computer
	@# to themselves.
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=line machines aws check unit
	@$(MAKE) --no-print-directory clusters

test-all: export CLUSTERCTL_SAMPLE = all
test-all: ## the same, of long tests everything: two hours
	@scripts/setup test-all
	@$(MAKE) --no-print-directory test

check: ## lint, types, layers, shell, secrets, dependencies
	@scripts/setup check
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	@scripts/check-shell
	@# Hashes are what this project is full of; tests have secrets that are none.
	git ls-files -z ':!tests' ':!*go.sum' | xargs -0 .venv/bin/detect-secrets-hook \
		--disable-plugin Base64HighEntropyString --disable-plugin HexHighEntropyString
	@scripts/audit-dependencies

unit: ## the tests that take seconds
	@scripts/setup
	$(PYTEST) --numprocesses=logical --dist=worksteal tests/unit tests/golden

integration: machines aws ## the tests with SSH servers, a simulated AWS and machines of the lab

machines:
	@scripts/setup test
	@# Half of its time is waiting: two files at once, in the order of their names, so that no long
	@# one begins last.
	CLUSTERCTL_LAB=required $(PYTEST) --numprocesses=2 --dist=loadfile --no-loadscope-reorder tests/integration/*_test.py

aws:
	@scripts/setup test
	$(PYTEST) --numprocesses=2 --dist=loadfile tests/integration/aws

clusters: # the tests with clusters; a lane of them for every two cores
	@# Measured on two cores: two lanes took as long as one, and assertions about seconds failed.
	CLUSTERCTL_LAB=required $(PYTEST) --numprocesses=$(LANES) tests/e2e

bench: ## measure; writes bench/RESULTS.md
	@scripts/setup test
	.venv/bin/python bench/run.py

drill: ## let everything go wrong, several times; writes bench/RESULTS.md
	@scripts/setup test
	.venv/bin/python bench/drill.py

clean: ## remove the virtual environment and what tools have left
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

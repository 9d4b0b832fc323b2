.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || echo python3)
BIN := .venv/bin
ARGS ?=
MINUTES ?= 1.5
SEED ?=

.venv/made: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

.venv/made-dev: .venv/made requirements-dev.txt requirements-client.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-client.txt
	touch $@

.venv/made-tools: .venv/made-dev requirements-tools.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-tools.txt
	touch $@

# Without it the test of the client in TypeScript is skipped; under CI that it can't be installed is a failure.
TYPESCRIPT := tests/e2e/typescript
$(TYPESCRIPT)/node_modules/made: $(TYPESCRIPT)/package.json
	@{ npm install --prefix $(TYPESCRIPT) --no-package-lock --no-audit --no-fund --silent && touch $@; } || test -z "$$CI"

.venv/made-docs: .venv/made requirements-docs.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

.venv/made-bench: .venv/made requirements-bench.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	touch $@

install: .venv/made ## make .venv and install what is pinned
.PHONY: install

run: install ## run everything: database, sandbox catalog and carts, the service
	$(BIN)/orders dev $(ARGS)
.PHONY: run

test: .venv/made-dev $(TYPESCRIPT)/node_modules/made ## run all tests (ARGS="-k cart" for some)
	$(BIN)/pytest -n 6 --dist worksteal $(ARGS)
.PHONY: test

coverage: .venv/made-tools $(TYPESCRIPT)/node_modules/made ## which lines the tests run, in the servers that they start, too; slower (ARGS)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 6 --dist worksteal $(ARGS); ended=$$?; \
		$(BIN)/coverage combine --quiet && $(BIN)/coverage report && exit $$ended
.PHONY: coverage

mutants: .venv/made-dev ## take the guards out, one at a time: does a test fail? (ARGS="placing.py" for some)
	$(BIN)/python -m tests.mutants $(ARGS)
.PHONY: mutants

BASE ?=
SECONDS ?= 60
mutants-changed: .venv/made-dev ## a sample of them on the lines that changed since BASE, within SECONDS
	$(BIN)/python -m tests.mutants_changed $(if $(BASE),--base $(BASE)) --seconds $(SECONDS) $(ARGS)
.PHONY: mutants-changed

chaos: .venv/made-dev ## kill everything under load, then check every promise (MINUTES=30 SEED=7)
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)
.PHONY: chaos

bench: .venv/made-bench ## compare its speed with the machine's (QUICK=1 in two minutes; ONLY=3 one alone; needs wrk)
	$(BIN)/python -m bench
.PHONY: bench

check: .venv/made-dev ## lint, format, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
.PHONY: check

snapshots: .venv/made-dev ## write docs/openapi.yaml, schema.sql and triggers.md anew, after a change of API or tables
	$(BIN)/python -m tests.snapshots
.PHONY: snapshots

docs: .venv/made-docs ## build the pages of docs/ as a site, in site/
	$(BIN)/mkdocs build --strict
	@echo "Open site/index.html"
.PHONY: docs

docs-tables: .venv/made-dev ## write the tables in docs/ anew: errors, settings, commands
	$(BIN)/python -m tests.docs_tables
.PHONY: docs-tables

hooks: .venv/made-tools ## look at what is committed from now on (.pre-commit-config.yaml)
	$(BIN)/pre-commit install
.PHONY: hooks

yaml: .venv/made-tools ## lint the YAML of this repository, and compare GitHub's files with their schemas
	$(BIN)/yamllint --strict .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
.PHONY: yaml

release: .venv/made-tools ## build and tag a version that CHANGELOG.md describes (VERSION=0.3.0 ARGS=--dry-run)
	scripts/release.sh $(ARGS) $(VERSION)
.PHONY: release

format: .venv/made-dev ## format the code, and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
.PHONY: format

clean: ## remove .venv and caches; the data in .data stays
	rm -rf .venv site $(TYPESCRIPT)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/*.egg-info
.PHONY: clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
.PHONY: help

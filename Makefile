# The two commands are `make demo` and `make test`; `make help` lists the rest. Nothing has to be installed beforehand: every
# target stands on .venv, which pins its packages with hashes, and on the lab, which brings its own hosts.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
PYTHON ?= $(shell tests/tools/find_python.sh)
LINK := .collections/ansible_collections/anchorage/vps
READY := $(VENV)/ready | $(LINK)
LAB := $(VENV)/bin/python -m tests.lab
TEST := $(VENV)/bin/python -m tests.tools
PARTS ?= lint sanity unit build integration molecule

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Only make runs pip, and never as somebody's daily environment.
export PIP_ROOT_USER_ACTION := ignore
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## the whole story on a throw-away VPS: ends with a running shop and its URL
	@$(LAB) up demo --host demo:trixie:app,database,cache,proxy --world --dns '*=demo' \
	  --publish demo:80=8080 --publish demo:443=8443
	@ansible-playbook site.yml -i inventories/demo

demo-down: $(READY) ## remove the demo's host and everything it made
	@$(LAB) down demo

test: $(READY) ## every part below, in order (PARTS="lint unit" for some); logs in tests/output
	@$(TEST) $(PARTS)

lint: ## ansible-lint (production), yamllint, ruff, changelog, no registry hosts
sanity: ## ansible-test sanity on a copy of the collection
unit: ## the pure parts
build: ## build the artefact, install it elsewhere, ask it for its modules
integration: ## modules and playbooks against real services on hosts of the lab
molecule: ## one scenario for each role, and the whole VPS (SCENARIO=base for one)
lint sanity unit build integration molecule: $(READY)
	@$(TEST) $@

faults: $(READY) ## the slow part of the fault tests, on hosts of its own (KEEP_LAB=1 keeps them, FAULT=name for one)
	@ANCHORAGE_FAULTS=1 $(VENV)/bin/python -m pytest tests/integration/release -m fault -ra \
	  --junitxml=tests/output/faults.xml $(if $(FAULT),-k $(FAULT))

releases: $(READY) ## the tests of releases alone, on a host of their own (RUNTIME=compose for an app in containers, KEEP_LAB=1, TEST_NAME=word)
	@ANCHORAGE_RUNTIME=$(or $(RUNTIME),pm2) $(VENV)/bin/python -m pytest tests/integration/release -ra $(if $(TEST_NAME),-k $(TEST_NAME))

backups: $(READY) ## all tests of backups, proofs, restores and recovery, on hosts of their own (KEEP_LAB=1, TEST_NAME=word)
	@ANCHORAGE_FAULTS=1 $(VENV)/bin/python -m pytest tests/integration/backup -ra $(if $(TEST_NAME),-k $(TEST_NAME))

fleet: $(READY) ## the tests of several hosts, on seven hosts of their own (KEEP_LAB=1, TEST_NAME=word)
	@ANCHORAGE_FAULTS=1 $(VENV)/bin/python -m pytest tests/integration/fleet -ra $(if $(TEST_NAME),-k "$(TEST_NAME)")

swarm: $(READY) ## the tests of an app on a Docker Swarm, on five hosts of their own (KEEP_LAB=1, TEST_NAME=word)
	@ANCHORAGE_FAULTS=1 $(VENV)/bin/python -m pytest tests/integration/swarm -ra $(if $(TEST_NAME),-k "$(TEST_NAME)")

components: $(READY) ## components as the contract renders them, through the real Compose and wired together with stand-ins on this machine
	@ANCHORAGE_COMPONENTS=1 $(VENV)/bin/python -m pytest tests/integration/components -ra

crash-states: $(READY) ## every state that a power cut in a whole deploy can leave on the disk; writes tests/results/crash-states.json
	@ANCHORAGE_FAULTS=1 $(VENV)/bin/python -m pytest tests/unit/plugins/module_utils/test_crash_states.py -ra

load: $(READY) ## releases and rollbacks of the real shop and of a plain app under load, resumable (LOAD="shop --minutes 8")
	@$(VENV)/bin/python -m tests.load $(LOAD)

alarms: $(READY) ## 200 looks at the real shop while visitors use it, none of which may be red; writes tests/results/alarms.json
	@$(VENV)/bin/python -m tests.load.alarms

power-cuts: $(READY) ## cut the power of a QEMU guest in 30 deploys; goes on where it was (MINUTES=8 for a part); writes tests/results/power-cuts.json
	@$(VENV)/bin/python -m tests.powercut prepare
	@$(VENV)/bin/python -m tests.powercut cut $(if $(MINUTES),--minutes $(MINUTES))

bench: $(READY) ## measure provision, site and deploy against a shell script, a ping and an rsync
	@$(VENV)/bin/python -m tests.bench

bench-hosts: $(READY) ## measure an unchanged site.yml with 1, 2, 4 and 8 hosts; writes tests/results/hosts.json
	@$(VENV)/bin/python -m tests.bench.hosts

format: $(READY) ## put the Python files into their one form
	@ruff check --fix --quiet . || true
	@ruff format .

docs: $(READY) ## write the generated parts of the documentation
	@$(VENV)/bin/python -m tests.tools.docs

pins: ## lock requirements.in anew for both generations of ansible-core
	@$(PYTHON) -m venv .cache/pins
	@.cache/pins/bin/pip install --quiet uv
	@for minor in 11 12; do .cache/pins/bin/uv pip compile --quiet --upgrade --no-emit-index-url --no-emit-find-links \
	  --generate-hashes --custom-compile-command 'make pins' --python-version "3.$$minor" \
	  --output-file "requirements-py3$$minor.txt" requirements.in; done

clean: ## remove the virtual environment and all caches (not the lab)
	@rm -rf $(VENV) .collections .ansible tests/output .pytest_cache .ruff_cache .hypothesis *.tar.gz
	@find .cache -mindepth 1 -maxdepth 1 ! -name lab -exec rm -rf {} + 2>/dev/null || true

lab-clean: $(READY) ## remove all hosts of this clone, the package cache and the host images
	@$(LAB) clean

.venv: $(READY) ## the virtual environment

$(VENV)/ready: requirements-py311.txt requirements-py312.txt
	@echo "make: .venv with $(PYTHON)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@case "$$($(VENV)/bin/python -c 'import sys; print(sys.version_info[1])')" in 11) pins=py311 ;; *) pins=py312 ;; esac; \
	  $(VENV)/bin/pip install --quiet --no-compile --require-hashes --requirement "requirements-$$pins.txt"
	@touch $@

$(LINK):
	@mkdir -p $(dir $@) && ln -sfn ../../.. $@

.PHONY: help demo demo-down test lint sanity unit build integration molecule faults releases backups fleet swarm components crash-states power-cuts load alarms bench bench-hosts format docs pins clean lab-clean .venv

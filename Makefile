# SPDX-License-Identifier: Apache-2.0
# Two commands do everything on a fresh machine: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/build/collections
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help demo demo-down test test-quick test-long stage test-gpu bench bench-plan clean tools sandbox

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: sandbox ## Stand up the sandbox fleet, run site.yml and verify.yml on it, print how to use it
	@tools/demo.sh up

demo-down: sandbox ## Remove every host of the sandbox, whoever left it: containers, stores, network, keys
	@tools/demo.sh down

test: sandbox ## Run every check (about 75 minutes on 2 cores); needs the demo's hosts removed
	@tools/demo.sh absent
	@python tools/run_stages.py --set test

test-long: sandbox ## Run what takes too long for every change (about four hours); needs the demo's hosts removed
	@tools/demo.sh absent
	@python tools/run_stages.py --set long

test-quick: tools ## Run the linters, the type checks and the unit tests (under two minutes); needs no root and no Docker
	@python tools/run_stages.py --set quick

stage: sandbox ## Run one stage with what it needs, for example: make stage NAME=molecule-pki
	@python tools/run_stages.py $(or $(NAME),--list)

test-gpu: ## Try readers and rules on this machine's NVIDIA GPU and record it as a fixture (no internet, no Ansible needed)
	@python3 tools/test_gpu.py

bench: sandbox ## Measure a no-change run of site.yml from 2 to 20 sandbox hosts
	@python -m tools.bench.bench

bench-plan: tools ## Measure the plan from 10 to 1,000 hosts: seconds and memory, and how they grow
	@python -m tools.bench.plan_growth

clean: sandbox ## Remove the hosts, the images and the cache of the sandbox, and build/
	@tools/demo.sh clean

tools:
	@tools/bootstrap.sh tools

sandbox:
	@tools/bootstrap.sh sandbox

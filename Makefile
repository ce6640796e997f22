# SPDX-License-Identifier: Apache-2.0
# Two commands do everything on a fresh machine: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/build/collections
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export MOLECULE_GLOB := molecule/*/molecule.yml

.PHONY: help demo demo-down test test-quick test-long test-gpu bench bench-plan ready

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ready ## Stand up the sandbox fleet, run site.yml and verify.yml on it, print how to use it
	@tools/demo.sh up

demo-down: ready ## Remove the hosts of the demo
	@tools/demo.sh down

test: ready ## Run every check (about 40 minutes on 2 cores)
	@python tools/run_stages.py --set test

test-long: ready ## Run what takes too long for every change (a quarter of an hour)
	@python tools/run_stages.py --set long

test-quick: ready ## Run the linters, the type checks and the unit tests (under two minutes)
	@python tools/run_stages.py --set quick

test-gpu: ## Try readers and rules on this machine's NVIDIA GPU and record it as a fixture (no internet, no Ansible needed)
	@python3 tools/test_gpu.py

bench: ready ## Measure a no-change run of site.yml from 2 to 20 sandbox hosts
	@python -m tools.bench.bench

bench-plan: ready ## Measure the plan from 10 to 1,000 hosts: seconds and memory, and how they grow
	@python -m tools.bench.plan_growth

ready:
	@tools/bootstrap.sh

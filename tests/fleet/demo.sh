#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The demo, as a user runs it, on the larger fleet (three GPU nodes, two gateways). Then, from the built and installed artefact alone,
# as CI systems drive it: site.yml once more, which must change nothing and stay within the budget of round trips, and verify.yml
# by ansible-runner. Then the demo's own way to remove it.
set -euo pipefail
cd "$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")"
export DEMO_INVENTORY=inventories/sandbox_ha
work=$PWD/build/demo
trap 'tools/demo.sh down' EXIT

tools/demo.sh down
tools/demo.sh up
changed=$(git status --porcelain -- "$DEMO_INVENTORY")
[[ -z $changed ]] || { printf "the recorded hardware is not what discover.yml writes:\n%s\n" "$changed" >&2; exit 1; }

printf '\n==> Install the artefact and run site.yml from it\n'
rm -rf "$work"
mkdir -p "$work"
python -m tools.checks.copy_collection
ansible-galaxy collection build build/ansible_collections/gpufleet/metal --output-path "$work"
# From here on nothing of the checkout is found: only what was installed.
export ANSIBLE_COLLECTIONS_PATH=$work/collections
ansible-galaxy collection install "$work"/gpufleet-metal-*.tar.gz --offline --collections-path "$work/collections"
ANSIBLE_CALLBACKS_ENABLED=gpufleet.metal.run_statistics GPUFLEET_RUN_STATISTICS_PATH=$work/statistics.json \
  ansible-playbook --inventory "$DEMO_INVENTORY" gpufleet.metal.site
python -m tools.bench.budget "$work/statistics.json" --no-change

printf '\n==> Run verify.yml by ansible-runner\n'
cp -r docs/examples/ansible_runner "$work/runner"
ansible-runner run "$work/runner" --inventory "$PWD/$DEMO_INVENTORY" --playbook gpufleet.metal.verify --ident verify
[[ $(cat "$work/runner/artifacts/verify/rc") == 0 ]]

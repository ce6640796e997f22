#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The demo, as a user runs it, on the larger fleet (three GPU nodes, two gateways): what it prints is done as it is printed, and a
# second time it must change nothing. Then, from the built and installed artefact alone, as CI systems drive it: site.yml once more,
# which must stay within the budget of round trips, and verify.yml by ansible-runner. Then the demo's own way to remove it, which
# must leave nothing.
set -euo pipefail
cd "$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")"
export DEMO_INVENTORY=inventories/sandbox_ha DEMO_OWNER=test
work=$PWD/build/demo

fail() {
  printf 'demo test: %s\n' "$*" >&2
  exit 1
}

tools/demo.sh absent
trap 'tools/demo.sh down' EXIT
tools/demo.sh down
rm -rf "$work"
mkdir -p "$work"

tools/demo.sh up | tee "$work/up.txt"
changed=$(git status --porcelain -- "$DEMO_INVENTORY")
[[ -z $changed ]] || fail "the recorded hardware is not what discover.yml writes: $changed"

printf '\n==> Run the curl line that was printed\n'
sed -n '/^  curl /,/[^\]$/p' "$work/up.txt" >"$work/curl.sh"
bash -euo pipefail "$work/curl.sh" | tee "$work/answer.json"
python -c 'import json, sys; assert json.load(sys.stdin)["choices"][0]["message"]["role"] == "assistant"' <"$work/answer.json"

printf '\n==> Run the snippet that was printed\n'
sed -n '/^  import openai/,/^  print(/s/^  //p' "$work/up.txt" >"$work/snippet.py"
python -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --requirement tests/fleet/requirements.txt
"$work/venv/bin/python" "$work/snippet.py" | tee "$work/answer.txt"
grep --quiet '^ChatCompletion(' "$work/answer.txt"

printf '\n==> Run the demo again: it must change nothing\n'
tools/demo.sh up | tee "$work/again.txt"
recap=$(grep -E ' : ok=[0-9]+ +changed=' "$work/again.txt") || fail "the second run shows no recap"
! grep -E 'changed=0*[1-9]' <<<"$recap" || fail "the second run changed something"

printf '\n==> Install the artefact and run site.yml from it\n'
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

printf '\n==> Remove it\n'
tools/demo.sh down
label=label=gpufleet.sandbox
left=$(docker ps --all --quiet --filter "$label"; docker volume ls --quiet --filter "$label"; docker network ls --quiet --filter "$label")
[[ -z $left ]] || fail "demo.sh down left behind: $left"
[[ ! -e $DEMO_INVENTORY/.gpufleet ]] || fail "demo.sh down left $DEMO_INVENTORY/.gpufleet behind"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# on_demo.sh INVENTORY TEST...
#
# Makes the demo fleet of inventories/INVENTORY, runs tests/fleet/TEST.py on it, one after the other, and removes it. Engines start
# several times, one after the other and under load, on this machine's few cores, so these are not part of `make test`.
set -euo pipefail
cd "$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")"
export DEMO_INVENTORY=inventories/$1 DEMO_OWNER=test PYTHONPATH=$PWD/build/collections
shift
tools/demo.sh absent

# Hosts of others may stand beside these.
remove() {
  tools/sandbox/remove.sh --owner "$DEMO_OWNER"
  rm -rf "$DEMO_INVENTORY/.gpufleet"
}
trap remove EXIT

remove
tools/demo.sh up
for name; do
  work=$PWD/build/$name
  rm -rf "$work"
  mkdir -p "$work"
  printf '\n==> tests/fleet/%s.py\n' "$name"
  python "tests/fleet/$name.py" "$DEMO_INVENTORY" "$work"
done

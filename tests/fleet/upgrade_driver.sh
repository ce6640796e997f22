#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The rolling upgrade of (simulated) drivers under load, on the larger demo fleet. Three engines start again one after the other, under
# the load, on this machine's few cores: about 25 minutes, so it is not part of `make test`.
set -euo pipefail
cd "$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")"
export DEMO_INVENTORY=inventories/sandbox_ha DEMO_OWNER=test
work=$PWD/build/upgrade_driver
tools/demo.sh absent
trap 'tools/demo.sh down' EXIT

tools/demo.sh down
tools/demo.sh up
rm -rf "$work"
mkdir -p "$work"
python tests/fleet/upgrade_driver.py "$DEMO_INVENTORY" "$work"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Mutual TLS between gateways and engines turned off and on again under load, on the demo fleet. Every engine starts twice, one after the
# other, on this machine's few cores, so it is not part of `make test`.
set -euo pipefail
cd "$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")"
export DEMO_INVENTORY=inventories/sandbox DEMO_OWNER=test
work=$PWD/build/switch_engine_tls
tools/demo.sh absent
trap 'tools/demo.sh down' EXIT

tools/demo.sh down
tools/demo.sh up
rm -rf "$work"
mkdir -p "$work"
python tests/fleet/switch_engine_tls.py "$DEMO_INVENTORY" "$work"

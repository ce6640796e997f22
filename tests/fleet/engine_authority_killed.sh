#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# engine_authority_killed.sh
#
# The authority behind mutual TLS replaced with a real engine, killed after every step and continued.
set -euo pipefail
cd "$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")"
work=$PWD/build/engine_authority_killed
rm -rf "$work"
mkdir -p "$work"
tools/demo.sh absent
trap 'tools/sandbox/remove.sh --owner test' EXIT
tools/sandbox/remove.sh --owner test
PYTHONPATH=$PWD/build/collections python tests/fleet/engine_authority_killed.py "$work"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# rotate_secrets.sh [--quick]
#
# Every kind of rotation under load through two gateways, killed after every step and continued, and a search for what leaked.
set -euo pipefail
cd "$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")"
# A controller somewhere else than its clocks: what is signed for a minute is signed in UTC all the same.
export TZ='<+0530>-5:30'
work=$PWD/build/rotate_secrets
inventory=(--inventory tools/sandbox/connection.yml --inventory tests/fleet/rotation/hosts.yml)
export ROTATION_WORK=$work ROTATION_TASKS=$PWD/tests/fleet/rotation
rm -rf "$work"
mkdir -p "$work"
python -c 'import json, sys; json.dump(json.load(open(sys.argv[1]))["model"]["config"], open(sys.argv[2], "w"))' \
  "${XDG_CACHE_HOME:-$HOME/.cache}/gpufleet-metal/media/media.json" "$work/model_config.json"
tools/demo.sh absent
trap 'tools/sandbox/remove.sh --owner test' EXIT
tools/sandbox/remove.sh --owner test
ansible-playbook "${inventory[@]}" playbooks/sandbox/create.yml --extra-vars sandbox_owner=test
PYTHONPATH=$PWD/build/collections python tests/fleet/rotate_secrets.py "$work" "$@"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# demo.sh up|down|absent|clean
#
# up      stand up the sandbox fleet, run site.yml and verify.yml on it, say how to use it
# down    remove every host of the sandbox, also those that an interrupted test left behind, with all that runs wrote for them
# absent  say nothing if the demo's hosts are not there, and stop if they are: the tests would replace them
# clean   down, and remove the sandbox's images, its cache and build/, too
#
# Environment: DEMO_INVENTORY (inventories/sandbox), and DEMO_OWNER, which the tests set for hosts that nobody wants to keep.
set -euo pipefail
cd "$(dirname "$(dirname "$(readlink -f "$0")")")"
inventory=${DEMO_INVENTORY:-inventories/sandbox}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gpufleet-metal
report=()

# stage TITLE COMMAND...: run one stage in full view and remember its seconds.
stage() {
  local title=$1 begun=$SECONDS
  shift
  printf '\n==> %s\n' "$title"
  "$@" || { printf '\ndemo: "%s" failed after %d s: %s\n' "$title" $((SECONDS - begun)) "$*" >&2; exit 1; }
  report+=("$(printf '%6d s  %s' $((SECONDS - begun)) "$title")")
}

play() { ANSIBLE_DISPLAY_SKIPPED_HOSTS=false ansible-playbook --inventory "$inventory" "$@"; }

up() {
  stage "Build the sandbox's images and media (kept in the cache)" tools/sandbox/build.sh
  stage "Start the hosts" play playbooks/sandbox/create.yml --extra-vars "sandbox_owner=${DEMO_OWNER:-demo}"
  stage "Record the hardware" play playbooks/discover.yml
  stage "Run site.yml" play playbooks/site.yml
  stage "Run verify.yml" play playbooks/verify.yml

  local address name
  address=$(ansible-inventory --inventory "$inventory" --list | python3 -c '
import json, sys
inventory = json.load(sys.stdin)
print(inventory["_meta"]["hostvars"][inventory["gateways"]["hosts"][0]]["ansible_host"])')
  name=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["hosts"][sys.argv[2]]["endpoint"]["hostname"])' \
    "$inventory/.gpufleet/plan.json" "$(ansible-inventory --inventory "$inventory" --list | python3 -c 'import json, sys; print(json.load(sys.stdin)["gateways"]["hosts"][0])')")
  printf '\nWall time by stage\n'
  printf '%s\n' "${report[@]}"
  cat <<TEXT

The endpoint answers.

  endpoint   https://$name/v1   ($address)
  CA file    $PWD/$inventory/.gpufleet/pki/ca.crt
  plan       $PWD/$inventory/.gpufleet/plan.svg

  curl --cacert $inventory/.gpufleet/pki/ca.crt --resolve $name:443:$address https://$name/v1/chat/completions \\
    -H 'Content-Type: application/json' -d '{"model": "tiny-llama", "max_tokens": 16, "messages": [{"role": "user", "content": "Hello"}]}'

  # pip install openai. The sandbox's name is in no DNS, so its address is called; the certificate covers both.
  import openai, ssl
  client = openai.OpenAI(base_url="https://$address/v1", api_key="none",
                         http_client=openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile="$inventory/.gpufleet/pki/ca.crt")))
  print(client.chat.completions.create(model="tiny-llama", max_tokens=16, messages=[{"role": "user", "content": "Hello"}]))

  make demo again converges (changed=0); make demo-down removes the hosts, and keeps the images in the cache.
TEXT
}

down() {
  tools/sandbox/remove.sh --all
  # What was decided and made for these hosts: plans, the authority and its key, reports.
  rm -rf inventories/sandbox*/.gpufleet
}

absent() {
  local hosts
  hosts=$(docker ps --all --filter label=gpufleet.sandbox.owner=demo --format '{{.Names}}' | sort | paste -s -d ' ')
  if [[ -n $hosts ]]; then
    echo "demo: the demo stands ($hosts), and the tests would replace its hosts; make demo-down removes it" >&2
    exit 1
  fi
}

clean() {
  down
  docker images --quiet --filter reference='gpufleet-sandbox-*' | sort -u | xargs --no-run-if-empty docker rmi --force
  rm -rf "$cache" build
}

case ${1:-} in
up | down | absent | clean) "$1" ;;
*)
  echo "usage: demo.sh up|down|absent|clean" >&2
  exit 64
  ;;
esac

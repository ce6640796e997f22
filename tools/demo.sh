#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# demo.sh up|down: stand up the sandbox fleet, run site.yml and verify.yml on it, say how to use it; or remove it again.
set -euo pipefail
cd "$(dirname "$(dirname "$(readlink -f "$0")")")"
inventory=${DEMO_INVENTORY:-inventories/sandbox}
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
  stage "Start the hosts" play playbooks/sandbox/create.yml
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
  import httpx, openai, ssl
  client = openai.OpenAI(base_url="https://$address/v1", api_key="none",
                         http_client=httpx.Client(verify=ssl.create_default_context(cafile="$inventory/.gpufleet/pki/ca.crt")))
  print(client.chat.completions.create(model="tiny-llama", max_tokens=16, messages=[{"role": "user", "content": "Hello"}]))

  make demo again converges (changed=0); make demo-down removes the hosts, and keeps the images in the cache.
TEXT
}

case ${1:-} in
up) up ;;
down) play playbooks/sandbox/remove.yml ;;
*)
  echo "usage: demo.sh up|down" >&2
  exit 64
  ;;
esac

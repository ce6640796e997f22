#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# remove.sh --owner OWNER [HOST...] | remove.sh --all: remove hosts of the sandbox with all that they stored; prints what it removed.
#
# --owner OWNER            all hosts of this owner (demo, molecule, bench, test)
# --owner OWNER HOST...    these hosts; refused where one of them is another owner's
# --all                    every host, whoever made it, also what an interrupted run left behind
# The last host takes the sandbox's network with it, unless SANDBOX_KEEP_NETWORK is set, because hosts that are being made
# elsewhere would miss it; --all always takes it. Images and media stay in the cache.
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gpufleet-metal
label=gpufleet.sandbox
network=gpufleet-sandbox

# The containers (ids) and the volumes (names) that have the label, or one value of it.
containers() { docker ps --all --quiet --no-trunc --filter "label=$1"; }
volumes() { docker volume ls --quiet --filter "label=$1"; }

# remove FILTER: the containers and volumes that the filter finds, and what this machine keeps for them.
remove() {
  local filter=$1 container name host address volume stores=()
  for container in $(containers "$filter"); do
    read -r name host address < <(docker inspect --format \
      "{{.Name}} {{index .Config.Labels \"$label\"}} {{with index .NetworkSettings.Networks \"$network\"}}{{.IPAddress}}{{end}}" "$container")
    # A host that an older version made has volumes without a label.
    mapfile -t -O "${#stores[@]}" stores < <(docker inspect --format \
      '{{range .Mounts}}{{if eq .Type "volume"}}{{println .Name}}{{end}}{{end}}' "$container" | sed '/^$/d')
    docker rm --force "$container" >/dev/null
    rm -rf "$cache/simulated_gpu/$host"
    if [[ -n $address && -e $cache/ssh/known_hosts ]]; then
      ssh-keygen -q -R "$address" -f "$cache/ssh/known_hosts" >/dev/null 2>&1
      rm -f "$cache/ssh/known_hosts.old"
    fi
    printf 'removed %s\n' "${name#/}"
  done
  mapfile -t -O "${#stores[@]}" stores < <(volumes "$filter")
  for volume in $(printf '%s\n' "${stores[@]}" | sort -u); do
    docker volume rm --force "$volume" >/dev/null
    printf 'removed %s\n' "$volume"
  done
}

case ${1:-} in
--all)
  remove "$label"
  rm -rf "$cache/simulated_gpu" "$cache/ssh/known_hosts"
  ;;
--owner)
  owner=${2:?OWNER}
  shift 2
  if (($# == 0)); then
    mapfile -t hosts < <(docker ps --all --filter "label=$label.owner=$owner" --format "{{.Label \"$label\"}}")
    set -- "${hosts[@]}"
  fi
  for host in "$@"; do
    for container in $(containers "$label=$host"); do
      maker=$(docker inspect --format "{{index .Config.Labels \"$label.owner\"}}" "$container")
      if [[ -n $maker && $maker != "$owner" ]]; then
        printf "remove: host %s belongs to '%s', not to '%s'; nothing was removed. make demo-down removes every host\n" "$host" "$maker" "$owner" >&2
        exit 1
      fi
    done
  done
  for host in "$@"; do remove "$label=$host"; done
  ;;
*)
  echo "usage: remove.sh --owner OWNER [HOST...] | remove.sh --all" >&2
  exit 64
  ;;
esac

if [[ ${1:-} != --all && -n ${SANDBOX_KEEP_NETWORK:-} ]]; then exit; fi
if [[ -z $(containers "$label") && -n $(docker network ls --quiet --filter "name=^$network\$") ]]; then
  docker network rm "$network" >/dev/null
  printf 'removed the network %s\n' "$network"
fi

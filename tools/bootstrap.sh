#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bootstrap.sh: make this machine able to run `make demo` and `make test`, and do nothing where it already is.
#
# Needs Debian 12 or newer or Ubuntu 22.04 or newer, root or passwordless sudo, and Python 3.11 or newer (PYTHON=... names another).
# Installs missing Debian packages, starts the Docker daemon if none answers, and makes the virtual environment .venv.
set -euo pipefail
root=$(dirname "$(dirname "$(readlink -f "$0")")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gpufleet-metal
mkdir -p "$cache"

say() { printf 'bootstrap: %s\n' "$*"; }
fail() {
  printf 'bootstrap: %s\n' "$*" >&2
  exit 1
}

sudo=()
if [[ $(id -u) -ne 0 ]]; then
  sudo -n true 2>/dev/null || fail "found user $(id -un) without passwordless sudo; run as root, or allow sudo without a password"
  sudo=(sudo)
fi

# --- system packages ---------------------------------------------------------------------------------------------------------
# What a command needs, by the command that shows it is there.
declare -A package_of=(
  [mmdebstrap]=mmdebstrap [gcc]=gcc [ssh]=openssh-client [ssh-keygen]=openssh-client [git]=git [curl]=curl
  [openssl]=openssl [iptables]=iptables [shellcheck]=shellcheck [ip]=iproute2
)
missing=()
for command in "${!package_of[@]}"; do
  command -v "$command" >/dev/null || missing+=("${package_of[$command]}")
done
# The headers of the C library, for the stand-in of NVIDIA's management library.
[[ -e /usr/include/stdio.h ]] || missing+=(libc6-dev)
command -v dockerd >/dev/null || docker info >/dev/null 2>&1 || missing+=(docker.io)

python=${PYTHON:-}
if [[ -z $python ]]; then
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      python=$candidate
      break
    fi
  done
fi
[[ -n $python ]] || fail "found no Python 3.11 or newer; install python3.11 and python3.11-venv, or name one with PYTHON=/path/to/python"
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  missing+=("python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv")
fi

install() {
  command -v apt-get >/dev/null || fail "found no apt-get; install these by hand: $*"
  say "installing $*"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends "$@" >"$cache/apt.log" 2>&1 ||
    { tail -n 20 "$cache/apt.log" >&2; fail "apt-get could not install: $*"; }
}
if ((${#missing[@]})); then
  "${sudo[@]}" apt-get update -qq
  install "${missing[@]}"
fi
# Debian 13 split the client from docker.io.
command -v docker >/dev/null || install docker-cli

# --- the Docker daemon -------------------------------------------------------------------------------------------------------
docker_answers() { "${sudo[@]}" docker info >/dev/null 2>&1; }
if ! docker_answers; then
  if [[ -d /run/systemd/system ]]; then
    say "starting the Docker daemon"
    "${sudo[@]}" systemctl start docker
  else
    say "starting the Docker daemon (log: $cache/dockerd.log)"
    "${sudo[@]}" setsid dockerd >"$cache/dockerd.log" 2>&1 </dev/null &
  fi
  for _ in $(seq 60); do
    docker_answers && break
    sleep 1
  done
  docker_answers || fail "the Docker daemon does not answer after 60 s; see $cache/dockerd.log or journalctl -u docker"
fi
if ! docker info >/dev/null 2>&1; then
  say "allowing $(id -un) to use the Docker daemon until it restarts"
  "${sudo[@]}" chgrp "$(id -g)" /var/run/docker.sock
fi

# --- the Python environment --------------------------------------------------------------------------------------------------
requirements=$root/tools/requirements.txt
wanted=$({ "$python" -V; cat "$requirements"; } | sha256sum)
if [[ $(cat "$root/.venv/.ready" 2>/dev/null) != "$wanted" ]]; then
  say "making .venv from tools/requirements.txt (about a minute)"
  rm -rf "$root/.venv"
  "$python" -m venv "$root/.venv"
  "$root/.venv/bin/pip" install --quiet --quiet --requirement "$requirements"
  echo "$wanted" >"$root/.venv/.ready"
fi

# Ansible finds a collection by its place in a tree: this checkout takes the place of gpufleet.metal.
mkdir -p "$root/build/collections/ansible_collections/gpufleet"
ln -sfn "$root" "$root/build/collections/ansible_collections/gpufleet/metal"

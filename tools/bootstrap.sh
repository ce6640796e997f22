#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bootstrap.sh tools|sandbox: make this machine able to run the linters and unit tests (tools), or all of it, with `make demo` and
# `make test` (sandbox). It does nothing where the machine already is.
#
# Needs Debian 12 or newer or Ubuntu 22.04 or newer and Python 3.11, 3.12 or 3.13 (PYTHON=... names one); the sandbox also x86_64,
# and root or passwordless sudo. Installs missing packages and upgrades none, starts the Docker daemon if none answers, and makes
# the virtual environment .venv.
set -euo pipefail
root=$(dirname "$(dirname "$(readlink -f "$0")")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gpufleet-metal
# Where administrators' commands are, which a user's PATH lacks on Debian.
export PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$cache"

say() { printf 'bootstrap: %s\n' "$*"; }
fail() {
  printf 'bootstrap: %s\n' "$*" >&2
  exit 1
}

case ${1:-} in
tools | sandbox) scope=$1 ;;
*)
  echo "usage: bootstrap.sh tools|sandbox" >&2
  exit 64
  ;;
esac

# need_root REASON: say why root is needed where it is not to be had.
need_root() {
  [[ $(id -u) -eq 0 ]] || sudo -n true 2>/dev/null ||
    fail "found user $(id -un) without passwordless sudo, which is needed to $*; run as root, or allow sudo without a password"
}

as_root() {
  if [[ $(id -u) -eq 0 ]]; then "$@"; else sudo "$@"; fi
}

# --- what the machine must be ------------------------------------------------------------------------------------------------
# nearest DIRECTORY: it, or the first directory above it that is there.
nearest() {
  local directory=$1
  while [[ ! -d $directory ]]; do directory=$(dirname "$directory"); done
  printf '%s\n' "$directory"
}

# want_free DIRECTORY GIB WHAT: stop where less is free.
want_free() {
  local found
  found=$(df --block-size=1G --output=avail "$(nearest "$1")" | tail -n 1 | tr -d ' ')
  ((found >= $2)) || fail "found $found GiB free for $1, wanted $2 GiB for $3"
}

if [[ $scope == sandbox ]]; then
  [[ $(uname -m) == x86_64 ]] || fail "found $(uname -m), wanted x86_64: the sandbox's engine is built for nothing else"
  if [[ ! -e $cache/media/media.json ]]; then
    store=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null) || store=/var/lib/docker
    if [[ $(stat --format %d "$(nearest "$store")") == $(stat --format %d "$cache") ]]; then
      want_free "$cache" 20 "the sandbox's images, stores, wheels and media"
    else
      want_free "$store" 15 "the sandbox's images and its hosts' stores"
      want_free "$cache" 5 "the sandbox's wheels and media; XDG_CACHE_HOME names another place"
    fi
  fi
fi

# --- system packages ---------------------------------------------------------------------------------------------------------
# What a command needs, by the command that shows it is there.
declare -A package_of=([git]=git [shellcheck]=shellcheck)
if [[ $scope == sandbox ]]; then
  package_of+=(
    [mmdebstrap]=mmdebstrap [gcc]=gcc [ssh]=openssh-client [ssh-keygen]=openssh-client [curl]=curl
    [openssl]=openssl [iptables]=iptables [ip]=iproute2 [nsupdate]=bind9-dnsutils
  )
fi
missing=()
for command in "${!package_of[@]}"; do
  command -v "$command" >/dev/null || missing+=("${package_of[$command]}")
done
if [[ $scope == sandbox ]]; then
  # The headers of the C library, for the stand-in of NVIDIA's management library.
  [[ -e /usr/include/stdio.h ]] || missing+=(libc6-dev)
  [[ -e /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates)
  [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || missing+=(debian-archive-keyring)
  command -v dockerd >/dev/null || docker info >/dev/null 2>&1 || missing+=(docker.io)
fi

# ansible-test knows no Python after 3.13.
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }
python=${PYTHON:-}
if [[ -n $python ]]; then
  fits "$python" || fail "found PYTHON=$python: $("$python" -V 2>&1), wanted Python 3.11, 3.12 or 3.13"
else
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && fits "$candidate"; then
      python=$candidate
      break
    fi
  done
fi
[[ -n $python ]] || fail "found no Python 3.11, 3.12 or 3.13 (ansible-test runs on no other); install one with its venv module," \
  "for example by: uv python install 3.13; then name it: PYTHON=\"\$(uv python find 3.13)\" make ..."
# The one behind it, if that is the environment which is about to be made anew.
python=$("$python" -c 'import sys; print(sys._base_executable)')
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  missing+=("python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv")
fi

# A machine that has just booted is often still installing something itself: wait for apt's locks.
apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 "$@" >"$cache/apt.log" 2>&1
}

update_lists() {
  for _ in $(seq 60); do
    apt_get update && return
    # That option does not wait for the lock of the lists.
    grep -q 'Could not get lock' "$cache/apt.log" || break
    sleep 10
  done
  tail -n 20 "$cache/apt.log" >&2
  say "apt-get update failed; going on with the lists that are there"
}

install() {
  command -v apt-get >/dev/null || fail "found no apt-get; install these by hand: $*"
  need_root "install $*"
  say "installing $*"
  apt_get install --yes --no-install-recommends --no-upgrade "$@" ||
    { tail -n 20 "$cache/apt.log" >&2; fail "apt-get could not install: $*"; }
}
if ((${#missing[@]})); then
  need_root "install ${missing[*]}"
  update_lists
  install "${missing[@]}"
fi

# --- the Docker daemon -------------------------------------------------------------------------------------------------------
docker_answers() { as_root docker info >/dev/null 2>&1; }
if [[ $scope == sandbox ]]; then
  # Debian 13 split the client from docker.io.
  command -v docker >/dev/null || install docker-cli
  if ! docker info >/dev/null 2>&1; then
    need_root "use the Docker daemon"
    if ! docker_answers; then
      if [[ -d /run/systemd/system ]]; then
        say "starting the Docker daemon"
        as_root systemctl start docker
      else
        say "starting the Docker daemon (log: $cache/dockerd.log)"
        as_root setsid dockerd >"$cache/dockerd.log" 2>&1 </dev/null &
      fi
      for _ in $(seq 60); do
        docker_answers && break
        sleep 1
      done
      docker_answers || fail "the Docker daemon does not answer after 60 s; see $cache/dockerd.log or journalctl -u docker"
    fi
  fi
  if ! docker info >/dev/null 2>&1; then
    # An entry of its own: the socket's owner, group and mode are somebody else's decision.
    command -v setfacl >/dev/null || install acl
    say "allowing $(id -un) to use the Docker daemon until it restarts"
    as_root setfacl --modify "user:$(id -u):rw" /var/run/docker.sock
    docker info >/dev/null || fail "Docker does not answer user $(id -un)"
  fi
fi

# --- the Python environment --------------------------------------------------------------------------------------------------
# Its scripts name their place, so an environment that was moved is made anew.
requirements=$root/tools/requirements.txt
wanted=$({ echo "$root"; "$python" -V; cat "$requirements"; } | sha256sum)
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

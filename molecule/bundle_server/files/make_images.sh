#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# make_images.sh: three small images in an upstream registry on this host, and their digests as JSON. Two are signed with cosign and
# the key pair in /srv/upstream; the third is not. An image has two programs and what they need, so that a container can run.
# Manifests are of every type that registries have: an OCI index, a list of Docker's, and a single manifest of Docker's.
set -euo pipefail
cd /srv/upstream
export COSIGN_PASSWORD=simulated
[[ -e cosign.key ]] || cosign generate-key-pair >/dev/null 2>&1

make_image() {
  local name=$1 directory=$2 type=$3
  python3 - "$name" "$directory" "$type" <<'PYTHON'
import hashlib
import io
import json
import pathlib
import gzip
import subprocess
import sys
import tarfile

name, target, kind = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
target.mkdir()
oci, docker = "application/vnd.oci.image", "application/vnd.docker"
types = {
    "oci": [f"{oci}.index.v1+json", f"{oci}.manifest.v1+json", f"{oci}.config.v1+json", f"{oci}.layer.v1.tar+gzip"],
    "docker": [
        f"{docker}.distribution.manifest.list.v2+json",
        f"{docker}.distribution.manifest.v2+json",
        f"{docker}.container.image.v1+json",
        f"{docker}.image.rootfs.diff.tar.gzip",
    ],
}
list_type, manifest_type, config_type, layer_type = types[kind.partition("-")[0]]


def blob(content: bytes, ending: str = "") -> dict:
    digest = hashlib.sha256(content).hexdigest()
    (target / f"{digest}{ending}").write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w") as archive:
    for path in ("/usr/bin/sleep", "/usr/bin/cat"):
        archive.add(path, path)
    for directory in ("/lib64", "/lib"):
        link = tarfile.TarInfo(directory)
        link.type, link.linkname = tarfile.SYMTYPE, f"usr{directory}"
        archive.addfile(link)
    loader = pathlib.Path("/lib64/ld-linux-x86-64.so.2").resolve()
    archive.add(loader, "/usr/lib64/ld-linux-x86-64.so.2")
    archive.add("/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libc.so.6")
    word = f"I am {name}\n".encode()
    entry = tarfile.TarInfo("/name")
    entry.size = len(word)
    archive.addfile(entry, io.BytesIO(word))
plain = buffer.getvalue()
layer = blob(gzip.compress(plain, mtime=0))
config = blob(json.dumps({
    "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/usr/bin/cat", "/name"]},
    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]},
}).encode())
manifest = json.dumps({
    "schemaVersion": 2, "mediaType": manifest_type,
    "config": {"mediaType": config_type, **config},
    "layers": [{"mediaType": layer_type, **layer}],
}).encode()
if not kind.endswith("-single"):
    # As images of several platforms have it.
    entry = {"mediaType": manifest_type, **blob(manifest, ".manifest.json"), "platform": {"architecture": "amd64", "os": "linux"}}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": list_type, "manifests": [entry]}).encode()
(target / "manifest.json").write_bytes(manifest)
(target / "version").write_text("Directory Transport Version: 1.1\n")
print(f"sha256:{hashlib.sha256(manifest).hexdigest()}")
PYTHON
}

declare -A digests
for image in engine:oci control_plane:docker unsigned:docker-single; do
  name=${image%:*}
  rm -rf "image-$name"
  digests[$name]=$(make_image "$name" "image-$name" "${image#*:}")
done

put() {
  skopeo copy --quiet --all --preserve-digests --dest-tls-verify=false "dir:image-$1" "docker://127.0.0.1:5000/$2"
  [[ $1 == unsigned ]] ||
    cosign sign --yes --key cosign.key --tlog-upload=false "127.0.0.1:5000/${2%:*}@${digests[$1]}" >/dev/null 2>&1
}

put engine engine:1
put unsigned policies:1
for name in flannel:v0.28.9 flannel-cni-plugin:v1.9.1-flannel3; do put control_plane "$name"; done
for name in "$@"; do put control_plane "k8s/$name"; done
printf '{"engine": "%s", "control_plane": "%s", "unsigned": "%s"}\n' "${digests[engine]}" "${digests[control_plane]}" "${digests[unsigned]}" \
  >digests.json

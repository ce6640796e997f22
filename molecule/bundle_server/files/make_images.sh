#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# make_images.sh: three small images in an upstream registry on this host, and their digests as JSON. Two are signed with cosign and
# the key pair in /srv/upstream; the third is not. An image has a shell and what that needs, so that a container can run.
set -euo pipefail
cd /srv/upstream
export COSIGN_PASSWORD=simulated
[[ -e cosign.key ]] || cosign generate-key-pair >/dev/null 2>&1

make_image() {
  local name=$1 layout=$2
  python3 - "$name" "$layout" <<'PYTHON'
import hashlib
import io
import json
import pathlib
import gzip
import subprocess
import sys
import tarfile

name, layout = sys.argv[1], pathlib.Path(sys.argv[2])
blobs = layout / "blobs/sha256"
blobs.mkdir(parents=True)


def blob(content: bytes) -> dict:
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
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
image = "application/vnd.oci.image"
manifest = blob(json.dumps({
    "schemaVersion": 2, "mediaType": f"{image}.manifest.v1+json",
    "config": {"mediaType": f"{image}.config.v1+json", **config},
    "layers": [{"mediaType": f"{image}.layer.v1.tar+gzip", **layer}],
}).encode())
# As images of several platforms have it.
index = blob(json.dumps({
    "schemaVersion": 2, "mediaType": f"{image}.index.v1+json",
    "manifests": [{"mediaType": f"{image}.manifest.v1+json", **manifest, "platform": {"architecture": "amd64", "os": "linux"}}],
}).encode())
(layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
(layout / "index.json").write_text(json.dumps({
    "schemaVersion": 2,
    "manifests": [{"mediaType": f"{image}.index.v1+json", **index, "annotations": {"org.opencontainers.image.ref.name": "image"}}],
}))
print(index["digest"])
PYTHON
}

declare -A digests
for name in engine control_plane unsigned; do
  rm -rf "layout-$name"
  digests[$name]=$(make_image "$name" "layout-$name")
done

put() {
  skopeo copy --quiet --all --preserve-digests --dest-tls-verify=false "oci:layout-$1:image" "docker://127.0.0.1:5000/$2"
  [[ $1 == unsigned ]] ||
    cosign sign --yes --key cosign.key --tlog-upload=false "127.0.0.1:5000/${2%:*}@${digests[$1]}" >/dev/null 2>&1
}

put engine engine:1
put unsigned policies:1
for name in flannel:v0.28.9 flannel-cni-plugin:v1.9.1-flannel3; do put control_plane "$name"; done
for name in "$@"; do put control_plane "k8s/$name"; done
printf '{"engine": "%s", "control_plane": "%s", "unsigned": "%s"}\n' "${digests[engine]}" "${digests[control_plane]}" "${digests[unsigned]}" \
  >digests.json

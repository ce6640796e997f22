#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have a pinned image in a host's Docker engine, or in its containerd."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_image
short_description: Have a pinned image in a host's Docker engine, or in its containerd
version_added: 0.1.0
description:
  - Looks for the image and, only if it isn't there, pulls it by digest or loads it from an archive whose checksum is
    verified first. One round trip, whichever it is.
  - In containerd the image has the name that kubelet asks for, in the namespace C(k8s.io), and is pinned, so that
    kubelet does not remove it where the disk is nearly full. Only archives are brought there; kubelet itself pulls what
    is named with a digest.
  - Needs only Python's standard library on the host.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  reference:
    description:
      - The image's name. It must contain a digest, C(name:tag@sha256:...), unless O(archive) or O(id) pins it.
    type: str
    required: true
  archive:
    description:
      - Archive made by C(docker save), at V(file://) on the host or V(http(s)://). Used instead of a registry.
    type: str
  archive_sha256:
    description:
      - The archive's digest. Required with O(archive).
    type: str
  id:
    description:
      - The image's id as the engine shows it. Saves a look into the records and is compared after loading or pulling.
      - An engine that uses containerd's image store names images by the digest of their manifest, any other one by the
        digest of their configuration.
    type: str
  engine:
    description:
      - Whose image it is to be. V(containerd) takes an O(archive), and finds C(ctr) by the search path.
    type: str
    choices: [docker, containerd]
    default: docker
  fetch:
    description:
      - Whether an image that isn't there is brought in. With V(false) the module only looks.
    type: bool
    default: true
  docker_socket:
    description:
      - The Docker engine's socket.
    type: path
    default: /var/run/docker.sock
  records_directory:
    description:
      - Where the module notes which archive became which image.
    type: path
    default: /var/lib/gpufleet/images
  download_directory:
    description:
      - Where an archive is kept between its download and its loading.
    type: path
    default: /var/lib/gpufleet/downloads
  client_config:
    description:
      - A Docker client's configuration with the registries' credentials, as C(docker login) leaves it.
    type: path
    default: /root/.docker/config.json
attributes:
  check_mode:
    description:
      - Says whether the image would be brought in, also on a host that has no Docker yet.
      - Fails if the archive isn't where it should be or doesn't fit on the disk; its digest is not looked at.
    support: full
  diff_mode:
    description: Shows where the image comes from.
    support: partial
"""

EXAMPLES = r"""
- name: Have the engine's image, from an archive that travels with the fleet
  gpufleet.metal.container_image:
    reference: vllm/vllm-openai:v0.32.0
    archive: file:///srv/media/images/vllm-openai.tar
    archive_sha256: 98a6514a15f5bd499b69f9e6be2b42c59dbaceec8db1db3f337a6f66546c481a
  register: image

- name: Have it from a registry
  gpufleet.metal.container_image:
    reference: vllm/vllm-openai:v0.32.0@sha256:98a6514a15f5bd499b69f9e6be2b42c59dbaceec8db1db3f337a6f66546c481a

- name: Have it where kubelet finds it, on a host that never pulls
  gpufleet.metal.container_image:
    engine: containerd
    reference: vllm/vllm-openai:v0.32.0
    archive: file:///srv/media/images/vllm-openai.tar
    archive_sha256: 98a6514a15f5bd499b69f9e6be2b42c59dbaceec8db1db3f337a6f66546c481a
"""

RETURN = r"""
image_id:
  description:
    - The image's id in the engine, in containerd the digest of its manifest. Null if it isn't there, in check mode or
      without O(fetch).
  type: str
  returned: success
came_from:
  description: V(engine) if it was there, else V(archive) or V(registry), where it came or would come from.
  type: str
  returned: success
engine_available:
  description: Whether an engine answered. Only in check mode it may not.
  type: bool
  returned: success
containers:
  description: Names of all containers of Docker that carry the label C(gpufleet.instance), by the label's value.
  type: dict
  returned: success
  sample: {tiny-llama-0: vllm-tiny-llama-0}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _containerd_images, _images
from ansible_collections.gpufleet.metal.plugins.module_utils._docker import DockerClient, DockerUnavailableError
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

LABEL = "gpufleet.instance"


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "reference": {"type": "str", "required": True},
        "archive": {"type": "str"},
        "archive_sha256": {"type": "str"},
        "id": {"type": "str"},
        "engine": {"type": "str", "choices": ["docker", "containerd"], "default": "docker"},
        "fetch": {"type": "bool", "default": True},
        "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
        "records_directory": {"type": "path", "default": "/var/lib/gpufleet/images"},
        "download_directory": {"type": "path", "default": "/var/lib/gpufleet/downloads"},
        "client_config": {"type": "path", "default": "/root/.docker/config.json"},
    }


def run(options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Bring the image in if it isn't there; returns the module's result."""
    want = _images.wanted(options["reference"], options["archive"], options["archive_sha256"], options["id"])
    try:
        store, containers = _of_containerd(options, want) if options["engine"] == "containerd" else _of_docker(options)
    except (DockerUnavailableError, _containerd_images.ContainerdUnavailableError):
        if not check_mode:
            raise
        if want.archive is not None:
            _images.needed_bytes(want)
        return {
            "changed": options["fetch"],
            "image_id": None,
            "came_from": _images.origin(want),
            "engine_available": False,
            "containers": {},
        }
    found = store.ensure(want, check_mode) if options["fetch"] else store.find(want)
    result: dict[str, Any] = {
        "changed": options["fetch"] and found.came_from != "engine",
        "image_id": found.image_id,
        "came_from": found.came_from,
        "engine_available": True,
        "containers": containers,
    }
    if result["changed"]:
        after = f"{options['reference']} from the {found.came_from} {options['archive'] or want.reference.registry}\n"
        result["diff"] = {"before_header": "image", "after_header": "image", "before": "", "after": after}
    return result


def _of_docker(options: dict[str, Any]) -> tuple[_images.Store, dict[str, str]]:
    """Return Docker's images, and the names of its containers by instance."""
    client = DockerClient(options["docker_socket"])
    store = _images.Store(client, options["records_directory"], options["download_directory"], options["client_config"])
    containers = {
        entry["Labels"][LABEL]: str(entry["Names"][0]).lstrip("/")
        for entry in client.containers(running_only=False)
        if LABEL in (entry.get("Labels") or {})
    }
    return store, containers


def _of_containerd(options: dict[str, Any], want: _images.Wanted) -> tuple[_images.Store, dict[str, str]]:
    """Return the images of a containerd that answers."""
    if want.archive is None:
        raise InvalidInputError(
            f"image {options['reference']!r}: the engine is containerd and archive is not set, wanted an archive: "
            "kubelet pulls the others"
        )
    client = _containerd_images.Containerd(want.reference)
    client.ping()
    places = (options["records_directory"], options["download_directory"], options["client_config"])
    return _images.Store(client, *places, room=_containerd_images.ROOM), {}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        result = run(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The variables that let every role take what it needs from a bundle's server, and from nowhere else. Pure.

They are the roles' own variables, with which any mirror is named: no role knows of bundles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import images
from .needs import FLANNEL_IMAGES


def bundle_variables(document: Mapping[str, Any], url: str, registry: str, ca: str | None = None) -> dict[str, Any]:
    """Return the variables by name.

    Args:
        document: bundle.json.
        url: where the bundle's files are served, such as http://bundle.example.org.
        registry: host and port of the registry, as it stands in the name of an image.
        ca: the authority, in PEM, that signed the registry's certificate; None where hosts trust it anyway.
    """
    base = f"{url.rstrip('/')}/packages"
    key = document["key_sha256"]
    kinds = {entry["name"] for entry in document["repositories"]}
    settings = document["settings"]
    variables: dict[str, Any] = {
        "bundle_url": url.rstrip("/"),
        "bundle_key_sha256": key,
        "bundle_systems": sorted(document["systems"]),
        "bundle_image_names": {
            name: _named(name, entry["digest"], registry) for entry in document["images"] for name in entry["names"]
        },
    }
    for role, kind, path in (
        ("docker", "docker", "docker"),
        ("docker_nvidia", "nvidia-container-toolkit", "nvidia-container-toolkit"),
        ("kubernetes", "kubernetes", "kubernetes"),
        ("nginx", "nginx", "nginx"),
        ("nvidia_driver", "nvidia-cuda", "nvidia"),
    ):
        if kind in kinds:
            variables[f"{role}_repository"] = f"{base}/{path}"
            variables[f"{role}_repository_key_sha256"] = key
        elif role != "nvidia_driver":
            # Its packages are among the distribution's, or the fleet does not take them.
            variables[f"{role}_repository"] = "distribution"
    if "nginx" in kinds:
        variables["nginx_repository_key_url"] = f"{base}/nginx/nginx_signing.key"
    for role in ("docker", "kubernetes", "nvidia_driver"):
        # The key lies where each repository has its own.
        if f"{role}_repository_key_sha256" in variables:
            variables[f"{role}_repository_key_url"] = None
    if document["engine_image"]:
        variables["vllm_image"] = {"reference": _inside(document["engine_image"], registry, document)}
    if ca is not None:
        variables["docker_registry_ca_certificates"] = {registry: ca}
    if document["kubernetes_version"]:
        upstream = images.known_registries([name for entry in document["images"] for name in entry["names"]])
        variables["kubernetes_image_repository"] = (
            f"{registry}/{images.inside(settings['kubernetes_image_repository'])}"
        )
        variables["kubernetes_registries"] = [
            {"registry": registry, "url": f"https://{registry}", "ca_certificate": ca},
            *(
                {"registry": name, "url": f"https://{registry}/v2/{images.inside(name)}", "ca_certificate": ca}
                for name in upstream
            ),
        ]
        variables["flannel_manifest_path"] = None
        variables["flannel_manifest_url"] = f"{url.rstrip('/')}/files/kube-flannel.yml"
        variables["flannel_images"] = {
            name: _inside(settings["flannel_images"][name], registry, document) for name in FLANNEL_IMAGES
        }
        for name in ("kubernetes_serving_network_policies_image", "kubernetes_serving_device_plugin_image"):
            if settings[name]:
                variables[name] = _inside(settings[name], registry, document)
    return variables


def _inside(reference: str, registry: str, document: Mapping[str, Any]) -> str:
    """Return a reference's name inside, with the digest that the bundle has of it."""
    name = images.whole_name(reference)
    digest = name.digest or next(entry["digest"] for entry in document["images"] if name.tagged in entry["names"])
    return _named(name.tagged, digest, registry)


def _named(tagged: str, digest: str, registry: str) -> str:
    name = images.whole_name(tagged)
    tag = f":{name.tag}" if name.tag else ""
    return f"{registry}/{images.inside(name.repository)}{tag}@{digest}"

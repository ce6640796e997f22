# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What a fleet needs from outside: packages for each system, images by digest, files. Pure: nobody is asked.

What has no digest, or what hosts disagree about, is a finding. Nothing is downloaded while there is one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.findings import Finding

from . import images, packages

#: Variables of the roles that say where things come from, with the roles' defaults (a test compares them). Where hosts
#: differ in one, one bundle cannot serve all of them.
SETTINGS: dict[str, Any] = {
    "docker_repository": "vendor",
    "docker_repository_key_url": None,
    "docker_repository_key_sha256": "1500c1f56fa9e26b9b8f42452a553675796ade0807cdce11975eb98170b3a570",
    "docker_version": None,
    "docker_nvidia_repository": "vendor",
    "docker_nvidia_repository_key_sha256": "c880576d6cf75a48e5027a871bac70fd0421ab07d2b55f30877b21f1c87959c9",
    "docker_nvidia_toolkit_version": "1.20.0-1",
    "kubernetes_repository": "vendor",
    "kubernetes_repository_key_url": None,
    "kubernetes_repository_key_sha256": None,
    "kubernetes_image_repository": "registry.k8s.io",
    "nginx_repository": "vendor",
    "nginx_repository_key_url": "https://nginx.org/keys/nginx_signing.key",
    "nginx_repository_key_sha256": "55385da31d198fa6a5012d40ae98ecb272a6c4e8fffffba94719ffd3e87de37a",
    "nginx_authentication": [],
    "nvidia_driver_repository_key_url": None,
    "nvidia_driver_repository_key_sha256": None,
    "nvidia_driver_compute_only": False,
    "nvidia_driver_dcgm": False,
    "nvidia_driver_dcgm_version": "4.6",
    "flannel_manifest_path": None,
    "flannel_manifest_url": "https://raw.githubusercontent.com/flannel-io/flannel/v0.28.9/Documentation/kube-flannel.yml",
    "flannel_manifest_sha256": "e875824be2f552b45711dbda91af81b17eb961d00025d914d9fef18fad8f09c0",
    "flannel_images": {},
    "kubernetes_serving_network_policies_image": None,
    "kubernetes_serving_device_plugin_image": None,
}
FLANNEL_IMAGES = ("flannel", "flannel-cni-plugin")
#: Images of kubeadm that carry the version of Kubernetes. etcd, CoreDNS and pause have versions of their own, which
#: change with a patch of Kubernetes, and which kubeadm alone knows.
KUBEADM_IMAGES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
#: Which system's packages a bundle can hold so far.
DISTRIBUTIONS = ("debian", "ubuntu")
OPTIONS: dict[str, Any] = {
    "images": [],
    "image_digests": {},
    "image_sources": {},
    "unsigned_images": [],
    "packages": [],
    "kernels": [],
    "files": {},
    "signed": False,
}
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def settings_of(variables: Mapping[str, Mapping[str, Any]], hosts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what the inventory says of SETTINGS for each host. C(hostvars) are templated as they are read."""
    return {
        host: {name: variables[host][name] for name in SETTINGS if name in variables[host]}
        for host in hosts
        if host in variables
    }


class _Report:
    """Collects findings about the fleet."""

    def __init__(self, fleet: str) -> None:
        self._fleet = fleet
        self.findings: list[Finding] = []

    def add(self, code: str, found: str, wanted: str, fix: str) -> None:
        self.findings.append(Finding(self._fleet, code, found, wanted, fix, "fleet"))


def needs(
    plan: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any],
    systems: Mapping[str, Mapping[str, str]],
    driver_rows: Mapping[str, Sequence[Mapping[str, Any]]],
    kubeadm: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return what the bundle of a fleet holds, and what keeps it from being built.

    Args:
        plan: the fleet's plan.
        settings: what settings_of returned.
        options: the playbook's variables, without their prefix.
        systems: by builder its ``distribution``, ``version``, ``release`` and ``machine``, as facts say them.
        driver_rows: by distribution the rows of the role nvidia_driver, as its variables have them.
        kubeadm: what ``kubeadm config images list`` says; None while its package is not there yet.

    Raises:
        InvalidInputError: an option does not exist.
    """
    whole = _options(options)
    report = _Report(str(plan["fleet"]))
    common = _common(plan, settings, report)
    wanted = _wanted(plan)
    found_systems = {
        builder: packages.system_of(facts["distribution"], facts["version"], facts["release"], facts["machine"])
        for builder, facts in systems.items()
    }
    _check_systems(found_systems, report)
    _check_kernels(wanted, whole, report)
    result_systems = {}
    for builder, system in sorted(found_systems.items()):
        if system.distribution not in DISTRIBUTIONS:
            continue
        rows = driver_rows.get(system.distribution, ())
        result_systems[builder] = {
            "name": system.name,
            "architecture": system.architecture,
            "repositories": [entry.as_dict() for entry in packages.repositories(system, wanted, common)],
            "sets": packages.package_sets(
                system, wanted, common, whole["kernels"], rows, whole["packages"], whole["signed"]
            ),
        }
    return {
        "systems": result_systems,
        "images": _images(plan, common, whole, kubeadm, report),
        "engine_image": _engine_image(plan),
        "kubernetes_version": wanted.kubernetes,
        "files": _files(wanted, common, whole, report),
        "settings": common,
        "findings": [finding.as_dict() for finding in report.findings],
    }


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    for name in options:
        if name not in OPTIONS:
            close = difflib.get_close_matches(name, OPTIONS, n=1)
            hint = f" (did you mean bundle_{close[0]}?)" if close else ""
            raise InvalidInputError(f"bundle_{name} is no option of a bundle{hint}")
    return {name: options.get(name) or default for name, default in OPTIONS.items()}


def _matters(name: str, host: Mapping[str, Any]) -> bool:
    """Whether a host has the role whose variable this is: what the others say of it is nobody's wish."""
    cluster = host.get("kubernetes")
    if name.startswith("docker_nvidia_"):
        return bool(host.get("accelerator") == "cuda")
    if name.startswith("docker_"):
        return cluster is not None or host["group"] == "gpu_nodes"
    if name.startswith("nginx_"):
        return bool(host["group"] == "gateways")
    if name.startswith("nvidia_driver_"):
        return host.get("driver") is not None
    if name.startswith(("flannel_", "kubernetes_serving_")):
        return cluster is not None and cluster["role"] == "control_plane"
    return cluster is not None


def _common(plan: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]], report: _Report) -> dict[str, Any]:
    """Return one value for each setting; hosts that differ are a finding."""
    result = {}
    for name, default in SETTINGS.items():
        values: list[Any] = []
        hosts: list[str] = []
        for host in sorted(host for host in settings if _matters(name, plan["hosts"][host])):
            value = settings[host].get(name, default)
            if value not in values:
                values.append(value)
                hosts.append(host)
        result[name] = values[0] if values else default
        if len(values) > 1:
            found = ", ".join(f"{value!r} on {host}" for host, value in zip(hosts, values, strict=True))
            report.add(
                "bundle_values_differ",
                f"{name} is {found}",
                "one value",
                f"Set {name} for all hosts, or build two bundles.",
            )
    return result


def _wanted(plan: Mapping[str, Any]) -> packages.Wanted:
    wanted = packages.Wanted()
    for _name, host in sorted(plan["hosts"].items()):
        cluster = host.get("kubernetes")
        if cluster is not None:
            wanted.containerd = True
            wanted.kubernetes = cluster["version"]
            wanted.control_planes = wanted.control_planes or cluster["role"] == "control_plane"
            wanted.virtual_address = wanted.virtual_address or cluster.get("virtual_address") is not None
        elif host["group"] == "gpu_nodes":
            wanted.engines = True
        wanted.gateways = wanted.gateways or host["group"] == "gateways"
        wanted.monitoring = wanted.monitoring or host["group"] == "monitoring"
        wanted.toolkit = wanted.toolkit or host.get("accelerator") == "cuda"
        driver = host.get("driver")
        if driver is not None:
            kept = {key: driver[key] for key in ("branch", "version", "kernel_module", "components", "repository")}
            if kept not in wanted.drivers:
                wanted.drivers.append(kept)
    return wanted


def _check_systems(systems: Mapping[str, packages.System], report: _Report) -> None:
    by_name: dict[str, str] = {}
    for builder, system in sorted(systems.items()):
        if system.distribution not in DISTRIBUTIONS:
            report.add(
                "bundle_system_unsupported",
                f"the builder {builder} is {system.name}",
                "Debian or Ubuntu",
                "Take it out of bundle_builders: packages of other distributions are not bundled yet.",
            )
        elif system.name in by_name:
            report.add(
                "bundle_system_twice",
                f"the builders {by_name[system.name]} and {builder} are both {system.name}",
                "one builder for each release",
                f"Take {builder} out of bundle_builders.",
            )
        by_name.setdefault(system.name, builder)


def _check_kernels(wanted: packages.Wanted, options: Mapping[str, Any], report: _Report) -> None:
    managed = [driver for driver in wanted.drivers if driver["repository"] != "unmanaged"]
    if managed and not options["kernels"]:
        report.add(
            "bundle_kernels_missing",
            "bundle_kernels is empty",
            "the kernels that the GPU nodes run",
            "Set bundle_kernels to what `uname -r` says on them: the driver is built against that kernel's headers.",
        )


def _engine_image(plan: Mapping[str, Any]) -> str | None:
    """Return the one image that all engines of Docker run from, where a registry and no archive has it."""
    found = {
        (part["image"]["reference"], part["image"]["archive"])
        for part in plan["hosts"].values()
        if part.get("image") and part.get("instances") and part["kubernetes"] is None
    }
    reference, archive = found.pop() if len(found) == 1 else (None, None)
    return reference if archive is None else None


def _images(
    plan: Mapping[str, Any],
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
    kubeadm: Sequence[str] | None,
    report: _Report,
) -> list[dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}

    def add(reference: str, variable: str) -> None:
        name = images.whole_name(reference)
        digest = name.digest or options["image_digests"].get(reference) or options["image_digests"].get(name.tagged)
        if digest is None:
            report.add(
                "bundle_image_without_digest",
                f"{variable} has {reference}, without a digest",
                "a digest",
                f"Give it there, or in bundle_image_digests under {name.tagged!r}. "
                f"`skopeo inspect --format '{{{{.Digest}}}}' docker://{name.tagged}` says it.",
            )
            return
        images.require_digest(digest, f"the digest of {reference} ({variable})")
        tagged = [
            name.tagged,
            *(f"{alias}:{name.tag}" if name.tag else alias for alias in images.aliases(name.repository)),
        ]
        entry = entries.setdefault(
            digest,
            {
                "digest": digest,
                "names": [],
                "source": images.source_of(name.repository, options["image_sources"]),
                "place": images.place(digest),
                "signed": bool(options["signed"]),
            },
        )
        entry["names"] = sorted({*entry["names"], *tagged})
        unsigned = {images.whole_name(text).tagged for text in options["unsigned_images"]}
        entry["signed"] = entry["signed"] and name.tagged not in unsigned and name.repository not in unsigned

    for _host, part in sorted(plan["hosts"].items()):
        image = part.get("image")
        # An archive travels as a file: the operator brings it to where fleet_engine.image.archive says.
        if image and image["reference"] and not image["archive"] and part.get("instances"):
            add(image["reference"], "fleet_engine.image.reference")
    if plan["kubernetes"] is not None:
        for reference in kubeadm if kubeadm is not None else _kubeadm_images(plan, settings):
            add(reference, f"kubernetes_version {plan['kubernetes']['version']}")
        for name in FLANNEL_IMAGES:
            if name in settings["flannel_images"]:
                add(settings["flannel_images"][name], f"flannel_images.{name}")
            else:
                _missing(report, f"flannel_images has no {name}", f"flannel_images.{name}")
        gpus = any(part.get("accelerator") == "cuda" and part.get("kubernetes") for part in plan["hosts"].values())
        for variable, applies in (
            ("kubernetes_serving_network_policies_image", True),
            ("kubernetes_serving_device_plugin_image", gpus),
        ):
            if applies and settings[variable]:
                add(settings[variable], variable)
            elif applies:
                _missing(report, f"{variable} is not set", variable)
    for reference in options["images"]:
        add(reference, "bundle_images")
    return sorted(entries.values(), key=lambda entry: (entry["names"], entry["digest"]))


def _kubeadm_images(plan: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    version = plan["kubernetes"]["version"]
    return [f"{settings['kubernetes_image_repository']}/{name}:v{version}" for name in KUBEADM_IMAGES]


def _missing(report: _Report, found: str, variable: str) -> None:
    report.add(
        "bundle_image_missing", found, "an image with its digest", f"Set {variable}; a cluster does not run without it."
    )


def _files(
    wanted: packages.Wanted, settings: Mapping[str, Any], options: Mapping[str, Any], report: _Report
) -> list[dict[str, Any]]:
    """Return the files that are carried as they are: their name, where from, and their digest."""
    files = {}
    if wanted.kubernetes:
        files["kube-flannel.yml"] = {
            "path": settings["flannel_manifest_path"],
            "url": settings["flannel_manifest_url"],
            "sha256": settings["flannel_manifest_sha256"],
        }
    for name, entry in sorted(options["files"].items()):
        sha256 = str(entry.get("sha256") or "")
        if not _FILE_NAME.fullmatch(name) or bool(entry.get("path")) == bool(entry.get("url")):
            report.add(
                "bundle_file_wrong",
                f"bundle_files has {name!r} with {', '.join(sorted(entry)) or 'nothing'}",
                "a plain file name with path or url, and sha256",
                "Correct bundle_files.",
            )
        elif not _SHA256.fullmatch(sha256):
            report.add(
                "bundle_file_without_digest",
                f"bundle_files.{name} has the sha256 {sha256!r}",
                "64 hex digits",
                f"Set bundle_files.{name}.sha256 to what `sha256sum` says.",
            )
        else:
            files[name] = {"path": entry.get("path"), "url": entry.get("url"), "sha256": sha256}
    return [{"name": name, **entry} for name, entry in sorted(files.items())]

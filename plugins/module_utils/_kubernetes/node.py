# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Judge what a host of Kubernetes is: before anything is changed (findings), and after all is done (faults).

Both take what the module kubernetes_info returns. All of it is pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import containerd, kubeadm

Finding = dict[str, str]

MODULES = ("overlay", "br_netfilter", "nf_tables", "vxlan", "nft_queue", "nfnetlink_queue")
"""What containerd, the bridge of the pods, kube-proxy, Flannel and kube-network-policies need of the kernel.

Without a queue the last one runs, is ready, and enforces nothing.
"""

LOADED_MODULES = ("overlay", "br_netfilter")
"""Those that nobody loads by using them."""

SYSCTLS: Mapping[str, str] = {
    "net.ipv4.ip_forward": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
}
KERNEL_DEFAULTS: Mapping[str, str] = {
    "vm.overcommit_memory": "1",
    "vm.panic_on_oom": "0",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
    "kernel.keys.root_maxkeys": "1000000",
    "kernel.keys.root_maxbytes": "25000000",
}
"""What kubelet wants, and with protectKernelDefaults insists on instead of setting it."""

PORTS: Mapping[str, Mapping[int, str]] = {
    "control_plane": {
        6443: "the API server",
        2379: "etcd",
        2380: "etcd",
        10250: "kubelet",
        10257: "the controller manager",
        10259: "the scheduler",
    },
    "node": {10250: "kubelet"},
}
PACKAGES = ("kubelet", "kubeadm", "kubectl")
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
MANIFESTS = (*COMPONENTS, "etcd")


def sysctls(protect_kernel_defaults: bool) -> dict[str, str]:
    """Return the kernel's values that a host must have."""
    return {**SYSCTLS, **(KERNEL_DEFAULTS if protect_kernel_defaults else {})}


def _finding(host: str, code: str, found: str, wanted: str, fix: str) -> Finding:
    return {"host": host, "code": code, "found": found, "wanted": wanted, "fix": fix}


def preflight(host: str, info: Mapping[str, Any], told: kubeadm.Settings) -> list[Finding]:
    """Return every reason why a host cannot be a node, before anything is changed on it."""
    findings: list[Finding] = []
    for module in MODULES:
        if info["modules"].get(module) == "missing":
            findings.append(
                _finding(
                    host,
                    "kernel_module_missing",
                    f"no kernel module {module}, loaded, built in or to be loaded",
                    f"{module}, for Kubernetes",
                    "install the kernel's package that has it (linux-modules-extra on Ubuntu), and reboot",
                )
            )
    if info["swap"]:
        findings.append(
            _finding(
                host,
                "swap_on",
                f"swap on {', '.join(info['swap'])}",
                "no swap on a host of Kubernetes",
                "swapoff --all, and take it out of /etc/fstab (or mask the zram unit)",
            )
        )
    if info["cgroup_version"] == 1 and not told.cgroup_v1_allowed:
        findings.append(
            _finding(
                host,
                "cgroup_v1",
                "cgroup v1",
                f"cgroup v2, because kubelet {told.version} does not start on v1",
                "boot with systemd.unified_cgroup_hierarchy=1, or set kubernetes_cgroup_v1_allowed to true",
            )
        )
    family = "IPv6" if ":" in told.address else "IPv4"
    if info["member"] is None and family not in info["default_routes"]:
        findings.append(
            _finding(
                host,
                "default_route_missing",
                f"no default route for {family}",
                "one, though nobody answers there: without it the kernel refuses addresses of Services before "
                "kube-proxy sees them, and Flannel does not start",
                "add one by an address of the host's own network, also for the next boot",
            )
        )
    findings += _resolver_findings(host, info, told)
    # containerd comes with the role docker; a host that has none yet has no wrong one.
    if info["containerd"]["version"]:
        for fault in containerd.version_faults(info["containerd"]["version"], told.version):
            found, __, fix = fault.partition(": ")
            findings.append(_finding(host, "containerd_too_old", found, "a containerd that this Kubernetes takes", fix))
    if info["docker_engine"]:
        findings.append(
            _finding(
                host,
                "docker_engine_beside_kubernetes",
                "a Docker engine runs",
                "containerd alone: the engine's own rules drop what is forwarded to pods",
                "drain the host, remove docker-ce (or docker.io), and reboot",
            )
        )
    return findings + _membership_findings(host, info, told)


def obstacles(findings: Iterable[Finding]) -> list[str]:
    """Return findings as the sentences of a role's message."""
    return [f"{item['found']}, wanted {item['wanted']}: {item['fix']}" for item in findings]


def _membership_findings(host: str, info: Mapping[str, Any], told: kubeadm.Settings) -> list[Finding]:
    member = info["member"]
    installed = info["packages"].get("kubelet", {}).get("version")
    if member is None and info["unfinished"]:
        # What listens is its own: kubelet and the control plane run while the init or join that began them is not done.
        return []
    if member is None:
        return [
            _finding(
                host,
                "port_in_use",
                f"{process or 'somebody'} listens on port {port}",
                f"a free port {port}, for {what}",
                "stop it, or move it to another port",
            )
            for port, what in PORTS[told.role].items()
            for process in [info["listeners"].get(str(port))]
            if process is not None
        ]
    if member["role"] != told.role:
        return [
            _finding(
                host,
                "kubernetes_role_differs",
                f"the host is a {member['role'].replace('_', ' ')} of a cluster",
                f"a {told.role.replace('_', ' ')}",
                "run reset_kubernetes_node for it first, or put it back into its group",
            )
        ]
    if installed and not same_version(installed, told.version):
        return [
            _finding(
                host,
                "kubernetes_version_differs",
                f"kubelet {installed} in a cluster",
                told.version,
                "run gpufleet.metal.upgrade_kubernetes, or set fleet_kubernetes.version (kubernetes_version) to what "
                "runs",
            )
        ]
    return []


def _resolver_findings(host: str, info: Mapping[str, Any], told: kubeadm.Settings) -> list[Finding]:
    """CoreDNS asks whom the host asks; a resolver on the host itself would ask CoreDNS again, without end."""
    resolver = info["resolver"]
    path = told.resolv_conf or resolver["path"]
    if not resolver["exists"]:
        return [
            _finding(
                host,
                "resolver_file_missing",
                f"no file {path}",
                "a file with name servers, for kubelet",
                "set kubernetes_resolv_conf to one that is there",
            )
        ]
    servers = resolver["nameservers"]
    outer = [server for server in servers if not _is_loopback(server)]
    if outer:
        return []
    return [
        _finding(
            host,
            "resolver_is_loopback",
            f"{path} has {', '.join(servers) or 'no name server'}",
            "a name server that pods can reach",
            "set kubernetes_resolv_conf to a file with one, such as /run/systemd/resolve/resolv.conf",
        )
    ]


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False


def same_version(installed: str, wanted: str) -> bool:
    """Whether a package's version (1.36.4-1.1) is the wanted one (1.36.4)."""
    return installed.split(":")[-1].split("-")[0] == wanted


def shortfalls(info: Mapping[str, Any], names: Sequence[str], version: str) -> list[str]:
    """Return the packages that are not there, or not of the wanted version."""
    return [
        name
        for name in names
        if name not in info["packages"]
        or (name in PACKAGES and not same_version(info["packages"][name]["version"], version))
    ]


def _package_faults(info: Mapping[str, Any], names: Iterable[str], version: str) -> list[str]:
    found = []
    for name in names:
        package = info["packages"].get(name)
        if package is None:
            found.append(f"{name} is not installed")
            continue
        if name in PACKAGES and not same_version(package["version"], version):
            found.append(f"{name} is {package['version']}, wanted {version}")
        if not package["held"]:
            found.append(f"{name} is not held, so that an update of the system would replace it")
    return found


def verify(
    info: Mapping[str, Any],
    told: kubeadm.Settings,
    names: Sequence[str],
    days_left: int,
    containerd_text: str,
    node: Mapping[str, Any] | None,
) -> list[str]:
    """Return what is not as promised on a host that is done.

    ``node`` is what the API says of it, None where it says nothing.
    """
    found = _package_faults(info, names, told.version)
    found += [
        f"{name} is {info['sysctls'].get(name, 'not there')}, wanted {value}"
        for name, value in sysctls(told.protect_kernel_defaults).items()
        if info["sysctls"].get(name) != value
    ]
    found += [f"swap is on: {', '.join(info['swap'])}"] if info["swap"] else []
    if not info["containerd"]["active"]:
        found.append("containerd.service does not run")
    if info["containerd"]["configuration"] != containerd_text:
        found.append(f"{containerd.CONFIGURATION} is not what the role writes")
    if info["containerd"]["stale"]:
        found.append(f"containerd runs with an older {containerd.CONFIGURATION}: it has to be restarted")
    if info["unfinished"]:
        found.append(f"a {info['unfinished']} was interrupted and not completed: run the stage again")
    if info.get("upgrade"):
        found.append(f"an upgrade to {info['upgrade']['version']} was interrupted: run upgrade_kubernetes again")
    if info.get("renewing"):
        found.append("a renewal of certificates was interrupted: run renew_kubernetes_certificates again")
    if info["member"] is None:
        return [*found, "the host belongs to no cluster"]
    if info["member"]["role"] != told.role:
        found.append(f"the host is a {info['member']['role']}, wanted a {told.role}")
    kubelet = info["kubelet"]
    if not (kubelet["active"] and kubelet["enabled"]):
        found.append("kubelet.service is not both running and enabled")
    if kubelet["healthz"] != "ok":
        found.append(f"kubelet answers {kubelet['healthz']} at /healthz, wanted ok")
    if kubelet["cgroup_driver"] != told.cgroup_driver:
        found.append(
            f"kubelet's cgroup driver is {kubelet['cgroup_driver']}, wanted {told.cgroup_driver}, as containerd's"
        )
    found += [f"{path} has mode {mode}, wanted 0600" for path, mode in sorted(info["modes"].items()) if mode != "0600"]
    found += [f"{path} holds a secret of a join, wanted it gone" for path in info["leftover_secrets"]]
    found += [
        f"{path} ends in {left} days, wanted {days_left} or more: renew the certificates"
        for path, left in sorted(info["certificate_days"].items())
        if left < days_left
    ]
    if told.role == "control_plane":
        found += _control_plane_faults(info, told)
    return found + _registration_faults(node, told)


def _control_plane_faults(info: Mapping[str, Any], told: kubeadm.Settings) -> list[str]:
    manifests: Mapping[str, Any] = info["manifests"]
    found = [f"the static Pod {name} has no manifest" for name in MANIFESTS if name not in manifests]
    for component in COMPONENTS:
        if component in manifests:
            found += kubeadm.manifest_faults(manifests[component], component, told)
    if info["readyz"] != "ok":
        found.append(f"the API server answers {info['readyz']} at /readyz, wanted ok")
    return found


def _registration_faults(node: Mapping[str, Any] | None, told: kubeadm.Settings) -> list[str]:
    if node is None:
        return [f"the cluster has no node {told.node_name}"]
    found = []
    version = node["status"]["nodeInfo"]["kubeletVersion"]
    if version != f"v{told.version}":
        found.append(f"the cluster sees kubelet {version}, wanted v{told.version}")
    labels = node["metadata"].get("labels", {})
    found += [
        f"the node's label {name} is {labels.get(name, 'not set')}, wanted {value}"
        for name, value in sorted(told.labels.items())
        if labels.get(name) != value
    ]
    addresses = [item["address"] for item in node["status"].get("addresses", []) if item["type"] == "InternalIP"]
    if told.address not in addresses:
        found.append(f"the node's address is {', '.join(addresses) or 'not known'}, wanted {told.address}")
    return found

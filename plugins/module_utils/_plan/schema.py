# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The words of the user's inventory as data, and the variables that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from .findings import Finding

#: Variables of the whole fleet, normally in group_vars/all.
FLEET_VARIABLES = (
    "fleet_driver",
    "fleet_endpoint",
    "fleet_engine",
    "fleet_kubernetes",
    "fleet_management_networks",
    "fleet_model_facts",
    "fleet_models",
    "fleet_models_directory",
    "fleet_monitoring",
    "fleet_name",
    "fleet_plan_keep",
)

#: Variables of one host that start with ``fleet_``.
HOST_FLEET_VARIABLES = ("fleet_address", "fleet_driver_override")

#: Everything that the plan reads of one host.
HOST_VARIABLES = (
    "ansible_host",
    "ansible_port",
    "docker_address_pools",
    "fleet_address",
    "fleet_driver_override",
    "gpu_inventory",
    "nvidia_driver_mig",
)

#: Variables that start with ``fleet_`` and belong to the playbooks, not to the plan.
PLAYBOOK_VARIABLES = (
    "fleet_directory",
    "fleet_nvml_library",
    "fleet_plan",
    "fleet_plan_directory",
    "fleet_secret_recipients",
    "fleet_secret_store",
    "fleet_secrets",
    "fleet_sysfs_root",
)

GROUPS = ("gateways", "gpu_nodes", "kube_control_plane", "kube_nodes", "monitoring")

DEFAULT_FLEET_NAME = "gpufleet"

DEFAULT_MODELS_DIRECTORY = "/srv/models"


@dataclass(frozen=True)
class Autoscaling:
    """``fleet_models[].autoscaling``: which of a model's instances in the cluster run only while requests wait."""

    #: Instances of the cluster that always run.
    minimum: int = 1
    #: For each so many requests that wait where it always runs, one further instance is started.
    waiting_requests: int = 4
    #: How long one that is no longer needed goes on.
    cool_down_seconds: int = 1800


@dataclass(frozen=True)
class Model:
    """An entry of ``fleet_models``: what the user wants served."""

    name: str
    source: dict[str, Any]
    files_sha256: dict[str, str]
    config: dict[str, Any]
    #: Bytes of the weights as they lie on the GPU.
    weights_bytes: int
    #: Where config and weights_bytes come from: ``given``, ``recorded`` or ``bundled``.
    facts: str
    #: Tokens.
    context_length: int
    #: Requests of full length that one instance holds at once.
    concurrency: int
    #: None stands for ``auto``.
    tensor_parallel_size: int | None
    replicas: int | None
    quantization: str | None
    minimum_compute_capability: tuple[int, int] | None
    arguments: dict[str, Any]
    #: Tokens that one request may have generated; None is no cap but the context.
    max_output_tokens: int | None = None
    autoscaling: Autoscaling | None = None
    #: Hosts of one instance: each holds a part of the layers, on ``tensor_parallel_size`` GPUs.
    pipeline_parallel_size: int = 1


@dataclass(frozen=True)
class Image:
    """The engine's container image."""

    reference: str
    archive: str | None
    archive_sha256: str | None
    id: str | None

    def as_dict(self) -> dict[str, str | None]:
        """Return the image as the plan shows it."""
        return {
            "reference": self.reference,
            "archive": self.archive,
            "archive_sha256": self.archive_sha256,
            "id": self.id,
        }


@dataclass(frozen=True)
class Engine:
    """``fleet_engine``: how instances are run."""

    image: Image | None
    accelerator: str = "cuda"
    base_port: int = 8000
    gpu_memory_utilization: float = 0.92
    cpu_kv_cache_gib: int = 1
    shutdown_timeout_seconds: int = 120
    shm_size_gib: int = 10
    #: One of engine_tls.MODES.
    tls: str = "none"


@dataclass(frozen=True)
class Endpoint:
    """``fleet_endpoint``: what clients connect to."""

    hostname: str
    port: int = 443
    alternative_names: tuple[str, ...] = ()
    default_model: str | None = None


class GpuKind(NamedTuple):
    """GPUs that are interchangeable."""

    product: str
    memory_mib: int
    compute_capability: tuple[int, int]


@dataclass(frozen=True)
class Gpu:
    """One GPU of a host's recorded hardware."""

    pci_address: str
    #: Place among the host's GPUs in the order of PCI addresses, as NVML and nvidia-smi count.
    index: int
    device_id: str
    product: str
    uuid: str | None
    memory_mib: int
    compute_capability: tuple[int, int]
    numa_node: int
    nvlink_peers: tuple[str, ...]
    #: False when neither a driver nor the catalogue tells which GPUs NVLink joins it with: that is not "none".
    nvlink_known: bool = True
    #: What nvidia_driver_mig wants of a GPU that no instance is put on: ``split``, or ``whole`` again; else None.
    mig: str | None = None

    @cached_property
    def kind(self) -> GpuKind:
        """What a GPU must share with another to be interchangeable with it."""
        return GpuKind(self.product, self.memory_mib, self.compute_capability)

    @property
    def memory_bytes(self) -> int:
        """Memory in bytes."""
        return self.memory_mib * 1024 * 1024


@dataclass(frozen=True)
class Host:
    """A host of the fleet, as far as the plan knows it."""

    name: str
    group: str
    #: None when it is missing or wrong, which is a finding.
    address: str | None
    ssh_ports: tuple[int, ...]
    gpus: tuple[Gpu, ...] = ()
    #: False when the recorded hardware could not be used, which is a finding.
    hardware_known: bool = True
    #: What it is in the cluster: ``control_plane``, ``node``, or nothing. Of a GPU node it has the engines.
    kube_role: str | None = None

    @property
    def backend(self) -> str:
        """What runs the host's engines."""
        return "kubernetes" if self.kube_role else "docker"


@dataclass(frozen=True)
class Cluster:
    """``fleet_kubernetes`` and the hosts of its groups."""

    version: str
    minor: str
    #: Where everybody reaches the API server; None when it is missing, which is a finding.
    address: str | None
    port: int
    #: A further name in the API server's certificate.
    name: str | None
    #: An address that moves between the control planes; None where the only one answers at its own.
    virtual_address: str | None
    pod_network: str
    service_network: str
    flannel_backend: str
    namespace: str
    #: Where KEDA runs, which starts and stops the instances that do not always run.
    autoscaler_namespace: str
    #: Networks from which the cluster's hosts come, with those that are to come; none: their addresses one by one.
    host_networks: tuple[str, ...]
    control_plane: tuple[Host, ...]
    nodes: tuple[Host, ...]


@dataclass(frozen=True)
class Monitoring:
    """``fleet_monitoring`` and the hosts of the group ``monitoring``."""

    #: Where node_exporter listens on every host.
    exporter_port: int
    hosts: tuple[Host, ...]


@dataclass(frozen=True)
class Fleet:
    """All that the inventory says."""

    name: str
    management_networks: tuple[str, ...]
    models_directory: str
    models: tuple[Model, ...]
    engine: Engine | None
    endpoint: Endpoint | None
    hosts: tuple[Host, ...]
    #: None where no host is in a group of Kubernetes.
    cluster: Cluster | None = None
    #: None where nobody watches.
    monitoring: Monitoring | None = None
    #: ``fleet_plan_keep``: what runs stays where it is.
    keep: bool = True
    findings: tuple[Finding, ...] = field(default=())


@dataclass(frozen=True)
class Inventory:
    """What the action plugin hands over: plain data, nothing templated lazily, nothing tagged."""

    #: Names of hosts per group; only GROUPS are read.
    groups: Mapping[str, Sequence[str]]
    #: Values of FLEET_VARIABLES, as far as they are set.
    variables: Mapping[str, Any]
    #: Values of HOST_VARIABLES per host, as far as they are set.
    hosts: Mapping[str, Mapping[str, Any]]
    #: Every variable whose name starts with ``fleet_``, with the hosts that see it.
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: Fleet variables that two hosts see with different values: name -> those two hosts.
    conflicts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: Variables that could not be templated: (host, name) -> the reason.
    broken: Mapping[tuple[str, str], str] = field(default_factory=dict)
    #: The last applied plan, as applied.read_applied returns it; None when nothing was applied yet.
    applied: Mapping[str, Any] | None = None

# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The shape of plan.json as a JSON Schema (2020-12): docs/plan.schema.json is written from here.

Every object names all of its keys, so that a key that nobody described is an error of the tests.
"""

from __future__ import annotations

from typing import Any

from .cluster import BACKENDS
from .engine_tls import MODES
from .findings import KINDS
from .flows import PROTOCOLS, SOURCES
from .memory import BINDINGS
from .mig import SPLIT, WHOLE

#: Version of the plan's structure.
SCHEMA = 1

_Schema = dict[str, Any]


def _text(description: str = "", **more: Any) -> _Schema:
    return {"type": "string", **({"description": description} if description else {}), **more}


def _whole(description: str = "", minimum: int = 0, **more: Any) -> _Schema:
    return {"type": "integer", "minimum": minimum, **({"description": description} if description else {}), **more}


def _list(items: _Schema, description: str = "", **more: Any) -> _Schema:
    return {"type": "array", "items": items, **({"description": description} if description else {}), **more}


def _object(properties: dict[str, _Schema], description: str = "", optional: tuple[str, ...] = ()) -> _Schema:
    return {
        "type": "object",
        **({"description": description} if description else {}),
        "properties": properties,
        "required": sorted(set(properties) - set(optional)),
        "additionalProperties": False,
    }


def _map(values: _Schema, description: str) -> _Schema:
    return {"type": "object", "description": description, "additionalProperties": values}


def _or_null(schema: _Schema) -> _Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/$defs/{name}"}


_ADDRESS = _or_null(_text("IP address; null after a finding"))
_PORT = _whole("TCP port", 1)
_SHA256 = _text("SHA-256 digest, hexadecimal", pattern="^[0-9a-f]{64}$")

_FINDING = _object(
    {
        "kind": _text("what host_or_model names", enum=list(KINDS)),
        "host_or_model": _text(),
        "code": _text("stable word for programs", pattern="^[a-z0-9_]+$"),
        "found": _text(),
        "wanted": _text(),
        "fix": _text(),
    },
    "a reason why the fleet cannot be as asked",
)

_MEMORY = _object(
    {
        "weights": _whole("bytes"),
        "replicated": _whole("bytes of the weights that every GPU holds whole"),
        "activations": _whole("bytes, estimated"),
        "runtime": _whole("bytes of CUDA context, graphs and NCCL, estimated"),
        "margin": _whole("bytes added to the two estimates"),
        "kv_cache": _whole("bytes for the wanted requests of full length"),
        "needed": _whole("bytes: weights, activations, runtime, margin and kv_cache"),
        "budget": _whole("bytes that vLLM may use"),
        "gpu_memory": _whole("bytes of one GPU", 1),
        "kv_bytes_per_token": _whole("bytes of a token in all layers, while it is within their windows"),
        "kv_cache_available": _whole("bytes"),
        "kv_cache_blocks": _whole("blocks, num_gpu_blocks of vLLM"),
        "kv_block_tokens": _whole("tokens of one block", 1),
        "kv_cache_tokens": _whole("tokens, as vLLM logs them"),
        "max_concurrency": {"type": "number", "minimum": 0, "description": "requests of full length at once"},
    },
    "per GPU of one instance, on the kind of GPU with the smallest tensor-parallel size in use",
)

_AUTOSCALING = _object(
    {
        "minimum": _whole("instances of the cluster that always run", 1),
        "waiting_requests": _whole("requests that wait where it always runs, for each elastic one that starts", 1),
        "cool_down_seconds": _whole("how long one that is no longer needed goes on", 1),
        "always": _list(_text("host/instance"), "what always runs, under Docker too"),
        "asked": _list(_text("host/instance"), "of these, the ones in the cluster that are asked", minItems=1),
        "elastic": _list(
            _object(
                {
                    "instance": _text("host/instance"),
                    "after": _or_null(
                        _text("host/instance: once that one serves, the first one's starts_at is enough")
                    ),
                    "starts_at": _whole("requests that wait at one of those asked", 1),
                    "held_above": _whole("requests in hand at one of those asked, above which it goes on"),
                    "stands_in": {"type": "boolean", "description": "starts too when none of those asked answers"},
                }
            ),
            "in the order in which they start",
            minItems=1,
        ),
    },
    "which instances run only while requests wait; null where all always run",
)

_MODEL = _object(
    {
        "tensor_parallel_size": _whole("the smallest in use", 1),
        "tensor_parallel_sizes": _list(_whole(minimum=1), uniqueItems=True),
        "pipeline_parallel_size": _whole("hosts of one instance", 1),
        "replicas": _whole("instances"),
        "gpus": _whole("GPUs of all instances"),
        "context_length": _whole("tokens", 1),
        "concurrency": _whole("requests of full length that one instance must hold at once", 1),
        "quantization": _or_null(_text()),
        "facts": _text("where config and weights_bytes came from", enum=["given", "recorded", "bundled"]),
        "memory": _ref("memory"),
        "binds": _text("what keeps an instance from holding more requests", enum=sorted(BINDINGS)),
        "binds_because": _text("the same as a sentence"),
        "reason": _text("why this size and these replicas"),
        "autoscaling": {"anyOf": [_AUTOSCALING, {"type": "null"}]},
    },
    "what was decided about one model",
)

_GPU = _object(
    {
        "pci_address": _text(),
        "uuid": _or_null(_text()),
        "index": _whole("place among the host's GPUs"),
        "cdi_device": _text("name of the device for CDI"),
    }
)

_INSTANCE = {
    "name": _text("unique on the host"),
    "model": _text(),
    "model_directory": _text("on the host"),
    "model_source": _text(
        "what tells the content of the model's files: archive and digest, repository and revision, or path"
    ),
    "address": _ADDRESS,
    "port": _PORT,
    "backend": _text("what runs it", enum=["docker", "kubernetes"]),
    "accelerator": _text(enum=["cuda", "cpu"]),
    "gpus": _list(_GPU, minItems=1),
    "tensor_parallel_size": _whole("GPUs on each of its hosts", 1),
    "pipeline_parallel_size": _whole("its hosts", 1),
    "workers": _list(
        _object({"host": _text(), "gpus": _list(_GPU, minItems=1), "why": _text("what its GPUs there share")}),
        "its further hosts, in the order of the model's layers",
    ),
    "context_length": _whole("tokens", 1),
    "arguments": _list(_text(), "of vllm serve"),
    "environment": _map(_text(), "of the engine"),
    "shm_size_bytes": _whole("size of /dev/shm", 1),
    "shutdown_timeout_seconds": _whole("how long the engine lets requests finish", 1),
    "stop_timeout_seconds": _whole("from SIGTERM to SIGKILL", 1),
}

_DESCRIBED_INSTANCE = {
    **_INSTANCE,
    "host": _text(),
    "why": _text("what its GPUs share"),
    "kv_cache_tokens": _whole("tokens, as vLLM logs them"),
    "max_concurrency": {"type": "number", "minimum": 0, "description": "requests of full length at once"},
    "binds": _text(enum=sorted(BINDINGS)),
}

_UPSTREAM_TLS = _object(
    {
        "server_name": _text("the name that the certificate of each server has"),
        "certificate_path": _text("on the gateway: what it says who it is with"),
        "certificate_key_path": _text(),
        "ca_path": _text("authorities of the servers' certificates"),
        "handshake_timeout_seconds": _whole("how long connection and handshake may take", 1),
    },
    "how the servers are asked; null for plain HTTP",
)

_ISSUED = _object(
    {
        "common_name": _text(),
        "subject_alt_names": _list(_text()),
        "certificate_path": _text("on the host, as the other two"),
        "key_path": _text(),
        "ca_path": _text("the authorities to trust"),
    },
    "a certificate of the fleet's authority; null where there is none",
)

_ENGINE_TLS = _object(
    {
        "mode": _text(enum=list(MODES)),
        "directory": _text("on the host, mounted into the engines: their certificate, its key, whom they trust"),
        "client_certificate_path": _text("what the host asks its engines with"),
        "client_key_path": _text(),
        "ca_path": _text("authorities of the engines' certificate"),
    },
    "how the engines answer",
)

_UPSTREAM = _object(
    {
        "name": _text(),
        "model": _text(),
        "servers": _list(
            _object({"name": _text("host/instance"), "address": _ADDRESS, "port": _PORT, "weight": _whole(minimum=1)})
        ),
        "tls": {"anyOf": [_UPSTREAM_TLS, {"type": "null"}]},
    },
    "the servers of one model",
)

_FLOW = _object(
    {
        "destination": _text("host"),
        "protocol": _text("ip: whatever is routed to pods", enum=list(PROTOCOLS)),
        "port": _or_null(_whole("null where the protocol has none", 1)),
        "source": _text(enum=sorted(SOURCES)),
        "forwarded": {"type": "boolean", "description": "to a container, not to the host itself"},
        "why": _text(minLength=1),
    },
    "one connection that firewalls let in",
)

_RULE = _object(
    {
        "name": _text(),
        "source": _text(enum=sorted(SOURCES)),
        "protocol": _text(enum=[protocol for protocol in PROTOCOLS if protocol != "ip"]),
        "ports": _list(_whole("port", 1), "none for vrrp", uniqueItems=True),
    }
)

_ROUTED = _object(
    {
        "name": _text(),
        "source": _text(enum=sorted(SOURCES)),
        "destination": _text("set of what they may reach", enum=sorted(SOURCES)),
    },
    "packets that pass the host untranslated",
)

_FIREWALL = _object(
    {
        "sets": _map(_list(_text()), "addresses and networks by the name that rules use"),
        "input": _list(_RULE),
        "forward": _list(_RULE),
        "routed": _list(_ROUTED),
    }
)

_IMAGE = _object(
    {
        "reference": _text(),
        "archive": _or_null(_text()),
        "archive_sha256": _or_null(_SHA256),
        "id": _or_null(_text()),
    }
)

_SOURCE = {
    "oneOf": [
        _object({"path": _text()}),
        _object({"archive": _object({"url": _text(), "sha256": _SHA256})}),
        _object({"huggingface": _object({"repository": _text(), "revision": _text()})}),
    ]
}

_DRIVER = _object(
    {
        "branch": _whole("driver branch", 1),
        "version": _or_null(_text("whole version; null for the newest of the branch")),
        "kernel_module": _text(enum=["open", "proprietary"]),
        "components": _list(_text(), "what comes with the driver, such as fabric_manager"),
        "repository": _text("vendor, distribution or the URL of a mirror"),
        "expected_gpus": _whole("GPUs that the driver has to see", 1),
        "why": _text("the reasons of the choice"),
    },
    "what the role nvidia_driver is given; null where there is nothing to install",
)

_GPU_REQUIREMENTS = _object(
    {
        "cuda_version": _or_null(_text("of the engine")),
        "instances": _list(
            _object(
                {
                    "name": _text(),
                    "gpus": _list(_text("PCI address"), minItems=1),
                    "minimum_compute_capability": _text(),
                    "precisions": _list(_text()),
                    "nvlink_required": {"type": "boolean", "description": "NVLink joins all of its GPUs, as recorded"},
                }
            )
        ),
    },
    "what the instances ask of the GPUs, in the words of the module gpu_validate",
)

_HOST = {
    "group": _text(),
    "address": _ADDRESS,
    "firewall": _ref("firewall"),
    "kubernetes": {"anyOf": [_ref("kubernetes"), {"type": "null"}]},
}
_EXPORTER = _object(
    {"address": _ADDRESS, "port": _PORT, "certificate": _ref("issued")},
    "where the host shows its metrics, and with which certificate; only where hosts are in the group monitoring",
)
_HOST_OPTIONAL = ("exporter",)
_HOST["exporter"] = _ref("exporter")
_CLIENT = {"client_certificate": {"anyOf": [_ref("issued"), {"type": "null"}]}}

_NODE = _object(
    {
        "role": _text(enum=["control_plane", "node"]),
        "node_name": _text("name of the node in the cluster"),
        "address": _ADDRESS,
        "control_plane_endpoint": _or_null(
            _text("address and port at which everybody reaches the API server; null after a finding")
        ),
        "control_plane": _list(_object({"name": _text(), "address": _ADDRESS}), "all control planes"),
        "version": _text("whole version of Kubernetes"),
        "pod_network": _text("CIDR"),
        "service_network": _text("CIDR"),
        "virtual_address": _or_null(
            _text("address that moves between the control planes; null where the only one answers at its own")
        ),
        "labels": _map(_text(), "of the node"),
        "taints": _list(
            _object({"key": _text(), "value": _text(), "effect": _text()}, optional=("value",)),
            "of the node, beside those of kubeadm",
        ),
        "priority": _or_null(_whole("for the virtual address, the highest holds it; null on nodes", 1)),
    },
    "what the roles of a host of the cluster are given; null elsewhere",
)

_CLUSTER = _object(
    {
        "version": _text("whole version"),
        "minor": _text(),
        "api_server": _object(
            {
                "address": _ADDRESS,
                "port": _PORT,
                "name": _or_null(_text("further name in its certificate")),
            },
            "where everybody reaches it",
        ),
        "pod_network": _text("CIDR"),
        "service_network": _text("CIDR"),
        "flannel_backend": _text(enum=list(BACKENDS)),
        "namespace": _text("of the engines"),
        "autoscaler_namespace": _text("of KEDA"),
        "control_plane": _list(_text(), "hosts"),
        "nodes": _list(_text(), "hosts"),
    },
    "the cluster; null where no host is in a group of Kubernetes",
)

_GPU_NODE = _object(
    {
        **_HOST,
        **_CLIENT,
        "group": {"const": "gpu_nodes"},
        "expected_gpus": _list(
            _object(
                {
                    "pci_address": _text(),
                    "device_id": _text(),
                    "product": _text(),
                    "uuid": _or_null(_text()),
                    "mig": {
                        "enum": [SPLIT, WHOLE, None],
                        "description": "layout that is wanted of a GPU that no instance is put on; null: it is whole",
                    },
                    "split": {"type": "boolean", "description": "nobody but its owner splits it: it must be split"},
                },
            ),
            "the recorded GPUs",
        ),
        "accelerator": _text(enum=["cuda", "cpu"]),
        "models_directory": _text(),
        "models": _list(
            _object(
                {
                    "name": _text(),
                    "directory": _text(),
                    "source": _SOURCE,
                    "files_sha256": _map(_SHA256, "digests of single files"),
                }
            ),
            "the models that its instances serve",
        ),
        "image": {"anyOf": [_ref("image"), {"type": "null"}]},
        "instances": _list(_object(_INSTANCE)),
        "worker_of": _list(
            _object({"host": _text(), "name": _text(), "model": _text(), "gpus": _list(_GPU, minItems=1)}),
            "instances of other hosts that have GPUs here",
        ),
        "engine_tls": _ENGINE_TLS,
        "engine_certificate": {"anyOf": [_ref("issued"), {"type": "null"}]},
        "driver": {"anyOf": [_DRIVER, {"type": "null"}]},
        "gpu_requirements": _GPU_REQUIREMENTS,
    },
    "what the roles of a GPU node are given",
    _HOST_OPTIONAL,
)

_GATEWAY = _object(
    {
        **_HOST,
        **_CLIENT,
        "group": {"const": "gateways"},
        "upstreams": _list(_ref("upstream")),
        "default_model": _or_null(_text("model behind /v1")),
        "endpoint": _object({"hostname": _text(), "port": _PORT, "alternative_names": _list(_text())}),
        "certificate": _object({"common_name": _text(), "subject_alt_names": _list(_text())}),
    },
    "what the roles of a gateway are given",
    _HOST_OPTIONAL,
)

_KUBE_HOST = _object(
    {**_HOST, "group": _text(enum=["kube_control_plane", "kube_nodes"])},
    "what the roles of a host are given that is in the cluster and no GPU node",
    _HOST_OPTIONAL,
)

_SCRAPE_TLS = _object(
    {
        "certificate_path": _text("on the host that asks: what it says who it is with"),
        "key_path": _text(),
        "ca_path": _text("authorities of the targets' certificates"),
        "server_name": _or_null(_text("the name that the certificate of each target has; null: its address")),
    },
    "how the targets are asked; null for plain HTTP",
)

_JOB = _object(
    {
        "name": _text(),
        "scheme": _text(enum=["http", "https"]),
        "path": _text(),
        "tls": {"anyOf": [_SCRAPE_TLS, {"type": "null"}]},
        "drop": _list(_text("regular expression"), "names of series that are not kept"),
        "targets": _list(
            _object({"address": _ADDRESS, "port": _PORT, "labels": _map(_text(), "of all of its series")}), minItems=1
        ),
    },
    "targets that Prometheus asks in one way",
)

_MONITORING = _object(
    {
        **_HOST,
        "group": {"const": "monitoring"},
        "prometheus": _object({"certificate": _ref("issued"), "jobs": _list(_JOB)}, "what its Prometheus is given"),
    },
    "what the roles of a host are given that watches the others",
)

PLAN_SCHEMA: _Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "plan.json of gpufleet.metal",
    "description": "Every decision about a fleet. Written by gpufleet.metal.plan; docs/plan.md explains it.",
    **_object(
        {
            "schema": {"const": SCHEMA, "description": "version of this structure"},
            "fleet": _text("name of the fleet"),
            "kubernetes": {"anyOf": [_CLUSTER, {"type": "null"}]},
            "findings": _list(_ref("finding")),
            "models": _map(_ref("model"), "by name"),
            "instances": _list(_object(_DESCRIBED_INSTANCE), "sorted by host, model and GPU"),
            "upstreams": _list(_ref("upstream")),
            "flows": _list(_ref("flow")),
            "certificates": _list(
                _object(
                    {
                        "name": _text(),
                        "hosts": _list(_text()),
                        "common_name": _text(),
                        "subject_alt_names": _list(_text()),
                    }
                )
            ),
            "scrape_targets": _list(
                _object(
                    {
                        "job": _text(),
                        "host": _text(),
                        "scheme": _text(enum=["http", "https"]),
                        "address": _ADDRESS,
                        "port": _PORT,
                        "path": _text(),
                    }
                )
            ),
            "hosts": _map(
                {"oneOf": [_ref("gpu_node"), _ref("gateway"), _ref("kube_host"), _ref("monitoring")]}, "by name"
            ),
        }
    ),
    "$defs": {
        "exporter": _EXPORTER,
        "finding": _FINDING,
        "firewall": _FIREWALL,
        "flow": _FLOW,
        "gateway": _GATEWAY,
        "gpu_node": _GPU_NODE,
        "image": _IMAGE,
        "issued": _ISSUED,
        "kube_host": _KUBE_HOST,
        "kubernetes": _NODE,
        "memory": _MEMORY,
        "model": _MODEL,
        "monitoring": _MONITORING,
        "upstream": _UPSTREAM,
    },
}

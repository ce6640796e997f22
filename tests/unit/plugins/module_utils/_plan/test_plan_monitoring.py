# SPDX-License-Identifier: Apache-2.0
"""The group ``monitoring`` in the plan: nothing without it, and with it flows, certificates, targets and findings."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.document import PLAN_SCHEMA
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.picture import plan_as_svg
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.reachability import reachability_targets
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.table import plan_as_table
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    DIGEST,
    gpus,
    groups,
    hosts,
    inventory,
    texts,
    tiny,
    variables,
    with_cluster,
)

MUTUAL = {"image": {"reference": f"vllm/vllm-openai:v0.32.0@{DIGEST}"}, "tls": "mutual"}
WATCHERS = {"mon-1": {"ansible_host": "192.0.2.241"}}
FREE = "a port that is free on every host"


def planned(machines: Any = None, watchers: Any = None, members: Any = None, **changes: Any) -> dict[str, Any]:
    """Return the plan of a fleet with one GPU node, one gateway and one host that watches."""
    found = {**(hosts(gpus(2)) if machines is None else machines), **(WATCHERS if watchers is None else watchers)}
    values = variables(tiny(), **changes)
    return build_plan(inventory(values, found, groups=groups(found) if members is None else members))


def test_nothing_of_it_is_in_the_plan_without_the_group() -> None:
    """Not even a key."""
    plan = planned(watchers={})
    text = str(plan)
    assert not plan["findings"]
    for word in ("monitoring", "exporter", "9100", "prometheus"):
        assert word not in text.lower(), word
    assert "onitor" not in plan_as_table(plan)


def test_the_group_adds_and_changes_nothing_else() -> None:
    """What was planned without it stays as it was."""
    before, after = planned(watchers={}), planned()
    assert not after["findings"]
    assert after["instances"] == before["instances"]
    assert after["upstreams"] == before["upstreams"]
    assert [flow for flow in after["flows"] if flow["source"] != "monitoring" and flow["destination"] != "mon-1"] == (
        before["flows"]
    )
    for name, part in before["hosts"].items():
        watched = after["hosts"][name]
        assert {key: watched[key] for key in part if key != "firewall"} == {
            key: part[key] for key in part if key != "firewall"
        }
        assert set(watched) - set(part) == {"exporter"}
    Draft202012Validator(PLAN_SCHEMA).validate(after)
    plan_as_svg(after)


def test_flows() -> None:
    """Those who watch reach every exporter and every engine; nobody else reaches an exporter, and nobody Prometheus."""
    plan = planned()
    new = [flow for flow in plan["flows"] if flow["source"] == "monitoring"]
    assert [(flow["destination"], flow["port"], flow["forwarded"], flow["why"]) for flow in new] == [
        ("gpu-1", 8000, True, "Prometheus to tiny-llama-0"),
        ("gpu-1", 8001, True, "Prometheus to tiny-llama-1"),
        ("gpu-1", 9100, False, "Prometheus to node_exporter"),
        ("gw-1", 9100, False, "Prometheus to node_exporter"),
        ("mon-1", 9100, False, "Prometheus to node_exporter"),
    ]
    assert [flow["port"] for flow in plan["flows"] if flow["destination"] == "mon-1"] == [22, 9100]
    firewall = plan["hosts"]["gpu-1"]["firewall"]
    assert firewall["sets"]["monitoring"] == ["192.0.2.241"]
    assert firewall["input"][-1] == {"name": "exporter", "source": "monitoring", "protocol": "tcp", "ports": [9100]}
    assert firewall["forward"] == [
        {"name": "engines", "source": "gateways", "protocol": "tcp", "ports": [8000, 8001]},
        {"name": "engines", "source": "monitoring", "protocol": "tcp", "ports": [8000, 8001]},
    ]


def test_reachability() -> None:
    """A host that watches finds exporters open; a gateway finds them closed."""
    plan = planned()
    seen = {target["name"]: target["expect"] for target in reachability_targets(plan, "mon-1")}
    assert seen["gpu-1:9100"] == seen["gw-1:9100"] == seen["gpu-1:8000"] == "open"
    seen = {target["name"]: target["expect"] for target in reachability_targets(plan, "gw-1")}
    assert seen["gpu-1:9100"] == seen["mon-1:9100"] == "filtered"
    assert seen["gpu-1:8000"] == "open"


@pytest.mark.parametrize(
    ("engine", "scheme", "name"), [(None, "http", None), (MUTUAL, "https", "engines.gpufleet.internal")]
)
def test_jobs(engine: Any, scheme: str, name: str | None) -> None:
    """Exporters are asked over mutual TLS always, engines where they have it."""
    plan = planned(**({"fleet_engine": engine} if engine else {}))
    prometheus = plan["hosts"]["mon-1"]["prometheus"]
    nodes, engines = prometheus["jobs"]
    assert (nodes["scheme"], nodes["tls"]["server_name"]) == ("https", None)
    assert nodes["targets"][0] == {
        "address": "192.0.2.1",
        "port": 9100,
        "labels": {"host": "gpu-1", "group": "gpu_nodes"},
    }
    assert [target["labels"]["host"] for target in nodes["targets"]] == ["gpu-1", "gw-1", "mon-1"]
    assert engines["scheme"] == scheme
    assert (engines["tls"] or {}).get("server_name") == name
    assert engines["targets"][0]["labels"] == {
        "host": "gpu-1",
        "model": "tiny-llama",
        "server": "gpu-1/tiny-llama-0",
    }
    jobs = [(t["job"], t["host"], t["scheme"], t["port"]) for t in plan["scrape_targets"]]
    assert jobs[0] == ("vllm", "gpu-1", scheme, 8000)
    assert jobs[-1] == ("node", "mon-1", "https", 9100)
    how = "over mutual TLS" if engine else "without TLS"
    assert f"Prometheus on mon-1 asks 3 hosts at port 9100 over mutual TLS, and 2 engines {how}\n" in plan_as_table(
        plan
    )
    assert "1 gateway, 1 monitoring host, 1 model" in plan_as_table(plan)


def test_certificates() -> None:
    """An exporter's is known by its address; Prometheus has one for clients, in another directory."""
    plan = planned()
    found = [entry for entry in plan["certificates"] if entry["name"] in ("exporter", "monitoring")]
    assert [(entry["name"], *entry["hosts"]) for entry in found] == [
        ("exporter", "gpu-1"),
        ("exporter", "gw-1"),
        ("exporter", "mon-1"),
        ("monitoring", "mon-1"),
    ]
    assert found[0]["subject_alt_names"] == ["IP:192.0.2.1"]
    assert plan["hosts"]["gpu-1"]["exporter"] == {
        "address": "192.0.2.1",
        "port": 9100,
        "certificate": {
            "common_name": "exporter gpu-1",
            "subject_alt_names": ["IP:192.0.2.1"],
            "certificate_path": "/etc/gpufleet/node_exporter/tls.crt",
            "key_path": "/etc/gpufleet/node_exporter/tls.key",
            "ca_path": "/etc/gpufleet/node_exporter/ca.crt",
        },
    }
    assert plan["hosts"]["mon-1"]["prometheus"]["certificate"] == {
        "common_name": "monitoring mon-1",
        "subject_alt_names": ["IP:192.0.2.241"],
        "certificate_path": "/etc/gpufleet/prometheus/client.crt",
        "key_path": "/etc/gpufleet/prometheus/client.key",
        "ca_path": "/etc/gpufleet/prometheus/ca.crt",
    }


def test_two_that_watch() -> None:
    """Each asks all, and each is let in everywhere."""
    plan = planned(watchers={**WATCHERS, "mon-2": {"ansible_host": "192.0.2.239"}})
    assert plan["hosts"]["gw-1"]["firewall"]["sets"]["monitoring"] == ["192.0.2.239", "192.0.2.241"]
    jobs = [plan["hosts"][name]["prometheus"]["jobs"] for name in ("mon-1", "mon-2")]
    assert [[target["labels"]["host"] for target in job[0]["targets"]] for job in jobs] == (
        [["gpu-1", "gw-1", "mon-1", "mon-2"]] * 2
    )


def in_cluster(port: int) -> dict[str, Any]:
    """Return the plan of a fleet with a cluster whose exporters listen at a port."""
    machines = with_cluster(hosts(gpus(1)), 1, 1)
    return planned(machines, fleet_monitoring={"exporter_port": port})


def taken(host: str, port: int, owner: str) -> tuple[str, ...]:
    """Return the finding about a port that something else has."""
    found = f"port {port} for node_exporter, which is for {owner}"
    fix = f"change fleet_monitoring.exporter_port (now {port})"
    return ("host", host, "exporter_port_taken", found, FREE, fix)


@pytest.mark.parametrize(
    ("port", "owners"),
    [
        (9100, []),
        (8001, [("gpu-1", "the engine tiny-llama-1")]),
        (443, [("gw-1", "clients of the endpoint")]),
        (22, [("gpu-1", "ssh"), ("gw-1", "ssh"), ("mon-1", "ssh")]),
    ],
)
def test_a_port_that_is_taken(port: int, owners: list[tuple[str, str]]) -> None:
    plan = planned(fleet_monitoring={"exporter_port": port})
    assert texts(plan) == [taken(host, port, owner) for host, owner in owners]


@pytest.mark.parametrize(
    ("port", "owners"),
    [
        (9100, []),
        (6443, [("cp-1", "the API server")]),
        (2379, [("cp-1", "etcd")]),
        (10250, [("cp-1", "kubelet"), ("gpu-1", "kubelet"), ("worker-1", "kubelet")]),
        (30100, [(name, "Services of the type NodePort") for name in ("cp-1", "gpu-1", "worker-1")]),
    ],
)
def test_a_port_that_is_taken_in_a_cluster(port: int, owners: list[tuple[str, str]]) -> None:
    assert texts(in_cluster(port)) == [taken(host, port, owner) for host, owner in owners]


def test_what_is_refused() -> None:
    """The variable without hosts, what it does not have, and a host of two groups."""
    assert texts(planned(watchers={}, fleet_monitoring={})) == [
        (
            "fleet",
            "test",
            "no_monitoring",
            "fleet_monitoring is set, and the group monitoring has no hosts",
            "hosts in the group monitoring: that is what makes the fleet watched",
            "add a host to the group monitoring, or remove fleet_monitoring",
        )
    ]
    codes = [finding[2:4] for finding in texts(planned(fleet_monitoring={"exporter_prot": 1}))]
    assert codes == [("unknown_key", "fleet_monitoring.exporter_prot")]
    codes = [finding[2:4] for finding in texts(planned(fleet_monitoring={"exporter_port": 70000}))]
    assert codes == [("invalid_value", "fleet_monitoring.exporter_port is 70000")]
    found = {**hosts(gpus(2)), **WATCHERS}
    members = groups(found)
    members["monitoring"].append("gw-1")
    plan = planned(members=members)
    assert texts(plan)[0] == (
        "host",
        "gw-1",
        "host_in_two_groups",
        "is in the groups gateways and monitoring",
        "one group per host, or gpu_nodes and kube_nodes",
        "take gw-1 out of one of them",
    )

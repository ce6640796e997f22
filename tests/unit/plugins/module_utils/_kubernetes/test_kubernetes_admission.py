# SPDX-License-Identifier: Apache-2.0
"""The expressions of the admission policy, evaluated: engines' pods pass, each way around Pod Security fails."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import celpy
import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.admission import RULES
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._kubernetes.plans import (
    of_kind,
    rendered,
)


def refusals(pod: dict[str, Any], objects: list[dict[str, Any]]) -> list[str]:
    """Return the messages of the rules that a pod breaks; what can't be evaluated refuses too."""
    (policy,) = of_kind(objects, "ValidatingAdmissionPolicy")
    (binding,) = of_kind(objects, "ValidatingAdmissionPolicyBinding")
    reference = binding["spec"]["paramRef"]
    (parameters,) = [
        item
        for item in of_kind(objects, "ConfigMap")
        if (item["metadata"]["namespace"], item["metadata"]["name"]) == (reference["namespace"], reference["name"])
    ]
    environment = celpy.Environment()
    known = {"object": celpy.json_to_cel(pod), "params": celpy.json_to_cel(parameters)}

    def evaluate(expression: str, variables: dict[str, Any]) -> Any:
        program = environment.program(environment.compile(expression))
        return program.evaluate({**known, "variables": celpy.celtypes.MapType(variables)})

    variables: dict[Any, Any] = {}
    for item in policy["spec"]["variables"]:
        variables[celpy.celtypes.StringType(item["name"])] = evaluate(item["expression"], variables)
    found = []
    for item in policy["spec"]["validations"]:
        try:
            allowed = bool(evaluate(item["expression"], variables))
        except celpy.CELEvalError as fault:
            found.append(f"not evaluated: {fault}")
            continue
        if not allowed:
            found.append(item["message"])
    return found


def pod_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    template = of_kind(objects, "Deployment")[0]["spec"]["template"]
    return copy.deepcopy({"apiVersion": "v1", "kind": "Pod", **template})


def test_every_engine_is_let_in() -> None:
    objects = rendered()
    for item in of_kind(objects, "Deployment"):
        assert refusals({"kind": "Pod", **item["spec"]["template"]}, objects) == []


def test_an_engine_whose_root_is_writable_and_that_has_taints_is_let_in() -> None:
    objects = rendered(settings={"read_only": False, "cache": "pod"})
    assert refusals(pod_of(objects), objects) == []


def _container(pod: dict[str, Any]) -> dict[str, Any]:
    return pod["spec"]["containers"][0]


def _security(pod: dict[str, Any]) -> dict[str, Any]:
    return _container(pod)["securityContext"]


#: (what is done to the pod of an engine, the place of the rule that refuses it).
WAYS: dict[str, tuple[Callable[[dict[str, Any]], Any], int]] = {
    "an init container": (lambda pod: pod["spec"].update(initContainers=[{"name": "a"}]), 0),
    "a debug container": (lambda pod: pod["spec"].update(ephemeralContainers=[{"name": "a"}]), 0),
    "the host's network": (lambda pod: pod["spec"].update(hostNetwork=True), 1),
    "the host's processes": (lambda pod: pod["spec"].update(hostPID=True), 1),
    "the host's memory": (lambda pod: pod["spec"].update(hostIPC=True), 1),
    "a directory of the host": (lambda pod: pod["spec"]["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), 2),
    "a projected token": (lambda pod: pod["spec"]["volumes"].append({"name": "h", "projected": {}}), 2),
    "a network share": (lambda pod: pod["spec"]["volumes"].append({"name": "h", "nfs": {"server": "a"}}), 2),
    "a token": (lambda pod: pod["spec"].update(automountServiceAccountToken=True), 3),
    "a token by default": (lambda pod: pod["spec"].pop("automountServiceAccountToken"), 3),
    "root": (lambda pod: pod["spec"]["securityContext"].update(runAsUser=0), 4),
    "any user of the image": (lambda pod: pod["spec"]["securityContext"].pop("runAsUser"), 4),
    "perhaps root": (lambda pod: pod["spec"]["securityContext"].update(runAsNonRoot=False), 4),
    "no seccomp": (lambda pod: pod["spec"]["securityContext"].pop("seccompProfile"), 4),
    "unconfined": (lambda pod: pod["spec"]["securityContext"].update(seccompProfile={"type": "Unconfined"}), 4),
    "sysctls": (lambda pod: pod["spec"]["securityContext"].update(sysctls=[{"name": "a", "value": "b"}]), 4),
    "no security context": (lambda pod: pod["spec"].pop("securityContext"), 4),
    "privileged": (lambda pod: _security(pod).update(privileged=True), 5),
    "set-user-id programs": (lambda pod: _security(pod).update(allowPrivilegeEscalation=True), 5),
    "set-user-id programs by default": (lambda pod: _security(pod).pop("allowPrivilegeEscalation"), 5),
    "a capability": (lambda pod: _security(pod)["capabilities"].update(add=["SYS_ADMIN"]), 5),
    "some capabilities": (lambda pod: _security(pod)["capabilities"].update(drop=["NET_RAW"]), 5),
    "capabilities by default": (lambda pod: _security(pod).pop("capabilities"), 5),
    "no security context of the container": (lambda pod: _container(pod).pop("securityContext"), 5),
    "root in the container": (lambda pod: _security(pod).update(runAsUser=0), 6),
    "perhaps root in the container": (lambda pod: _security(pod).update(runAsNonRoot=False), 6),
    "all of /proc": (lambda pod: _security(pod).update(procMount="Unmasked"), 6),
    "a container that is unconfined": (lambda pod: _security(pod).update(seccompProfile={"type": "Unconfined"}), 6),
    "no AppArmor": (lambda pod: _security(pod).update(appArmorProfile={"type": "Unconfined"}), 6),
    "another port of the node": (lambda pod: _container(pod)["ports"][0].update(hostPort=22), 7),
    "another engine's node": (lambda pod: pod["spec"]["nodeSelector"].update({"kubernetes.io/hostname": "gpu-9"}), 7),
    "any node": (lambda pod: pod["spec"].pop("nodeSelector"), 7),
    "a probe over the network": (
        lambda pod: _container(pod).update(livenessProbe={"httpGet": {"host": "192.0.2.1"}}),
        8,
    ),
    "a hook over the network": (lambda pod: _container(pod)["lifecycle"].update(postStart={"httpGet": {"port": 1}}), 8),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_way_around_is_refused_by_its_rule_alone(way: str) -> None:
    objects = rendered()
    pod = pod_of(objects)
    change, rule = WAYS[way]
    change(pod)
    assert refusals(pod, objects) == [RULES[rule][1]]


def test_every_rule_refuses_something() -> None:
    assert {rule for __, rule in WAYS.values()} == set(range(len(RULES)))


def test_a_second_container_is_held_to_the_same() -> None:
    objects = rendered()
    pod = pod_of(objects)
    pod["spec"]["containers"].append({"name": "b", "image": "b"})
    assert refusals(pod, objects) == [RULES[5][1]]


def test_a_pod_without_a_port_of_the_node_may_run_anywhere() -> None:
    objects = rendered()
    pod = pod_of(objects)
    del pod["spec"]["nodeSelector"], _container(pod)["ports"]
    assert refusals(pod, objects) == []


def test_the_policy_is_bound_to_its_namespace_and_refuses_without_parameters() -> None:
    objects = rendered()
    (policy,), (binding,) = (
        of_kind(objects, "ValidatingAdmissionPolicy"),
        of_kind(objects, "ValidatingAdmissionPolicyBinding"),
    )
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert binding["spec"]["validationActions"] == ["Deny"]
    assert binding["spec"]["paramRef"]["parameterNotFoundAction"] == "Deny"
    assert binding["spec"]["matchResources"]["namespaceSelector"] == {
        "matchLabels": {"kubernetes.io/metadata.name": "gpufleet-serving"}
    }

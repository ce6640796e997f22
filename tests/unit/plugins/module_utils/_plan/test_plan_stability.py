# SPDX-License-Identifier: Apache-2.0
"""What was applied stays where it is, unless it is no longer right or must make room for what must run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.applied import applied_plan, read_applied
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.changes import plan_changes
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.table import plan_as_json
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    DIGEST,
    gpus,
    hosts,
    inventory,
    llama,
    model,
    texts,
    tiny,
    variables,
)

Plan = dict[str, Any]
KINDS = (model, llama, tiny)
PRODUCTS = ("H100 SXM5 80GB", "L40S")
ENTRIES = st.lists(
    st.builds(
        lambda kind, name, size, replicas: KINDS[kind](name, tensor_parallel_size=size, replicas=replicas),
        st.sampled_from([0, 0, 1, 2]),
        st.sampled_from("abcdefgh"),
        st.sampled_from([None, None, 1, 2]),
        st.sampled_from([None, None, 1, 2, 4]),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda entry: entry["name"],
)
RECORDS = st.lists(st.builds(gpus, st.integers(1, 8), st.sampled_from(PRODUCTS)), min_size=1, max_size=5)


def apply(plan: Plan, before: Mapping[str, Any] | None = None, only: list[str] | None = None) -> dict[str, Any]:
    """Return what applied.json holds after a run on all hosts, or only on some; it went through its own file."""
    document = applied_plan(plan, before, list(plan["hosts"]) if only is None else only)
    return read_applied(plan_as_json(document), "applied.json")


def planned(
    models: list[dict[str, Any]], records: list[dict[str, Any]], applied: Mapping[str, Any] | None = None, **more: Any
) -> Plan:
    """Return the plan of these models on hosts with these records."""
    return build_plan(inventory(variables(*models, **more), hosts(*records), applied=applied))


def ends(plan: Plan) -> dict[tuple[str, str], tuple[int, tuple[str, ...]]]:
    """Return port and GPUs of every instance by host and name."""
    return {
        (i["host"], i["name"]): (i["port"], tuple(gpu["pci_address"] for gpu in i["gpus"])) for i in plan["instances"]
    }


def kept(before: Plan, after: Plan) -> bool:
    """Tell whether every instance of a plan is in another one, unchanged in place, name and port."""
    return ends(before).items() <= ends(after).items()


def sound(plan: Plan) -> bool:
    """Tell whether no GPU, name or port of a host is used twice."""
    places = [(i["host"], gpu["pci_address"]) for i in plan["instances"] for gpu in i["gpus"]]
    ports = [(i["host"], i["port"]) for i in plan["instances"]]
    names = [(i["host"], i["name"]) for i in plan["instances"]]
    return all(len(items) == len(set(items)) for items in (places, ports, names))


@settings(deadline=None, max_examples=50)
@given(ENTRIES, RECORDS)
def test_a_plan_that_was_applied_is_the_plan(models: list[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    """Planning again after a run gives the same bytes, and no change."""
    first = planned(models, records)
    if first["findings"]:
        return
    second = planned(models, records, apply(first))
    assert plan_as_json(second) == plan_as_json(first)
    assert plan_changes(second, apply(first)).changes == ()


@settings(deadline=None, max_examples=50)
@given(ENTRIES, RECORDS, st.builds(gpus, st.integers(1, 8), st.sampled_from(PRODUCTS)))
def test_a_new_host_moves_nothing(
    models: list[dict[str, Any]], records: list[dict[str, Any]], record: dict[str, Any]
) -> None:
    """Every instance keeps its place; models with replicas auto grow into the new host."""
    before = planned(models, records)
    if before["findings"]:
        return
    # gpu-0 comes before all others: planned from scratch, it would draw instances to itself.
    machines = {"gpu-0": {"ansible_host": "192.0.2.100", "gpu_inventory": record}, **hosts(*records)}
    after = build_plan(inventory(variables(*models), machines, applied=apply(before)))
    # A new product may be one on which a model runs with a size of its own: nothing else changes.
    assert kept(before, after)
    assert sound(after)


@settings(deadline=None, max_examples=50)
@given(ENTRIES, RECORDS, st.integers(0, 3))
def test_a_model_that_goes_moves_nothing(
    models: list[dict[str, Any]], records: list[dict[str, Any]], number: int
) -> None:
    """The instances of the other models keep their places."""
    before = planned(models, records)
    if before["findings"] or len(models) < 2:
        return
    gone = models[number % len(models)]["name"]
    after = planned([entry for entry in models if entry["name"] != gone], records, apply(before))
    left = {key: value for key, value in ends(before).items() if not key[1].startswith(f"{gone}-")}
    assert left.items() <= ends(after).items()
    assert sound(after)


@settings(deadline=None, max_examples=80)
@given(ENTRIES, RECORDS, st.sampled_from([0, 1, 2]), st.one_of(st.none(), st.integers(1, 3)))
def test_a_new_model_takes_only_what_it_must(
    models: list[dict[str, Any]], records: list[dict[str, Any]], kind: int, replicas: int | None
) -> None:
    """Where GPUs are free nothing goes; else only what can be spared, as long as that is enough."""
    before = planned(models, records)
    if before["findings"]:
        return
    newcomer = KINDS[kind]("newcomer", replicas=replicas)
    after = planned([*models, newcomer], records, apply(before))
    assert sound(after)
    if after["findings"]:
        return
    lost = set(ends(before)) - {key for key, value in ends(before).items() if ends(after).get(key) == value}
    alone = {product: planned([newcomer], [gpus(8, product)]) for product in PRODUCTS}
    size = {name: p["models"]["newcomer"]["tensor_parallel_size"] for name, p in alone.items() if not p["findings"]}
    free: dict[tuple[str, str], int] = {}
    for name, part in before["hosts"].items():
        used = {gpu["pci_address"] for instance in part.get("instances", ()) for gpu in instance["gpus"]}
        for gpu in part.get("expected_gpus", ()):
            free[name, gpu["product"]] = free.get((name, gpu["product"]), 0) + (gpu["pci_address"] not in used)
    room = sum(count // size[product] for (_name, product), count in free.items() if product in size)
    if room >= (replicas or 1):
        assert not lost
    automatic = {entry["name"] for entry in models if "replicas" not in entry}
    if {name.rpartition("-")[0] for _host, name in lost} <= automatic:
        # What could be spared was enough: no model lost its last instance, and none came back elsewhere.
        for name in automatic:
            assert after["models"][name]["replicas"] >= 1
    else:
        # What must run itself had to move: it is all there.
        for entry in models:
            assert after["models"][entry["name"]]["replicas"] >= entry.get("replicas", 1)


@settings(deadline=None, max_examples=50)
@given(ENTRIES, RECORDS, ENTRIES, RECORDS)
def test_what_was_applied_never_makes_a_fleet_impossible(
    old: list[dict[str, Any]],
    old_records: list[dict[str, Any]],
    new: list[dict[str, Any]],
    new_records: list[dict[str, Any]],
) -> None:
    """Whatever ran before: what can be planned from scratch can be planned, and nothing is used twice."""
    applied = apply(planned(old, old_records))
    scratch = planned(new, new_records)
    after = planned(new, new_records, applied)
    assert sound(after)
    assert after == planned(new, new_records, applied)
    if not scratch["findings"]:
        assert after["findings"] == []
    assert planned(new, new_records, applied, fleet_plan_keep=False) == scratch


def test_a_middle_host_that_goes_leaves_the_others() -> None:
    """From scratch the instances of a host that went would shift all others."""
    records = [gpus(2) for __ in range(4)]
    before = planned([tiny(replicas=4)], records)
    machines = hosts(*records)
    del machines["gpu-2"]
    after = build_plan(inventory(variables(tiny(replicas=4)), machines, applied=apply(before)))
    assert sorted(ends(after)) == [
        ("gpu-1", "tiny-llama-0"),
        ("gpu-1", "tiny-llama-1"),
        ("gpu-3", "tiny-llama-0"),
        ("gpu-4", "tiny-llama-0"),
    ]
    changes = plan_changes(after, apply(before))
    assert [(c.change, c.before, c.instance) for c in changes.changes] == [
        ("moved", "gpu-2/tiny-llama-0", "gpu-1/tiny-llama-1")
    ]


def test_fewer_replicas_leave_the_fullest_hosts() -> None:
    """Of three instances on two hosts, one on the host with two goes."""
    records = [gpus(2), gpus(1)]
    before = planned([tiny(replicas=3)], records)
    after = planned([tiny(replicas=2)], records, apply(before))
    assert {host for host, _name in ends(after)} == {"gpu-1", "gpu-2"}
    assert ends(after).items() <= ends(before).items()


def test_the_model_that_holds_the_most_makes_room() -> None:
    """a holds six GPUs and b one (given): a gives one to c, whatever its name."""
    records = [gpus(7)]
    before = planned([tiny("a"), tiny("b", replicas=1)], records)
    after = planned([tiny("a"), tiny("b", replicas=1), tiny("c", replicas=1)], records, apply(before))
    assert texts(after) == []
    assert {name: m["replicas"] for name, m in after["models"].items()} == {"a": 5, "b": 1, "c": 1}
    assert len(set(ends(before).items()) - set(ends(after).items())) == 1


def test_small_ones_move_where_a_group_has_no_place() -> None:
    """a and b sit on different hosts; a group of four needs one of them whole."""
    records = [gpus(4), gpus(4)]
    before = planned([tiny("a", replicas=1), tiny("b", replicas=1)], records)
    assert {host for host, _name in ends(before)} == {"gpu-1", "gpu-2"}
    after = planned([tiny("a", replicas=1), tiny("b", replicas=1), llama(replicas=1)], records, apply(before))
    assert texts(after) == []
    assert len(set(ends(before)) & set(ends(after))) == 1
    assert {i["model"] for i in after["instances"]} == {"a", "b", "llama"}


def test_a_shortage_displaces_nobody() -> None:
    """Where nothing helps, the newcomer is the one without a place."""
    records = [gpus(4)]
    before = planned([tiny("a", replicas=4)], records)
    after = planned([tiny("a", replicas=4), llama("z", replicas=1)], records, apply(before))
    assert [(f[1], f[2]) for f in texts(after)] == [("z", "not_enough_gpus")]
    assert kept(before, after)


def test_a_size_that_changes_is_placed_anew() -> None:
    """An instance with another tensor-parallel size is another instance; the rest stays."""
    records = [gpus(8)]
    before = planned([tiny("a", tensor_parallel_size=1, replicas=2), tiny("b", replicas=2)], records)
    after = planned([tiny("a", tensor_parallel_size=2, replicas=2), tiny("b", replicas=2)], records, apply(before))
    b = {key: value for key, value in ends(before).items() if key[1].startswith("b-")}
    assert b.items() <= ends(after).items()
    assert all(len(found) == 2 for (_host, name), (_port, found) in ends(after).items() if name.startswith("a-"))


def test_a_new_first_gpu_takes_no_port() -> None:
    """A card in a lower slot shifts all indices; what runs keeps its port, and the new one gets a free port."""
    record = gpus(2)
    before = planned([tiny()], [record])
    more = gpus(2)
    more["gpus"].insert(0, {**more["gpus"][0], "pci_address": "0000:01:00.0", "nvlink_peers": []})
    after = planned([tiny()], [more], apply(before))
    assert kept(before, after)
    assert ends(after)["gpu-1", "tiny-llama-2"] == (8002, ("0000:01:00.0",))


def test_another_base_port_is_followed() -> None:
    """Ports outside those of the host are given up."""
    before = planned([tiny()], [gpus(2)])
    engine = {"image": {"reference": f"vllm/vllm-openai:v0.32.0@{DIGEST}"}, "base_port": 9000}
    after = planned([tiny()], [gpus(2)], apply(before), fleet_engine=engine)
    assert [i["port"] for i in after["instances"]] == [9000, 9001]


def test_hosts_that_were_not_reached_stay_as_they_were() -> None:
    """A run with --limit records its hosts alone."""
    records = [gpus(1), gpus(1)]
    first = apply(planned([tiny("a", replicas=2)], records))
    second = planned([tiny("b", replicas=2)], records, first)
    merged = apply(second, first, ["gpu-2"])
    assert [i["model"] for name in ("gpu-1", "gpu-2") for i in merged["hosts"][name]["instances"]] == ["a", "b"]


def test_changes_in_words() -> None:
    """Added, removed, moved and restarted, each with what differs."""
    records = [gpus(2), gpus(2)]
    before = planned([tiny("a", replicas=2), tiny("b", replicas=1), tiny("x", replicas=1)], records)
    old = apply(before)
    old["hosts"]["gpu-1"]["instances"][0]["environment"]["VLLM_LOGGING_LEVEL"] = "DEBUG"
    after = planned([tiny("a", replicas=2, context_length=512), tiny("b", replicas=2)], records, old)
    assert plan_changes(after, old).as_text() == (
        "Changes against the last applied plan: 1 added, 1 removed, 2 restarted, 1 unchanged\n"
        "  added      b  gpu-2/b-0  GPU 1\n"
        "  removed    x  gpu-2/x-0  GPU 1, its model is no longer served\n"
        "  restarted  a  gpu-1/a-0  --max-model-len 1024 -> 512; VLLM_LOGGING_LEVEL DEBUG -> absent\n"
        "  restarted  a  gpu-2/a-0  --max-model-len 1024 -> 512"
    )
    assert plan_changes(after, None).as_text() == "Changes: nothing was applied yet, 4 instances to start"
    assert plan_changes(after, apply(after)).as_text() == (
        "Changes against the last applied plan: no change, 4 instances as they are"
    )


def test_another_image_restarts_everything() -> None:
    """The image is part of what runs."""
    before = planned([tiny(replicas=1)], [gpus(1)])
    engine = {"image": {"reference": f"vllm/vllm-openai:v0.33.0@{DIGEST}"}}
    after = planned([tiny(replicas=1)], [gpus(1)], apply(before), fleet_engine=engine)
    assert [(c.change, c.why) for c in plan_changes(after, apply(before)).changes] == [
        ("restarted", f"image vllm/vllm-openai:v0.32.0@{DIGEST} -> vllm/vllm-openai:v0.33.0@{DIGEST}")
    ]


@pytest.mark.parametrize(("before", "after"), [("none", "mutual"), ("mutual", "none")])
def test_mutual_tls_restarts_every_engine_where_it_is(before: str, after: str) -> None:
    """It is told as the one decision that it is, beside what else changed."""
    image = {"reference": f"vllm/vllm-openai:v0.32.0@{DIGEST}"}
    engines = {tls: {"image": image, "tls": tls} for tls in (before, after)}
    old = apply(planned([tiny("a", replicas=2)], [gpus(1), gpus(1)], fleet_engine=engines[before]))
    models = [tiny("a", replicas=2, context_length=512)]
    new = planned(models, [gpus(1), gpus(1)], old, fleet_engine=engines[after])
    why = f"fleet_engine.tls {before} -> {after}; --max-model-len 1024 -> 512"
    assert [(c.change, c.instance, c.why) for c in plan_changes(new, old).changes] == [
        ("restarted", "gpu-1/a-0", why),
        ("restarted", "gpu-2/a-0", why),
    ]


ARCHIVES = [{"archive": {"url": f"file:///srv/{n}.tar", "sha256": str(n) * 64}} for n in (1, 2)]
COMMITS = [{"huggingface": {"repository": "o/m", "revision": digit * 40}} for digit in "ab"]
FILES = [{"source": {"path": "/srv/m"}, "files_sha256": {"config.json": digit * 64}} for digit in "cd"]


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (
            {"source": ARCHIVES[0]},
            {"source": ARCHIVES[1]},
            "files of the model archive 111111111111 -> archive 222222222222",
        ),
        (
            {"source": COMMITS[0]},
            {"source": COMMITS[1]},
            "files of the model huggingface o/m aaaaaaaaaaaa -> huggingface o/m bbbbbbbbbbbb",
        ),
        (
            {"source": ARCHIVES[0]},
            {"source": {"path": "/srv/m"}},
            "files of the model archive 111111111111 -> path /srv/m",
        ),
        (
            FILES[0],
            FILES[1],
            "files of the model path /srv/m 7a65432bf6af -> path /srv/m 841710959523",
        ),
    ],
)
def test_other_files_of_a_model_restart_it_where_it_is(before: dict[str, Any], after: dict[str, Any], why: str) -> None:
    """A running engine keeps the weights that it has read, so that one with other files is another one."""
    old = planned([tiny("a", replicas=2, **before), tiny("b", replicas=1)], [gpus(2), gpus(2)])
    new = planned([tiny("a", replicas=2, **after), tiny("b", replicas=1)], [gpus(2), gpus(2)], apply(old))
    assert plan_changes(new, apply(old)).as_text().splitlines()[1:] == [
        f"  restarted  a  gpu-1/a-0  {why}",
        f"  restarted  a  gpu-2/a-0  {why}",
    ]
    places = [(i["host"], i["name"], i["port"], i["gpus"]) for i in new["instances"]]
    assert places == [(i["host"], i["name"], i["port"], i["gpus"]) for i in old["instances"]]


def test_the_same_files_from_elsewhere_restart_nothing() -> None:
    """Neither another address of the same archive nor further digests to insist on make other files."""
    old = planned([tiny(source=ARCHIVES[0], replicas=1)], [gpus(1)])
    moved = {"archive": {"url": "https://example.org/1.tar", "sha256": "1" * 64}}
    new = planned([tiny(source=moved, files_sha256={"config.json": "3" * 64}, replicas=1)], [gpus(1)], apply(old))
    assert plan_changes(new, apply(old)).changes == ()


def test_a_record_that_knows_no_files_says_nothing_of_them() -> None:
    """What an older version applied has no such key."""
    old = apply(planned([tiny(replicas=1)], [gpus(1)]))
    del old["hosts"]["gpu-1"]["instances"][0]["model_source"]
    assert plan_changes(planned([tiny(replicas=1)], [gpus(1)], old), old).changes == ()


def test_many_changes_are_counted() -> None:
    """The text stays readable when everything changes."""
    records = [gpus(8) for __ in range(8)]
    before = planned([tiny()], records)
    after = planned([tiny(context_length=512)], records, apply(before))
    lines = plan_changes(after, apply(before)).as_text().splitlines()
    assert len(lines) == 42
    assert lines[-1] == "  and 24 more"


GO_ON = (
    "Put its last good version back, or remove it: the next plan is then made from scratch, and instances that run may "
    "get other GPUs and ports."
)


def broken(**changes: Any) -> str:
    """Return an applied.json of which the first instance is wrong."""
    data = apply(planned([tiny(replicas=2)], [gpus(2)]))
    data["hosts"]["gpu-1"]["instances"][0].update(changes)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("[]", "schema a list of 0, wanted schema 1", id="no mapping"),
        pytest.param('{"schema": 9}', "schema 9, wanted schema 1", id="of a newer version"),
        pytest.param('{"schema": 1, "hosts": 3}', "hosts: 3, wanted a mapping of hosts", id="no hosts"),
        pytest.param(
            '{"schema": 1, "hosts": {"gpu-1": {}}}',
            "hosts.gpu-1.instances: nothing, wanted a list of instances",
            id="no instances",
        ),
        pytest.param(
            '{"schema": 1, "hosts": {"gpu-1": {"instances": [7]}}}',
            "hosts.gpu-1.instances[0]: 7, wanted an instance",
            id="no instance",
        ),
        pytest.param(
            broken(port="8000"), 'hosts.gpu-1.instances[0].port: "8000", wanted a whole number', id="a port in quotes"
        ),
        pytest.param(
            broken(gpus=[{}]),
            "hosts.gpu-1.instances[0].gpus: a list of 1, wanted a list of GPUs with their pci_address",
            id="no PCI address",
        ),
        pytest.param(
            broken(name="tiny-llama-1"),
            "hosts.gpu-1.instances[1] (tiny-llama-1) with a name or a GPU of another one, wanted each of them once",
            id="a name twice",
        ),
    ],
)
def test_a_broken_file_is_named(text: str, found: str) -> None:
    """The message says which file, what is wrong with it and how to go on."""
    with pytest.raises(InvalidInputError) as caught:
        read_applied(text, "/fleet/applied.json")
    assert str(caught.value) == f"/fleet/applied.json is broken: found {found}. {GO_ON}"


def test_a_file_that_is_no_json() -> None:
    """A file that was cut off is refused as well."""
    with pytest.raises(InvalidInputError, match=r"^/x is broken: found no JSON \(.*\), wanted the file as "):
        read_applied('{"schema": 1, "hosts"', "/x")

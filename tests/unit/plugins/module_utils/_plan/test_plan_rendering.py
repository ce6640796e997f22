# SPDX-License-Identifier: Apache-2.0
"""The table, the JSON and the picture of a plan."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.picture import plan_as_svg
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.table import (
    aligned,
    plan_as_json,
    plan_as_table,
    ranges,
    some,
)
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    DIGEST,
    gpus,
    hosts,
    llama,
    model,
    plan,
    tiny,
)

SVG = "{http://www.w3.org/2000/svg}"


def fleet() -> dict[str, Any]:
    """Return the plan of two models on three hosts, with free GPUs."""
    return plan(
        model(replicas=2),
        llama(replicas=1),
        machines=hosts(gpus(4), gpus(4), gpus(1, "L40S"), gateways=2),
        fleet_endpoint={"hostname": "llm.example.org", "port": 8443, "default_model": "llama"},
    )


def test_table() -> None:
    """Which model runs where and why, what is free, and what clients connect to."""
    assert plan_as_table(fleet()) == (
        "Fleet test: 3 GPU nodes with 9 GPUs (6 in use, 3 free), 2 gateways, 2 models, 3 instances\n"
        "\n"
        "MODEL    INSTANCES  TP  CONTEXT  ASKED   PER GPU  BINDS    WHY\n"
        "autoglm          2   1    25480      8  29.4 GiB  weights  TP 1 fits: 29.4 GiB of 73.3 GiB per GPU; replicas "
        "2 as given; the weights take 19.2 GiB of 73.3 GiB per GPU\n"
        "llama            1   4    32768      4  46.3 GiB  weights  TP 4 is the smallest that fits: 46.3 GiB of 73.3 "
        "GiB per GPU; TP 2 needs 89.1 GiB; replicas 1 as given; the weights take 32.9 GiB of 73.3 GiB per GPU\n"
        "\n"
        "HOST   GPUS  MODEL    INSTANCE   ADDRESS         WEIGHT  KV TOKENS  HOLDS  PLACED ON\n"
        "gpu-1  0-3   llama    llama-0    192.0.2.1:8000       1     485056     14  one NVLink domain\n"
        "gpu-2  0     autoglm  autoglm-0  192.0.2.2:8000       5    1353894     53  one GPU\n"
        "gpu-3  0     autoglm  autoglm-0  192.0.2.3:8000       3     522539     20  one GPU\n"
        "\n"
        "DRIVER                   WITH            HOSTS         WHY\n"
        "580, the newest offered  fabric_manager  gpu-1, gpu-2  branch 580, the newest long-term branch that has "
        "settled and that every product allows; open kernel module, H100 SXM5 80GB can run it; Fabric Manager, "
        "because of NVSwitch (as the product has)\n"
        "580, the newest offered  -               gpu-3         branch 580, the newest long-term branch that has "
        "settled and that every product allows; open kernel module, L40S can run it; no fabric to manage\n"
        "\n"
        "Free GPUs: gpu-2 1-3\n"
        "Endpoint:  https://llm.example.org:8443/v1 on gw-1, gw-2\n"
        "           /v1 goes to llama\n"
    )


def test_table_says_that_engines_answer_their_gateways_only() -> None:
    """Below the endpoint, because it is what stands behind it."""
    lines = [
        plan_as_table(plan(tiny(), fleet_engine={"image": {"reference": f"vllm@{DIGEST}"}, "tls": tls})).splitlines()
        for tls in ("none", "mutual")
    ]
    assert lines[1] == [
        *lines[0],
        "           gateways and engines prove themselves to each other by certificates (mutual TLS)",
    ]


def test_table_says_that_gpus_are_simulated() -> None:
    """Nothing simulated is shown as hardware."""
    result = plan(
        tiny(),
        machines=hosts({**gpus(2), "simulated": True}),
        fleet_engine={
            "image": {"reference": "vllm", "archive": "file:///a", "archive_sha256": "0" * 64},
            "accelerator": "cpu",
        },
    )
    text = "1 GPU node with 2 simulated GPUs (2 in use, 0 free), 1 gateway, 1 model, 2 instances"
    assert plan_as_table(result).startswith(f"Fleet test: {text}\n")
    assert text in plan_as_svg(result)


def test_table_of_an_empty_plan() -> None:
    """A plan with findings can be shown as well."""
    assert plan_as_table(plan(machines={})) == (
        "Fleet test: 0 GPU nodes with 0 GPUs (0 in use, 0 free), 0 gateways, 0 models, 0 instances\n\nFree GPUs: none\n"
    )


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a"], "a"),
        (["a", "b", "c", "d"], "a, b, c, d"),
        (["a", "b", "c", "d", "e"], "5 hosts, a to e"),
    ],
)
def test_some(names: list[str], text: str) -> None:
    """A thousand names do not make one line."""
    assert some(names) == text


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([3], "3"), ([0, 1, 2, 3], "0-3"), ([5, 0, 1, 3], "0-1,3,5"), ([9, 11], "9,11")]
)
def test_ranges(numbers: list[int], text: str) -> None:
    """Neighbours are joined."""
    assert ranges(numbers) == text


def test_aligned() -> None:
    """Columns are two spaces apart and lines have no trailing space."""
    assert aligned([("A", "B", "C"), ("long", "1", ""), ("x", "100", "")], right=(1,)) == [
        "A       B  C",
        "long    1",
        "x     100",
    ]


def test_json() -> None:
    """Sorted, one newline at the end, and the plan itself."""
    result = fleet()
    text = plan_as_json(result)
    assert json.loads(text) == result
    assert text.startswith('{\n  "certificates": [')
    assert text.endswith("}\n")


def texts_of(svg: str) -> list[str]:
    """Return all texts of a picture."""
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_picture_shows_everything() -> None:
    """Every host, every instance's port, every model and the endpoint; nothing outside the sheet."""
    result = fleet()
    svg = plan_as_svg(result)
    shown = texts_of(svg)
    for text in ("Fleet test", "gpu-1", "gpu-2", "gpu-3", "gw-1", "gw-2", "autoglm", "llama", "llama-0"):
        assert text in shown
    assert "https://llm.example.org:8443" in shown
    assert "GPU 0-3 · :8000" in shown
    assert shown.count(":8000") == 2
    root = ET.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for box in root.iter(f"{SVG}rect"):
        x, y = float(box.attrib.get("x", 0)), float(box.attrib.get("y", 0))
        assert x >= 0
        assert y >= 0
        assert x + float(box.attrib["width"]) <= width
        assert y + float(box.attrib["height"]) <= height


def test_picture_escapes_and_needs_nothing_else() -> None:
    """A product's name cannot become markup, and the file refers to no other."""
    machines = hosts(gpus(1))
    machines["gpu-1"]["gpu_inventory"]["gpus"][0]["product"] = '<script>alert("&")</script>'
    svg = plan_as_svg(plan(tiny(), machines=machines))
    assert "<script" not in svg
    assert '192.0.2.1 · 1 x <script>alert("&")</script>' in texts_of(svg)
    assert svg.count("http") == svg.count("http://www.w3.org/2000/svg") + svg.count("https://llm.example.org")


@pytest.mark.parametrize("count", [0, 1, 3, 20, 45])
def test_pictures_of_any_size(count: int) -> None:
    """From no host to many: a well-formed picture with all hosts in it."""
    result = plan(model(), tiny(), machines=hosts(*(gpus(8) for __ in range(count)), gateways=min(count, 9)))
    shown = texts_of(plan_as_svg(result))
    assert [text for text in shown if text.startswith("gpu-")] == [f"gpu-{i}" for i in range(1, count + 1)]


def test_a_large_fleet_is_a_mosaic() -> None:
    """Hosts that are alike share a strip, every block has its model's number, and nothing leaves the sheet."""
    machines = hosts(*(gpus(8) for __ in range(200)))
    for number, values in enumerate(machines.values()):
        values["ansible_host"] = f"192.0.{number // 200}.{number % 200 + 1}"
    result = plan(model(replicas=300), llama(replicas=100), machines=machines)
    svg = plan_as_svg(result)
    shown = texts_of(svg)
    strips = [text for text in shown if text.startswith("gpu-")]
    assert 1 < len(strips) < 20
    assert sum(1 + (int(text.split()[2]) if " and " in text else 0) for text in strips) == 200
    assert shown.count("1") > 1
    assert shown.count("2") > 1
    root = ET.fromstring(svg)
    for box in root.iter(f"{SVG}rect"):
        assert float(box.attrib.get("x", 0)) + float(box.attrib["width"]) <= float(root.attrib["width"])
        assert float(box.attrib.get("y", 0)) + float(box.attrib["height"]) <= float(root.attrib["height"])


def test_more_models_than_colours() -> None:
    """Colours are used again, names are not."""
    result = plan(*(tiny(f"m{i}", replicas=1) for i in range(12)), machines=hosts(gpus(8), gpus(8)))
    shown = texts_of(plan_as_svg(result))
    assert {f"m{i}" for i in range(12)} <= set(shown)

# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The plan as a picture: one self-contained SVG, the same bytes for the same plan.

It reads like a map of railway lines: clients reach the gateways at the top, every model is a coloured line that leaves
them, and it stops at each host that serves the model. A host shows its GPUs; an instance is a coloured block over its.

A cluster of Kubernetes is a band below the hosts: its API server, its control planes, its further workers, and the
flows that its firewalls let in.

A large fleet is a mosaic instead: a strip of GPUs for each host, hosts with the same instances in one strip, and every
block with the number of its model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from .findings import natural_key, some_of
from .memory import gib
from .parts import parts, used_gpus
from .table import count, parallel, ranges, summary

#: Line and fill colours: distinct also for most colour-blind readers (after Okabe and Ito), repeated beyond eight.
PALETTE = (
    ("#0072b2", "#d6e8f4"),
    ("#d55e00", "#fbe1cf"),
    ("#009e73", "#cfeee4"),
    ("#b04a8f", "#f4dcea"),
    ("#8a6d00", "#f3e7b8"),
    ("#3f7fbf", "#dceafc"),
    ("#6b4fa0", "#e5def3"),
    ("#5b6b2e", "#e6ecd2"),
)
_FONT = "ui-sans-serif, system-ui, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif"
_INK, _SOFT, _LINE, _PAPER, _CARD, _IDLE = "#1d2733", "#5d6b7a", "#c9d2dc", "#f6f8fa", "#ffffff", "#eef1f4"

_MARGIN = 32
_CELL_WIDTH, _CELL_HEIGHT, _CELL_GAP = 58, 46, 6
_LANE = 14
_CARD_PADDING = 14
_CARD_HEAD = 42
_CARD_GAP = 18
_GATEWAY_WIDTH, _GATEWAY_HEIGHT = 200, 56
_PER_ROW = 8
_HOSTS_PER_COLUMN = 10
_LEGEND_ROW = 24
#: Beyond so many hosts the lines could not be told apart.
_CARDS_AT_MOST = 48
_STRIP_LABEL, _STRIP_CELL, _STRIP_ROW = 150, 17, 22
_MOSAIC_COLUMNS = 4
_MEMBER_WIDTH, _MEMBER_HEIGHT = 200, 44
#: Beyond so many further workers the rest is a number.
_WORKERS_AT_MOST = 24


def _cut(text: str, width: float, size: float) -> str:
    """Return the text, shortened to fit ``width`` pixels at a font size."""
    most = max(3, int(width / (size * 0.56)))
    return text if len(text) <= most else f"{text[: most - 1]}…"


class _Drawing:
    """Collects SVG elements."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str,
        stroke: str = "none",
        radius: float = 8,
        line: float = 1,
        title: str = "",
    ) -> None:
        """Add a rectangle with round corners; ``title`` is shown when the pointer rests on it."""
        inner = f"<title>{escape(title)}</title>" if title else ""
        shape = (
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="{line:g}"'
        )
        self.parts.append(f"{shape}>{inner}</rect>" if inner else f"{shape}/>")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 12,
        fill: str = _INK,
        weight: int = 400,
        anchor: str = "start",
    ) -> None:
        """Add one line of text; ``y`` is its base line."""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{fill}" font-weight="{weight}" '
            f'text-anchor="{anchor}">{escape(text)}</text>'
        )

    def path(self, points: Sequence[tuple[float, float]], stroke: str, width: float = 3, arrow: str = "") -> None:
        """Add a line of right angles with round corners."""
        radius = 8.0
        data = f"M{points[0][0]:g} {points[0][1]:g}"
        for before, here, after in zip(points, points[1:], points[2:]):
            legs = [abs(p[0] - here[0]) + abs(p[1] - here[1]) for p in (before, after)]
            bend = min(radius, legs[0] / 2, legs[1] / 2)
            start, end = (_towards(here, p, bend) for p in (before, after))
            data += f" L{start[0]:g} {start[1]:g} Q{here[0]:g} {here[1]:g} {end[0]:g} {end[1]:g}"
        data += f" L{points[-1][0]:g} {points[-1][1]:g}"
        marker = f' marker-end="url(#{arrow})"' if arrow else ""
        self.parts.append(
            f'<path d="{data}" fill="none" stroke="{stroke}" stroke-width="{width:g}" stroke-linecap="round"{marker}/>'
        )

    def dot(self, x: float, y: float, radius: float, fill: str, stroke: str = _CARD) -> None:
        """Add a disc."""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>'
        )


def _towards(start: tuple[float, float], end: tuple[float, float], distance: float) -> tuple[float, float]:
    length = max(abs(end[0] - start[0]) + abs(end[1] - start[1]), 1e-9)
    return (
        start[0] + (end[0] - start[0]) / length * distance,
        start[1] + (end[1] - start[1]) / length * distance,
    )


def _runs(indices: Sequence[int], per_row: int = 1 << 30) -> list[list[int]]:
    """Return runs of neighbours, none of which goes beyond the end of a row."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1 and index % per_row:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


class _Picture:
    """Lays out one plan."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = plan
        self.out = _Drawing()
        self.hosts = sorted((n for n, h in plan["hosts"].items() if h["group"] == "gpu_nodes"), key=natural_key)
        self.gateways = sorted((n for n, h in plan["hosts"].items() if h["group"] == "gateways"), key=natural_key)
        served = {instance["model"] for instance in plan["instances"]}
        self.models = sorted(served, key=natural_key)
        self.colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(self.models)}
        self.instances: dict[str, list[Mapping[str, Any]]] = {host: [] for host in self.hosts}
        for instance in parts(plan["instances"]):
            self.instances[instance["host"]].append(instance)
        widest = max((len(plan["hosts"][host]["expected_gpus"]) for host in self.hosts), default=1)
        self.mosaic = len(self.hosts) > _CARDS_AT_MOST
        self.cells = max(2, min(_PER_ROW, widest))
        self.lanes_width = _LANE * max(1, len(self.models)) + 30
        columns = max(1, -(-len(self.hosts) // _HOSTS_PER_COLUMN))
        per_column = -(-len(self.hosts) // columns) if self.hosts else 0
        self.columns = [self.hosts[i * per_column : (i + 1) * per_column] for i in range(columns)]
        # The sheet is as wide as the GPUs or the longest line of the legend need; the cards then share it.
        needed = self.lanes_width + 2 * _CARD_PADDING + self.cells * _CELL_WIDTH + (self.cells - 1) * _CELL_GAP
        self.facts_left = _MARGIN + 36 + max([8.2 * len(name) + 16 for name in self.models], default=0)
        self.width = max(
            0 if self.mosaic else 2 * _MARGIN + columns * needed + (columns - 1) * _MARGIN,
            self.facts_left + 6.6 * max([len(self._facts(name)) for name in self.models], default=0) + _MARGIN,
            2 * _MARGIN + _MOSAIC_COLUMNS * (_STRIP_LABEL + widest * _STRIP_CELL + _MARGIN) if self.mosaic else 720,
        )
        self.column_width = (self.width - 2 * _MARGIN - (columns - 1) * _MARGIN) / columns
        self.card_width = self.column_width - self.lanes_width
        inner = self.card_width - 2 * _CARD_PADDING
        self.cell_width = min(400.0, (inner - (self.cells - 1) * _CELL_GAP) / self.cells)

    def _facts(self, name: str) -> str:
        """Return what the legend says about a model."""
        model = self.plan["models"][name]
        size = parallel(model) + (" hosts" if model["pipeline_parallel_size"] > 1 else "")
        needed = gib(model["memory"]["needed"])
        return (
            f"{count(model['replicas'], 'instance')} · tensor parallel {size} · {needed} of "
            f"{gib(model['memory']['gpu_memory'])} per GPU · {model['concurrency']} x {model['context_length']} tokens"
        )

    def render(self) -> str:
        """Return the SVG document."""
        legend_bottom = self._legend()
        lines_top = self._gateways(legend_bottom + 18)
        bottom = self._mosaic(lines_top) if self.mosaic else self._columns(lines_top)
        bottom = self._cluster(bottom)
        networks = sorted(
            {n for host in self.plan["hosts"].values() for n in host["firewall"]["sets"].get("management", [])}
        )
        if networks:
            bottom += 24
            note = f"Also open on every host: ssh from {some_of(networks, 4)}. Everything else is closed."
            self.out.text(_MARGIN, bottom, note, 11.5, _SOFT)
        height = bottom + _MARGIN
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {height:g}" width="{self.width:g}" '
            f'height="{height:g}" font-family="{_FONT}" role="img">\n'
            f"<title>{escape(summary(self.plan))}</title>\n"
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" '
            f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{_SOFT}"/></marker></defs>\n'
            f'<rect width="{self.width:g}" height="{height:g}" fill="{_PAPER}"/>\n'
        )
        return head + "\n".join(self.out.parts) + "\n</svg>\n"

    def _legend(self) -> float:
        """Draw the title and one line per model; return where they end."""
        out = self.out
        out.text(_MARGIN, 48, f"Fleet {self.plan['fleet']}", 22, weight=700)
        line = summary(self.plan).partition(": ")[2]
        out.text(_MARGIN, 70, line, 13, _SOFT)
        y = 100.0
        for name in self.models:
            stroke, fill = self.colours[name]
            out.box(_MARGIN, y - 12, 26, 16, fill, stroke, 4, 1.5)
            if self.mosaic:
                out.text(_MARGIN + 13, y, str(self.models.index(name) + 1), 10.5, _INK, 600, "middle")
            out.text(_MARGIN + 36, y, name, 13, weight=600)
            out.text(self.facts_left, y, self._facts(name), 12, _SOFT)
            y += _LEGEND_ROW
        used = used_gpus(self.plan["instances"])
        if used < sum(len(self.plan["hosts"][host]["expected_gpus"]) for host in self.hosts):
            out.box(_MARGIN, y - 12, 26, 16, _IDLE, _LINE, 4, 1)
            split = any(
                gpu["mig"] is not None for host in self.hosts for gpu in self.plan["hosts"][host]["expected_gpus"]
            )
            out.text(_MARGIN + 36, y, "free GPU, or left to MIG" if split else "free GPU", 12, _SOFT)
            y += _LEGEND_ROW
        return y - 10

    def _gateways(self, top: float) -> float:
        """Draw clients and gateways, and the bar from which the models' lines leave; return its lower edge."""
        out = self.out
        # One row, as long as the names can be read in it.
        room = self.width - 2 * _MARGIN + 20
        width = min(_GATEWAY_WIDTH, max(120, int(room / max(1, len(self.gateways))) - 20))
        per_row = max(1, int(room // (width + 20)))
        y = top
        for row_start in range(0, len(self.gateways), per_row):
            row = self.gateways[row_start : row_start + per_row]
            y = top + 30 + row_start // per_row * (_GATEWAY_HEIGHT + 46)
            for place, name in enumerate(row):
                host = self.plan["hosts"][name]
                endpoint = host["endpoint"]
                x = _MARGIN + place * (width + 20)
                middle = x + width / 2
                out.path([(middle, y - 24), (middle, y - 3)], _SOFT, 1.5, "tip")
                out.text(middle + 10, y - 12, f"any → {endpoint['port']}/tcp", 11, _SOFT)
                out.box(x, y, width, _GATEWAY_HEIGHT, _INK, radius=10, title=f"gateway {name}")
                out.text(x + 14, y + 23, _cut(name, width - 28, 14), 14, "#ffffff", 600)
                out.text(x + 14, y + 42, _cut(str(host["address"] or "no address"), width - 28, 11.5), 11.5, "#c8d3df")
                if row_start + per_row >= len(self.gateways):
                    out.path([(middle, y + _GATEWAY_HEIGHT), (middle, y + _GATEWAY_HEIGHT + 16)], _INK, 2)
            y += _GATEWAY_HEIGHT
        rail = y + 16
        label = ""
        if self.gateways:
            endpoint = self.plan["hosts"][self.gateways[0]]["endpoint"]
            port = "" if endpoint["port"] == 443 else f":{endpoint['port']}"
            label = f"https://{endpoint['hostname']}{port}"
        out.box(_MARGIN, rail, self.width - 2 * _MARGIN, 24, "#e2e8ee", radius=6)
        out.text(self.width - _MARGIN - 12, rail + 16, label, 12, _INK, 600, "end")
        return rail + 24

    def _strips(self) -> list[tuple[str, list[str]]]:
        """Return the hosts to draw, each with all hosts that have the same GPUs and the same instances on them."""
        alike: dict[tuple[object, ...], list[str]] = {}
        for host in self.hosts:
            products = tuple(gpu["product"] for gpu in self.plan["hosts"][host]["expected_gpus"])
            places = tuple((i["model"], tuple(gpu["index"] for gpu in i["gpus"])) for i in self.instances[host])
            alike.setdefault((products, places), []).append(host)
        return [(names[0], names) for names in alike.values()]

    def _mosaic(self, top: float) -> float:
        """Draw a strip of GPUs for each host, in columns; return where the longest ends."""
        strips = self._strips()
        rows = -(-len(strips) // _MOSAIC_COLUMNS)
        width = (self.width - 2 * _MARGIN) / _MOSAIC_COLUMNS
        numbers = {name: str(number) for number, name in enumerate(self.models, 1)}
        for place, (host, names) in enumerate(strips):
            x = _MARGIN + place // rows * width
            y = top + 24 + place % rows * _STRIP_ROW
            more = f" and {len(names) - 1} alike" if len(names) > 1 else ""
            self.out.text(x, y + 12, f"{_cut(host, _STRIP_LABEL - 8 - 6 * len(more), 11.5)}{more}", 11.5)
            left = x + _STRIP_LABEL
            gpus = self.plan["hosts"][host]["expected_gpus"]
            products = ", ".join(sorted({str(gpu["product"]) for gpu in gpus}))
            title = f"{some_of(names, 12)}: {len(gpus)} x {products}"
            size = _STRIP_CELL * len(gpus)
            self.out.box(left, y, size, _STRIP_ROW - 5, _IDLE, _LINE, 3, title=title)
            for instance in self.instances[host]:
                stroke, fill = self.colours[instance["model"]]
                for run in _runs([gpu["index"] for gpu in instance["gpus"]]):
                    start, length = left + run[0] * _STRIP_CELL, len(run) * _STRIP_CELL
                    indices = ranges([gpu["index"] for gpu in instance["gpus"]])
                    hint = f"{instance['model']} on GPU {indices}: {instance['why']}"
                    self.out.box(start + 0.5, y, length - 1, _STRIP_ROW - 5, fill, stroke, 3, 1, hint)
                    middle = start + length / 2
                    self.out.text(middle, y + 12.5, numbers[instance["model"]], 10, _INK, 600, "middle")
        return top + 24 + rows * _STRIP_ROW

    def _cluster(self, top: float) -> float:
        """Draw the cluster of Kubernetes below everything else; return where it ends. Nothing without a cluster."""
        cluster = self.plan["kubernetes"]
        if cluster is None:
            return top
        out = self.out
        y = top + 26
        width = self.width - 2 * _MARGIN
        address, port = cluster["api_server"]["address"] or "no address", cluster["api_server"]["port"]
        out.box(_MARGIN, y, width, 26, "#dfe6f5", radius=6)
        room = width / 2 - 20
        out.text(
            _MARGIN + 12,
            y + 17,
            _cut(f"Kubernetes {cluster['version']} · API server {address}:{port}", room, 12),
            12,
            _INK,
            600,
        )
        networks = (
            f"pods {cluster['pod_network']} ({cluster['flannel_backend']}) · Services {cluster['service_network']}"
        )
        out.text(_MARGIN + width - 12, y + 17, _cut(networks, room, 11.5), 11.5, _SOFT, anchor="end")
        y += 26
        workers = [name for name in cluster["nodes"] if self.plan["hosts"][name]["group"] == "kube_nodes"]
        members = [(name, "control plane") for name in cluster["control_plane"]]
        members += [(name, "worker") for name in workers[:_WORKERS_AT_MOST]]
        per_row = max(1, int((width + 16) // (_MEMBER_WIDTH + 16)))
        for place, (name, role) in enumerate(members):
            x = _MARGIN + place % per_row * (_MEMBER_WIDTH + 16)
            row_top = y + 16 + place // per_row * (_MEMBER_HEIGHT + 16)
            out.path([(x + _MEMBER_WIDTH / 2, row_top - 16), (x + _MEMBER_WIDTH / 2, row_top)], _LINE, 2)
            first = role == "control plane"
            fill, ink, soft = (_INK, "#ffffff", "#c8d3df") if first else (_CARD, _INK, _SOFT)
            out.box(x, row_top, _MEMBER_WIDTH, _MEMBER_HEIGHT, fill, _LINE, 8, title=f"{role} {name}")
            out.text(x + 12, row_top + 19, _cut(name, _MEMBER_WIDTH - 24, 13), 13, ink, 600)
            where = self.plan["hosts"][name]["address"] or "no address"
            out.text(x + 12, row_top + 35, _cut(f"{role} · {where}", _MEMBER_WIDTH - 24, 11), 11, soft)
        y += -(-len(members) // per_row) * (_MEMBER_HEIGHT + 16)
        notes = [f"and {len(workers) - _WORKERS_AT_MOST} more workers"] if len(workers) > _WORKERS_AT_MOST else []
        inside = [name for name in cluster["nodes"] if self.plan["hosts"][name]["group"] == "gpu_nodes"]
        if inside:
            notes.append(f"Engines in the namespace {cluster['namespace']} on {some_of(inside, 6)}")
        for note in (*notes, *self._cluster_flows()):
            y += 20
            out.text(_MARGIN, y, _cut(note, width, 11.5), 11.5, _SOFT)
        return y

    def _cluster_flows(self) -> list[str]:
        """Return the flows of the cluster, those of hosts of one kind in one line."""
        kinds = {"control_plane": "control planes", "node": "nodes"}
        seen: dict[tuple[str, str, str], set[str]] = {}
        for flow in self.plan["flows"]:
            part = self.plan["hosts"][flow["destination"]]["kubernetes"]
            if part is None or flow["why"] == "ssh" or flow["source"] == "gateways":
                continue
            port = flow["protocol"] if flow["port"] is None else f"{flow['port']}/{flow['protocol']}"
            seen.setdefault((flow["source"], port, flow["why"]), set()).add(kinds[part["role"]])
        lines: dict[tuple[str, str, str], list[str]] = {}
        for (source, port, why), roles in seen.items():
            lines.setdefault((source, " and ".join(sorted(roles)), why), []).append(port)
        return [f"{source} → {roles}: {', '.join(ports)} ({why})" for (source, roles, why), ports in lines.items()]

    def _card_height(self, host: str) -> float:
        rows = max(1, -(-len(self.plan["hosts"][host]["expected_gpus"]) // self.cells))
        return _CARD_HEAD + rows * _CELL_HEIGHT + (rows - 1) * _CELL_GAP + _CARD_PADDING

    def _columns(self, top: float) -> float:
        """Draw the lines and the hosts of every column; return where the longest ends."""
        bottom = top
        for number, column in enumerate(self.columns):
            left = _MARGIN + number * (self.column_width + _MARGIN)
            y = top + 26
            stops: dict[str, list[float]] = {name: [] for name in self.models}
            cards: list[tuple[str, float]] = []
            for host in column:
                cards.append((host, y))
                answering = {i["model"] for i in self.instances[host] if not i["leader"]}
                here = [name for name in self.models if name in answering]
                height = self._card_height(host)
                for place, name in enumerate(here):
                    stops[name].append(y + height * (place + 1) / (len(here) + 1))
                y += height + _CARD_GAP
            # From right to left, so that a line passes over those that it crosses, with a gap on both sides.
            for place, name in reversed(list(enumerate(self.models))):
                x = left + 8 + place * _LANE
                end = left + self.lanes_width
                for stop in reversed(stops[name]):
                    self.out.path([(x + 9, stop), (end, stop)], _PAPER, 7)
                    self.out.path([(x, top), (x, stop), (end, stop)], self.colours[name][0], 2.5)
            for host, card_top in cards:
                self._card(host, left + self.lanes_width, card_top)
            for name in self.models:
                for stop in stops[name]:
                    self.out.dot(left + self.lanes_width, stop, 5, self.colours[name][0])
            bottom = max(bottom, y - _CARD_GAP)
        return bottom

    def _card(self, host: str, x: float, y: float) -> None:
        """Draw one host with its GPUs and instances."""
        out = self.out
        part = self.plan["hosts"][host]
        gpus = part["expected_gpus"]
        out.box(x, y, self.card_width, self._card_height(host), _CARD, _LINE, 10, title=f"host {host}")
        out.text(x + _CARD_PADDING, y + 26, _cut(host, self.card_width * 0.45, 14), 14, weight=600)
        products = sorted({str(gpu["product"]) for gpu in gpus})
        hardware = f"{len(gpus)} x {', '.join(products)}" if gpus else "no usable GPU recorded"
        note = f"{part['address'] or 'no address'} · {hardware}"
        if part["kubernetes"] is not None:
            note += " · Kubernetes"
        out.text(
            x + self.card_width - _CARD_PADDING,
            y + 26,
            _cut(note, self.card_width * 0.6, 11.5),
            11.5,
            _SOFT,
            anchor="end",
        )
        top = y + _CARD_HEAD
        for index, gpu in enumerate(gpus):
            cx, cy = self._cell(x, top, index)
            out.box(cx, cy, self.cell_width, _CELL_HEIGHT, _IDLE, _LINE, 6)
            middle, split = cx + self.cell_width / 2, gpu["mig"] is not None
            out.text(middle, cy + (19 if split else 28), f"GPU {index}", 11, _SOFT, anchor="middle")
            if split:
                out.text(middle, cy + 36, "MIG", 11, _SOFT, anchor="middle")
        for instance in self.instances[host]:
            self._instance(instance, x, top)

    def _cell(self, x: float, top: float, index: int) -> tuple[float, float]:
        return (
            x + _CARD_PADDING + index % self.cells * (self.cell_width + _CELL_GAP),
            top + index // self.cells * (_CELL_HEIGHT + _CELL_GAP),
        )

    def _instance(self, instance: Mapping[str, Any], x: float, top: float) -> None:
        """Draw an instance over its GPUs: one block per run of neighbours in a row."""
        stroke, fill = self.colours[instance["model"]]
        runs = _runs([gpu["index"] for gpu in instance["gpus"]], self.cells)
        indices = ranges([gpu["index"] for gpu in instance["gpus"]])
        port = f":{instance['port']}" if not instance["leader"] else ""
        name = instance["name"] if not instance["leader"] else f"of {instance['leader']}"
        where = f", port {instance['port']}" if port else ""
        title = f"{name} on GPU {indices}{where}: {instance['why']}"
        for run in runs:
            left, y = self._cell(x, top, run[0])
            width = len(run) * self.cell_width + (len(run) - 1) * _CELL_GAP
            self.out.box(left, y, width, _CELL_HEIGHT, fill, stroke, 6, 1.5, title)
            middle = left + width / 2
            label = f"GPU {ranges(run)}" if len(run) > 1 or len(runs) > 1 else f"GPU {run[0]}"
            if len(run) > 1:
                self.out.text(middle, y + 19, _cut(name, width - 10, 11.5), 11.5, _INK, 600, "middle")
                shown = f"{label} · {port}" if port else label
                self.out.text(middle, y + 36, shown, 11, _SOFT, anchor="middle")
            else:
                self.out.text(middle, y + 19, label, 11.5, _INK, 600, "middle")
                self.out.text(middle, y + 36, port, 11, _SOFT, anchor="middle")


def plan_as_svg(plan: Mapping[str, Any]) -> str:
    """Return the plan as an SVG document."""
    return _Picture(plan).render()

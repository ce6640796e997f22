# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The API server's address that moves between control planes: what may be asked for, where it goes, what was found."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

PREFIX = "kubernetes_endpoint_"
#: keepalived takes 100 from the priority of a host that knows no API server: so every one that knows one is above it.
PRIORITIES = (101, 200)
ROUTER_IDS = (1, 255)
PORTS = (1, 65535)
_GOOD_UNIT = "enabled active"
_PORT_OPTIONS = ("port", "api_server_port", "health_port")


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _number_faults(options: Mapping[str, Any]) -> Iterator[str]:
    limits = {"priority": PRIORITIES, **dict.fromkeys(_PORT_OPTIONS, PORTS), "max_connections": (1, 1_000_000)}
    if options["router_id"] is not None:
        limits["router_id"] = ROUTER_IDS
    for name, (least, most) in limits.items():
        if not least <= options[name] <= most:
            yield f"{PREFIX}{name} is {options[name]}, wanted a number from {least} to {most}"
    for place, name in enumerate(_PORT_OPTIONS):
        for other in _PORT_OPTIONS[:place]:
            if options[name] == options[other]:
                yield f"{PREFIX}{name} is {options[name]}, as is {PREFIX}{other}, wanted ports apart"


def _address_faults(options: Mapping[str, Any]) -> Iterator[str]:
    planes = options["control_planes"]
    named = {f"{PREFIX}{name}": options[name] for name in ("virtual_address", "address")}
    named.update({f"{PREFIX}control_planes, {plane['name']}": plane["address"] for plane in planes})
    for what, text in named.items():
        if not _is_address(text):
            yield f"{what} is {text!r}, wanted an IPv4 address"
    for key in ("name", "address"):
        values = [plane[key] for plane in planes]
        for value in sorted({value for value in values if values.count(value) > 1}):
            yield f"{PREFIX}control_planes has the {key} {value!r} {values.count(value)} times, wanted it once"
    if options["address"] not in [plane["address"] for plane in planes]:
        yield f"{PREFIX}address is {options['address']!r}, wanted the address of one of {PREFIX}control_planes"
    yield from (
        f"{PREFIX}virtual_address is {options['virtual_address']!r}, the address of {plane['name']}, wanted a free one"
        for plane in planes
        if plane["address"] == options["virtual_address"]
    )


def _place(options: Mapping[str, Any], interfaces: Mapping[str, Sequence[str]]) -> tuple[str, ipaddress.IPv4Interface]:
    own = ipaddress.IPv4Address(options["address"])
    known = [(name, ipaddress.IPv4Interface(text)) for name, texts in interfaces.items() for text in texts]
    for name, interface in known:
        if interface.ip == own:
            return name, interface
    raise InvalidInputError(
        f"{PREFIX}address is '{own}', wanted an address of this host, which has "
        + ", ".join(f"{interface.ip} ({name})" for name, interface in known)
    )


def faults(options: Mapping[str, Any], interfaces: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what does not fit together in the role's options, or does not fit the host's addresses.

    ``interfaces`` has the host's IPv4 addresses with their prefix lengths, by interface.
    """
    found = [*_address_faults(options), *_number_faults(options)]
    if found:
        return found
    try:
        name, interface = _place(options, interfaces)
    except InvalidInputError as fault:
        return [str(fault)]
    network, virtual = interface.network, ipaddress.IPv4Address(options["virtual_address"])
    what = f"{PREFIX}virtual_address is '{virtual}'"
    if virtual not in network:
        return [f"{what}, wanted a free address of {network}, the network of {interface.ip} ({name})"]
    if network.prefixlen < 31 and virtual in (network.network_address, network.broadcast_address):
        return [f"{what}, which {network} has for itself, wanted a free address of a host"]
    return []


def place(options: Mapping[str, Any], interfaces: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return where the virtual address goes on this host, whether it is there, and with whom it is shared.

    Raises InvalidInputError where no interface has the host's own address.
    """
    name, interface = _place(options, interfaces)
    virtual = ipaddress.IPv4Address(options["virtual_address"])
    return {
        "interface": name,
        "prefix": interface.network.prefixlen,
        # The last byte may be 0 in a network larger than /24; 255 is free then, or is another one's.
        "router_id": options["router_id"] or virtual.packed[-1] or ROUTER_IDS[1],
        "peers": [one["address"] for one in options["control_planes"] if one["address"] != options["address"]],
        "held": any(ipaddress.IPv4Interface(text).ip == virtual for texts in interfaces.values() for text in texts),
    }


def disagreements(
    options: Mapping[str, Any],
    seen: Mapping[str, Any],
    build: str,
    changed_files: Sequence[str],
    holders: Mapping[str, bool],
) -> list[str]:
    """Return what is not as the role promises.

    ``seen`` is what the host was found to be like, ``build`` the digest that HAProxy has to show, ``changed_files``
    those that differ from what would be written, and ``holders`` says for each control plane that was looked at
    whether it holds the address.
    """
    again = "run gpufleet.metal.kubernetes"
    address, port = options["virtual_address"], options["port"]
    found = [
        f"{unit} is {state}, wanted enabled active" for unit, state in seen["units"].items() if state != _GOOD_UNIT
    ]
    found += [
        f"{name} refuses its configuration: {said}" for name, said in seen["judged"].items() if said != "accepted"
    ]
    found += [f"{path} is not as the role writes it; {again}" for path in changed_files]
    if seen["build"] != build:
        found.append(f"HAProxy serves the configuration {seen['build']}, wanted {build}; {again}")
    states = seen["servers"]
    for plane in options["control_planes"]:
        state = states.get(plane["name"], "unknown to it")
        if state != "UP":
            found.append(f"HAProxy finds the API server of {plane['name']} ({plane['address']}) {state}, wanted UP")
    if seen["ready"] != "ok":
        found.append(f"https://{address}:{port}/readyz: {seen['ready']}, wanted ok")
    having = [name for name, held in holders.items() if held]
    if len(having) > 1:
        found.append(
            f"{address} is held by {' and '.join(having)}, wanted one: VRRP (protocol 112) does not reach them"
        )
    elif not having and len(holders) == len(options["control_planes"]):
        found.append(f"{address} is held by none of {', '.join(holders)}, wanted one: see journalctl -u keepalived")
    return found

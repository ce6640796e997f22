# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Choose a host's driver: branch, kind of kernel module and components, from the products that it has.

Sources: the support matrix of NVIDIA's data center driver documentation (branches and their ends, as of November 2026),
the release notes of R580 (last branch for Maxwell, Pascal and Volta) and of R620 (no proprietary module), the platform
table of the GPU Operator (minimum versions), and the Fabric Manager user guide (which baseboard needs which service).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.catalogue import Product

COMPONENTS = ("fabric_manager", "imex", "nvlsm")
"""What a driver may need beside itself, as words: which packages these are depends on the system."""

KERNEL_MODULES = ("open", "proprietary")

FIRST_OPEN_ONLY_BRANCH = 620

VERSION = re.compile(r"[0-9]{3}\.[0-9]{1,3}(\.[0-9]{1,3})?")
"""A whole driver version: 580.173.02."""


@dataclass(frozen=True)
class Branch:
    """A driver branch.

    Attributes:
        number: the first part of its versions.
        kind: lts, production or feature.
        end: month after which NVIDIA no longer supports it, YYYY-MM; None where none is stated.
        ended: whether that month is past. It is part of the table, because a plan has no clock.
        automatic: whether it may be chosen without being named. R620 is an LTS branch of November 2026: name it.
    """

    number: int
    kind: str
    end: str | None
    ended: bool = False
    automatic: bool = False


BRANCHES = (
    Branch(535, "lts", "2026-06", ended=True),
    Branch(580, "lts", "2028-06", automatic=True),
    Branch(595, "production", "2027-03"),
    Branch(610, "feature", "2026-08", ended=True),
    Branch(615, "feature", None),
    Branch(620, "lts", "2029-09"),
)


@dataclass(frozen=True)
class Wish:
    """What the operator asks for. None and ``auto`` are the same: decide from the products."""

    branch: int | None = None
    version: str | None = None
    kernel_module: str | None = None
    components: tuple[str, ...] | None = None
    allowed_branches: tuple[int, ...] = ()


@dataclass(frozen=True)
class Device:
    """One recorded GPU: its PCI address, its raw ids, and its product, None when the catalogue lacks it."""

    address: str
    raw_id: str
    product: Product | None


@dataclass(frozen=True)
class Fault:
    """A reason why no driver can be chosen: a stable code, what was found, what is wanted, what to do."""

    code: str
    found: str
    wanted: str
    fix: str


@dataclass(frozen=True)
class Decision:
    """The driver of a host."""

    branch: int
    version: str | None
    kernel_module: str
    components: tuple[str, ...]
    why: str


def branch_of(version: str) -> int:
    """Return 580 of "580.173.02"."""
    return int(version.split(".", 1)[0])


def version_key(version: str) -> tuple[int, ...]:
    """Return a key by which driver versions sort by age."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", version))


def decide(devices: Sequence[Device], nvswitches: int | None, wish: Wish) -> tuple[Decision | None, list[Fault]]:
    """Choose the driver that every product of a host can run.

    Args:
        devices: the recorded GPUs of the host, at least one.
        nvswitches: the number of NVSwitch devices on the PCI bus; None when nobody counted.
        wish: what the operator asks for.

    Returns:
        The decision, or None together with the faults that prevent one.
    """
    products = _distinct([device.product for device in devices if device.product is not None])
    unknown = [device for device in devices if device.product is None]
    named = wish.branch is not None or wish.version is not None
    if unknown and not (named and wish.kernel_module is not None and wish.components is not None):
        return None, [
            Fault(
                "driver_product_unknown",
                f"{', '.join(f'{device.address} is {device.raw_id}' for device in unknown)}, which the catalogue lacks",
                "products whose driver is known, or branch, kernel_module and components by name",
                "add the product to plugins/module_utils/_gpu/catalogue.py, or set fleet_driver.branch, "
                "fleet_driver.kernel_module and fleet_driver.components",
            )
        ]
    faults: list[Fault] = []
    branch = _branch(products, wish, faults)
    kinds = _kernel_modules(products, faults)
    if branch is None or not kinds:
        return None, faults
    kernel_module = _kernel_module(products, kinds, branch, wish, faults)
    _check_version(products, branch, wish, faults)
    if faults:
        return None, faults
    components, reason = _components(products, nvswitches, wish)
    how = "as given" if named else "the newest long-term branch that has settled and that every product allows"
    kind = "as given" if wish.kernel_module else f"{' and '.join(_names(products))} can run it"
    why = f"branch {branch}, {how}; {kernel_module} kernel module, {kind}; {reason}"
    return Decision(branch, wish.version, kernel_module, components, why), []


def _distinct(products: Sequence[Product]) -> list[Product]:
    """Return the products without repetition, by name."""
    return sorted(set(products), key=lambda product: product.name)


def _names(products: Sequence[Product]) -> list[str]:
    return [product.name for product in products] or ["the host"]


def _allows(product: Product, branch: int) -> bool:
    """Whether a branch serves a product."""
    minimum, maximum = product.driver_branch_minimum, product.driver_branch_maximum
    return (minimum is None or branch >= minimum) and (maximum is None or branch <= maximum)


def _limits(product: Product) -> str:
    """Return a product's limits in words."""
    limits = []
    if product.driver_version_minimum:
        limits.append(f"{product.driver_version_minimum} or newer")
    if product.driver_branch_maximum:
        limits.append(f"branch {product.driver_branch_maximum} or older")
    return f"{product.name}: {' and '.join(limits) or 'any branch'}"


def _branch(products: Sequence[Product], wish: Wish, faults: list[Fault]) -> int | None:
    """Return the branch, or None with a fault."""
    branch = wish.branch if wish.version is None else branch_of(wish.version)
    if branch is None:
        usable = [entry for entry in BRANCHES if entry.kind == "lts" and not entry.ended]
        serving = [entry for entry in usable if all(_allows(product, entry.number) for product in products)]
        settled = [entry for entry in serving if entry.automatic]
        if settled:
            return max(entry.number for entry in settled)
        if serving:
            return min(entry.number for entry in serving)
        faults.append(
            Fault(
                "driver_contradiction",
                f"no supported branch serves all of: {'; '.join(map(_limits, products))}",
                "one branch for the whole host",
                "put these products into different hosts",
            )
        )
        return None
    if wish.version is not None and wish.branch not in (None, branch):
        faults.append(
            Fault(
                "driver_contradiction",
                f"fleet_driver.branch is {wish.branch} and fleet_driver.version is {wish.version}",
                "a version of that branch",
                "correct one of them, or leave branch out",
            )
        )
        return None
    entry = next((entry for entry in BRANCHES if entry.number == branch), None)
    if branch not in wish.allowed_branches and (entry is None or entry.ended):
        supported = ", ".join(f"{known.number} ({known.kind})" for known in BRANCHES if not known.ended)
        state = f"NVIDIA's support for it ended in {entry.end}" if entry else "it is not in the table of branches"
        faults.append(
            Fault(
                "driver_branch_unsupported",
                f"branch {branch}: {state}",
                f"auto or one of {supported}",
                f"set fleet_driver.branch to one of these, or add {branch} to fleet_driver.allowed_branches",
            )
        )
        return None
    refusing = [product for product in products if not _allows(product, branch)]
    if refusing:
        faults.append(
            Fault(
                "driver_branch_unfit",
                f"branch {branch} does not serve {', '.join(product.name for product in refusing)}",
                "; ".join(map(_limits, refusing)),
                "set fleet_driver.branch (for one host: fleet_driver_override.branch) to auto or to such a branch",
            )
        )
        return None
    return branch


def _kernel_modules(products: Sequence[Product], faults: list[Fault]) -> list[str]:
    """Return the kinds of kernel module that serve every product."""
    kinds = [kind for kind in KERNEL_MODULES if all(kind in product.kernel_modules for product in products)]
    if not kinds:
        needs = [f"{product.name}: {' or '.join(product.kernel_modules)}" for product in products]
        faults.append(
            Fault(
                "driver_contradiction",
                f"no kernel module serves all of: {'; '.join(needs)}",
                "one kind of kernel module for the whole host",
                "put these products into different hosts",
            )
        )
    return kinds


def _kernel_module(
    products: Sequence[Product], kinds: Sequence[str], branch: int, wish: Wish, faults: list[Fault]
) -> str:
    """Return open or proprietary; open wins where both serve."""
    chosen = wish.kernel_module or ("open" if "open" in kinds else "proprietary")
    if chosen not in kinds:
        faults.append(
            Fault(
                "driver_kernel_module_unfit",
                f"the {chosen} kernel module does not serve {', '.join(_names(products))}",
                f"the {' or '.join(kinds)} one",
                "set fleet_driver.kernel_module (for one host: fleet_driver_override.kernel_module) to auto",
            )
        )
    elif chosen == "proprietary" and branch >= FIRST_OPEN_ONLY_BRANCH:
        faults.append(
            Fault(
                "driver_kernel_module_unfit",
                f"branch {branch} has no proprietary kernel module",
                f"the open one, or a branch below {FIRST_OPEN_ONLY_BRANCH}",
                "set fleet_driver.kernel_module to auto, or choose an older fleet_driver.branch",
            )
        )
    return chosen


def _check_version(products: Sequence[Product], branch: int, wish: Wish, faults: list[Fault]) -> None:
    """Hold an exact minimum against the version, which must be named when the branch alone does not decide it."""
    for product in products:
        minimum = product.driver_version_minimum
        if minimum is None or "." not in minimum or branch_of(minimum) != branch:
            continue
        if wish.version is None or version_key(wish.version) < version_key(minimum):
            faults.append(
                Fault(
                    "driver_version_too_old",
                    f"fleet_driver.version is {wish.version or 'not set'} with branch {branch}",
                    f"{minimum} or newer: {product.name} needs it",
                    f"set fleet_driver.version to {minimum} or newer, or choose a newer fleet_driver.branch",
                )
            )


def _components(products: Sequence[Product], nvswitches: int | None, wish: Wish) -> tuple[tuple[str, ...], str]:
    """Return the components and the reason for them.

    The switches of the fifth NVLink generation are no PCI devices of the host: there the product decides. Before, a
    board can be sold without switches (HGX A100 with four GPUs), so a count of none wins over the product.
    """
    if wish.components is not None:
        return tuple(sorted(wish.components)), "components as given"
    fabrics = {product.fabric for product in products}
    if "imex" in fabrics:
        return ("imex",), "IMEX, because the NVLink fabric is the rack's"
    if "nvlink5" in fabrics:
        return ("fabric_manager", "nvlsm"), "Fabric Manager with NVLSM, because of NVLink 5 switches"
    if "nvswitch" in fabrics and nvswitches != 0:
        counted = "as the product has" if nvswitches is None else f"{nvswitches} counted"
        return ("fabric_manager",), f"Fabric Manager, because of NVSwitch ({counted})"
    return (), "no fabric to manage"

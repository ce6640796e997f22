# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What is known about a GPU from its PCI identity alone, before any driver is installed.

The key is (PCI device id, subsystem id); the vendor is always 10DE. A device that is not listed here is
unknown: :func:`find` answers ``None`` and callers report the raw id. Nothing is derived from a name or from
a neighbouring id. When a driver runs, its own answers (NVML) win over this table.

Sources of the numbers:

- PCI ids and subsystem ids: README of NVIDIA/open-gpu-kernel-modules, table "Compatible GPUs" (595.45.04);
  233D, 2909 and the MIG maxima: NVIDIA/gpu-operator, assets/state-mig-manager/0400_configmap.yaml;
  Volta: the PCI id database.
- Compute capability: https://developer.nvidia.com/cuda-gpus and its page of legacy GPUs.
- Memory and NVLink: the vendor's product pages. Memory is the nominal size of the product in GB;
  what the driver reports is up to 7 % less (a T4 of 16 GB: 15360 MiB, a B300 of 288 GB: 275040 MiB).
- What the driver reports: published outputs of nvidia-smi (H100, A100, A10, L40S, L4 and T4 together in pull request
  2797 of modal-labs/modal-client; the others, drivers 535 to 610). Where none was at hand, or ECC is the owner's choice
  and takes memory (RTX A6000 and the like), there is none.
- PCIe generation and lanes: "System interface" or "Interconnect" of the vendor's data sheet or product brief of each
  product, set down without reading every sheet again: of all columns this one is the least certain. Where a sheet
  names a generation and no lanes, or none is public, the value is None. NVML's own answer for the generation wins.
- Driver limits and kernel module kinds: release notes of the driver branches R580 to R620 and the platform
  table of the GPU Operator (HGX B200 and RTX PRO 6000 Blackwell minima).

No product id has been published for B100 and for Vera Rubin in those sources, so neither is listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

VENDOR_ID = "10DE"

OPEN_ONLY = ("open",)
OPEN_OR_PROPRIETARY = ("open", "proprietary")
PROPRIETARY_ONLY = ("proprietary",)


#: Of a nominal size, what a driver reports at least: the least of the known products is the B300 with 93.3 %.
NOMINAL_SHARE = 0.93


@dataclass(frozen=True)
class Product:
    """One product, as NVIDIA sells it.

    Attributes:
        name: short product name, with the memory size where one name is sold in several sizes.
        device_id: PCI device id, four hexadecimal digits in upper case.
        subsystem_ids: PCI subsystem *device* ids (the board maker's vendor id in front differs) that single
            this product out of several with the same device id; empty means "every other subsystem".
        architecture: volta, turing, ampere, ada, hopper or blackwell.
        compute_capability: "major.minor" as CUDA counts.
        memory_gb: nominal memory of one GPU in GB (1024**3 bytes), None where no source states it.
        reported_mib: what a driver reports of it in MiB, None where no source states it.
        nvlink_gb_per_second: NVLink bandwidth of one GPU in GB/s, both directions together; None where the
            product has no NVLink or no source states it.
        nvlink_kind: none, bridge (pairs of cards), sxm (baseboard or rack), c2c (also to the CPU).
        mig_instances: the largest number of MIG instances, 0 without MIG.
        pcie_generation: the highest PCIe generation of the product, None where no source states it.
        pcie_width: PCIe lanes of one GPU, None where no source states it.
        kernel_modules: kinds of the driver's kernel module that support it. R620 ships the open kind only.
        driver_version_minimum: first driver version that supports the platform, None where none is stated.
        driver_branch_maximum: last driver branch that supports it, None for no end.
        fabric: what joins the GPUs of a host: none; nvswitch (Fabric Manager, if the PCI bus shows NVSwitch
            devices); nvlink5 (Fabric Manager with nvlsm; its switches are not on the PCI bus); imex (rack).
        cpu_architecture: aarch64 where the GPU comes with an Arm CPU, else any.
        note: what else an operator should know.
    """

    name: str
    device_id: str
    architecture: str
    compute_capability: str
    memory_gb: int | None
    subsystem_ids: tuple[str, ...] = ()
    reported_mib: int | None = None
    nvlink_gb_per_second: float | None = None
    nvlink_kind: str = "none"
    mig_instances: int = 0
    pcie_generation: int | None = None
    pcie_width: int | None = None
    kernel_modules: tuple[str, ...] = OPEN_OR_PROPRIETARY
    driver_version_minimum: str | None = None
    driver_branch_maximum: int | None = None
    fabric: str = "none"
    cpu_architecture: str = "any"
    note: str = ""

    @property
    def driver_branch_minimum(self) -> int | None:
        """The branch of ``driver_version_minimum`` (570 of "570.133.20")."""
        return int(self.driver_version_minimum.split(".")[0]) if self.driver_version_minimum else None

    @property
    def memory_mib(self) -> int | None:
        """Nominal memory in MiB; what the driver reports is a little less."""
        return None if self.memory_gb is None else self.memory_gb * 1024

    @property
    def expected_mib(self) -> int | None:
        """What a driver will report, or at least report: for plans that are made before there is one."""
        if self.reported_mib is not None or self.memory_mib is None:
            return self.reported_mib
        return int(self.memory_mib * NOMINAL_SHARE)


_volta = partial(
    Product,
    architecture="volta",
    compute_capability="7.0",
    pcie_generation=3,
    pcie_width=16,
    kernel_modules=PROPRIETARY_ONLY,
    driver_branch_maximum=580,
    note="vLLM needs compute capability 7.5 and does not run on it",
)
_turing = partial(Product, architecture="turing", compute_capability="7.5", pcie_generation=3, pcie_width=16)
_ga100 = partial(Product, architecture="ampere", compute_capability="8.0", pcie_generation=4, pcie_width=16)
_a100_sxm = partial(_ga100, nvlink_gb_per_second=600, nvlink_kind="sxm", mig_instances=7, fabric="nvswitch")
_a100_pcie = partial(_ga100, nvlink_gb_per_second=600, nvlink_kind="bridge", mig_instances=7)
_a800_sxm = partial(_ga100, nvlink_gb_per_second=400, nvlink_kind="sxm", mig_instances=7, fabric="nvswitch")
_a800_pcie = partial(_ga100, nvlink_gb_per_second=400, nvlink_kind="bridge", mig_instances=7)
_ampere = partial(Product, architecture="ampere", compute_capability="8.6", pcie_generation=4, pcie_width=16)
_ampere_bridge = partial(_ampere, nvlink_gb_per_second=112.5, nvlink_kind="bridge")
_ada = partial(Product, architecture="ada", compute_capability="8.9", pcie_generation=4, pcie_width=16)
_hopper = partial(
    Product, architecture="hopper", compute_capability="9.0", mig_instances=7, pcie_generation=5, pcie_width=16
)
_hopper_sxm = partial(_hopper, nvlink_gb_per_second=900, nvlink_kind="sxm", fabric="nvswitch")
_hopper_pcie = partial(_hopper, nvlink_gb_per_second=600, nvlink_kind="bridge")
_grace_hopper = partial(
    _hopper,
    nvlink_gb_per_second=900,
    nvlink_kind="c2c",
    pcie_generation=None,
    pcie_width=None,
    kernel_modules=OPEN_ONLY,
    cpu_architecture="aarch64",
)
_blackwell = partial(Product, architecture="blackwell", kernel_modules=OPEN_ONLY)
_blackwell_sxm = partial(_blackwell, nvlink_gb_per_second=1800, nvlink_kind="sxm", mig_instances=7)
_rtx_pro = partial(_blackwell, compute_capability="12.0", pcie_generation=5, pcie_width=16)

PRODUCTS: tuple[Product, ...] = (
    _volta("V100 SXM2 16GB", "1DB1", memory_gb=16, nvlink_gb_per_second=300, nvlink_kind="sxm"),
    _volta("V100 SXM2 32GB", "1DB5", memory_gb=32, nvlink_gb_per_second=300, nvlink_kind="sxm"),
    _volta("V100 PCIe 16GB", "1DB4", memory_gb=16),
    _volta("V100 PCIe 32GB", "1DB6", memory_gb=32),
    _turing("T4", "1EB8", memory_gb=16, reported_mib=15360),
    _turing("Quadro RTX 6000", "1E30", memory_gb=24, nvlink_gb_per_second=100, nvlink_kind="bridge"),
    _turing(
        "Quadro RTX 8000",
        "1E30",
        subsystem_ids=("129E",),
        memory_gb=48,
        nvlink_gb_per_second=100,
        nvlink_kind="bridge",
    ),
    _a100_sxm("A100 SXM4 40GB", "20B0", memory_gb=40, reported_mib=40960),
    _a100_sxm("A100 SXM4 80GB", "20B2", memory_gb=80, reported_mib=81920),
    _a100_sxm("A100 SXM 64GB", "20B3", memory_gb=64, pcie_generation=None, pcie_width=None, note="custom product"),
    _a100_pcie("A100 PCIe 40GB", "20F1", memory_gb=40, reported_mib=40960),
    _a100_pcie("A100 PCIe 80GB", "20B5", memory_gb=80, reported_mib=81920),
    _a800_sxm("A800 SXM4 40GB", "20BD", memory_gb=40),
    _a800_sxm("A800 SXM4 80GB", "20F3", memory_gb=80),
    _a800_pcie("A800 PCIe 80GB", "20F5", memory_gb=80),
    _a800_pcie("A800 40GB Active", "20F6", memory_gb=40),
    _ga100("A30", "20B7", memory_gb=24, nvlink_gb_per_second=200, nvlink_kind="bridge", mig_instances=4),
    _ampere_bridge("A40", "2235", memory_gb=48, reported_mib=46068),
    _ampere("A10", "2236", memory_gb=24, reported_mib=23028),
    _ampere("A10G", "2237", memory_gb=24, pcie_generation=None, pcie_width=None),
    _ampere(
        "A16",
        "25B6",
        subsystem_ids=("14A9",),
        memory_gb=16,
        pcie_width=None,
        note="four GPUs of 16 GB on one card, which share its 16 PCIe lanes",
    ),
    _ampere("A2", "25B6", subsystem_ids=("157E",), memory_gb=16, pcie_width=8),
    _ampere_bridge("RTX A6000", "2230", memory_gb=48),
    _ampere_bridge("RTX A5000", "2231", memory_gb=24),
    _ampere_bridge("RTX A5500", "2233", memory_gb=24),
    _ada("L4", "27B8", memory_gb=24, reported_mib=23034),
    _ada("L2", "27B6", memory_gb=24),
    _ada("L40", "26B5", memory_gb=48),
    _ada("L40S", "26B9", memory_gb=48, reported_mib=46068),
    _ada("L20", "26BA", memory_gb=48, reported_mib=46068),
    _ada("RTX 6000 Ada", "26B1", memory_gb=48),
    _ada("RTX 5880 Ada", "26B3", memory_gb=48),
    _ada("RTX 5000 Ada", "26B2", memory_gb=32),
    _hopper_sxm("H100 SXM5 80GB", "2330", memory_gb=80, reported_mib=81559),
    _hopper_pcie("H100 PCIe", "2331", memory_gb=80),
    _hopper_pcie("H100 NVL", "2321", memory_gb=94, reported_mib=95830),
    _hopper_sxm(
        "H100 SXM 64GB",
        "2339",
        memory_gb=64,
        pcie_generation=None,
        pcie_width=None,
        note='the driver calls it "NVIDIA H100"',
    ),
    _hopper_sxm(
        "H100 SXM 96GB",
        "233D",
        memory_gb=96,
        pcie_generation=None,
        pcie_width=None,
        note='the driver calls it "NVIDIA H100"',
    ),
    _hopper_sxm("H800 SXM", "2324", memory_gb=80, nvlink_gb_per_second=400),
    _hopper_pcie("H800 PCIe", "2322", memory_gb=80, nvlink_gb_per_second=400),
    _hopper_pcie("H800 NVL", "233A", memory_gb=94, nvlink_gb_per_second=400),
    _hopper_sxm("H200 SXM", "2335", memory_gb=141, reported_mib=143771),
    _hopper_pcie("H200 NVL", "233B", memory_gb=141, nvlink_gb_per_second=900),
    _hopper_sxm("H20", "2329", memory_gb=96, reported_mib=97871),
    _hopper_sxm("H20-3e", "232C", memory_gb=141),
    _hopper_sxm(
        "H20 NVL16",
        "230E",
        memory_gb=None,
        pcie_generation=None,
        pcie_width=None,
        note="memory size not stated by any source",
    ),
    _grace_hopper(
        "GH200 96GB", "2342", memory_gb=96, reported_mib=97871, note="sold with 120 GB or 480 GB of LPDDR in its name"
    ),
    _grace_hopper("GH200 144GB HBM3e", "2348", memory_gb=144),
    _blackwell_sxm(
        "B200 SXM",
        "2901",
        compute_capability="10.0",
        memory_gb=180,
        reported_mib=183359,
        pcie_generation=5,
        driver_version_minimum="570.133.20",
        fabric="nvlink5",
    ),
    _blackwell_sxm(
        "HGX B200 168GB",
        "2909",
        compute_capability="10.0",
        memory_gb=168,
        driver_version_minimum="570.133.20",
        fabric="nvlink5",
    ),
    _blackwell_sxm(
        "GB200",
        "2941",
        compute_capability="10.0",
        memory_gb=186,
        reported_mib=189471,
        fabric="imex",
        cpu_architecture="aarch64",
        note="186 to 189 GB by board",
    ),
    _blackwell_sxm(
        "B300 SXM6 AC",
        "3182",
        compute_capability="10.3",
        memory_gb=288,
        reported_mib=275040,
        pcie_generation=6,
        driver_version_minimum="580",
        fabric="nvlink5",
        note="about 275 GB of the nominal 288 GB are usable",
    ),
    _blackwell_sxm(
        "GB300",
        "31C2",
        compute_capability="10.3",
        memory_gb=288,
        fabric="imex",
        cpu_architecture="aarch64",
    ),
    _rtx_pro(
        "RTX PRO 6000 Blackwell Server Edition",
        "2BB5",
        memory_gb=96,
        reported_mib=97887,
        mig_instances=4,
        driver_version_minimum="575.57.08",
    ),
    _rtx_pro(
        "RTX PRO 6000 Blackwell Workstation Edition",
        "2BB1",
        memory_gb=96,
        reported_mib=97887,
        driver_version_minimum="575.57.08",
        note="MIG is confirmed for the Server Edition only",
    ),
    _rtx_pro(
        "RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        "2BB4",
        memory_gb=96,
        reported_mib=97887,
        driver_version_minimum="575.57.08",
        note="MIG is confirmed for the Server Edition only",
    ),
    _rtx_pro("RTX PRO 5000 Blackwell 48GB", "2BB3", memory_gb=48),
    _rtx_pro("RTX PRO 5000 Blackwell 72GB", "2BB3", subsystem_ids=("227A",), memory_gb=72),
    _rtx_pro("RTX PRO 4500 Blackwell", "2C31", memory_gb=32),
    _rtx_pro("RTX PRO 4000 Blackwell", "2C34", memory_gb=24),
    _rtx_pro(
        "RTX 6000D",
        "2BB9",
        memory_gb=None,
        pcie_generation=None,
        pcie_width=None,
        note="memory size not stated by any source",
    ),
    _ampere("GeForce RTX 3090", "2204", memory_gb=24, reported_mib=24576, nvlink_kind="bridge"),
    _ada("GeForce RTX 4090", "2684", memory_gb=24, reported_mib=24564),
    _blackwell(
        "GeForce RTX 5090",
        "2B85",
        compute_capability="12.0",
        memory_gb=32,
        reported_mib=32607,
        pcie_generation=5,
        pcie_width=16,
    ),
    _blackwell(
        "GB10",
        "2E12",
        compute_capability="12.1",
        memory_gb=128,
        cpu_architecture="aarch64",
        note="DGX Spark; the memory is shared with the CPU",
    ),
)


def _index(products: tuple[Product, ...]) -> dict[tuple[str, str | None], Product]:
    """Key every product by (device id, subsystem id or None); a key that occurs twice is a fault of the table."""
    table: dict[tuple[str, str | None], Product] = {}
    for product in products:
        keys: tuple[str | None, ...] = product.subsystem_ids or (None,)
        for subsystem in keys:
            key = (product.device_id, subsystem)
            if key in table:
                raise ValueError(f"catalogue: {key} is {table[key].name!r} and {product.name!r}")
            table[key] = product
    return table


_TABLE = _index(PRODUCTS)
_NEEDS_SUBSYSTEM = frozenset(device for device, subsystem in _TABLE if subsystem is not None)


def find(device_id: str, subsystem_id: str | None = None) -> Product | None:
    """Return the product with this PCI identity, or None when it is unknown.

    Args:
        device_id: PCI device id, hexadecimal, any case ("2330").
        subsystem_id: "VENDOR:DEVICE" ("10DE:16C1") or the device part alone; None when it could not be read.

    For a device id that several products share, an unreadable subsystem makes the answer None: it would be a guess.
    """
    device = device_id.upper()
    subsystem = subsystem_id.upper().rpartition(":")[2] if subsystem_id else None
    if subsystem is None:
        return None if device in _NEEDS_SUBSYSTEM else _TABLE.get((device, None))
    return _TABLE.get((device, subsystem)) or _TABLE.get((device, None))

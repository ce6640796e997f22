#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module gpu_facts: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gpu_facts
short_description: Read the NVIDIA GPUs of a host
version_added: "0.1.0"
description:
  - Reads the NVIDIA GPUs of a host from PCI sysfs, which works before any driver is installed, and from the driver
    when one runs.
  - The driver is asked through NVML with the Python package C(nvidia-ml-py) where the host has it, else through the
    program C(nvidia-smi), which comes with every driver. Without either, the PCI bus and the collection's catalogue
    of products answer.
  - The driver's answer wins over the catalogue; a disagreement is a warning.
  - Every question to the driver is asked in a child process with a deadline, so that a driver that hangs does not hang
    Ansible. What became of it is a fact, RV(ansible_facts.gpu.driver_state); what the PCI bus tells is reported all the
    same.
  - A device that the catalogue does not list is reported with its raw id and nothing is assumed about it.
  - A host without GPUs is no error, its list of GPUs is empty.
author:
  - The gpufleet.metal maintainers (@gpufleet)
extends_documentation_fragment:
  - gpufleet.metal.gpu_reader
attributes:
  check_mode:
    description: Can run in check mode and return what it would without it.
    support: full
  diff_mode:
    description: Returns details on what has changed, or could change.
    support: none
    details: The module changes nothing.
  facts:
    description: Action returns an RV(ignore:ansible_facts) dictionary that updates existing host facts.
    support: full
  platform:
    description: Systems that the action runs on.
    platforms: linux
    support: full
notes:
  - Supports C(check_mode); it never changes the host.
"""

EXAMPLES = r"""
- name: Read the GPUs of the host
  gpufleet.metal.gpu_facts:

- name: Read simulated GPUs below another directory
  gpufleet.metal.gpu_facts:
    sysfs_root: /srv/simsys

- name: Show every GPU with its memory
  ansible.builtin.debug:
    msg: "{{ item.pci_address }}: {{ item.product }}, {{ item.memory_mib }} MiB"
  loop: "{{ ansible_facts.gpu.gpus }}"
"""

RETURN = r"""
ansible_facts:
  description: Facts to add to the host's.
  returned: always
  type: dict
  contains:
    gpu:
      description: The NVIDIA GPUs of the host. A value is null where nobody can tell it.
      type: dict
      contains:
        simulated:
          description: Whether the GPUs are simulated, told by the sysfs tree, the driver's version or a name.
          type: bool
          sample: false
        source:
          description: Who answered beside the PCI bus. V(pci) means nobody, no driver could be asked.
          type: str
          sample: nvml
        driver_state:
          description:
            - What the driver is, in one word.
            - V(absent), no driver runs, because none is installed or its kernel module is not loaded.
            - V(running), it answers.
            - V(mismatch), its library and its kernel module are of different versions.
            - V(lost), it no longer reaches a GPU, which has fallen off the bus.
            - V(hung), it gave no answer before the deadline.
            - V(broken), anything else.
          type: str
          sample: running
        driver_state_reason:
          description: Why, in the words of the reader that found it. Null for a driver that runs.
          type: str
          sample: "NVML does not start: RM has detected an NVML/RM version mismatch."
        driver_version:
          description: Version of the running driver.
          type: str
          sample: 580.105.08
        cuda_version:
          description: Newest CUDA version that the driver supports.
          type: str
          sample: "13.0"
        nvswitch_count:
          description: Number of NVSwitch devices on the PCI bus. The switches of NVLink 5 boards are not on it.
          type: int
          sample: 4
        fabric_manager:
          description:
            - State of the service C(nvidia-fabricmanager) where NVSwitches join the GPUs, in the words of
              C(systemctl is-active).
            - Null on other hosts, for simulated GPUs, and where systemd gives no answer.
          type: str
          sample: active
        gpus:
          description: The GPUs, sorted by PCI address.
          type: list
          elements: dict
          contains:
            pci_address:
              description: PCI address as sysfs writes it.
              type: str
              sample: "0000:17:00.0"
            index:
              description: The driver's index of the GPU.
              type: int
              sample: 0
            in_driver:
              description: Whether the running driver reports the GPU. Null when no driver answered.
              type: bool
              sample: true
            device_id:
              description: PCI device id, hexadecimal, upper case; the vendor is always 10DE.
              type: str
              sample: "2330"
            subsystem_id:
              description: PCI subsystem, vendor and device.
              type: str
              sample: "10DE:16C1"
            product:
              description: Product by the catalogue, else the driver's name for it.
              type: str
              sample: H100 SXM5 80GB
            name:
              description: The driver's name for it.
              type: str
              sample: NVIDIA H100 80GB HBM3
            catalogued:
              description: Whether the catalogue lists the device.
              type: bool
              sample: true
            uuid:
              description: The driver's id of this very card.
              type: str
              sample: GPU-8f2d5a3e-1c7b-4e0e-9a55-0b6d0c7e4f11
            memory_mib:
              description: Memory in MiB; the driver's answer, else the product's nominal size.
              type: int
              sample: 81559
            memory_source:
              description: Who told the memory, V(nvml), V(nvidia-smi) or V(catalogue) (nominal).
              type: str
              sample: nvml
            compute_capability:
              description: CUDA compute capability.
              type: str
              sample: "9.0"
            numa_node:
              description: NUMA node of the PCI slot, null where the machine has none.
              type: int
              sample: 0
            mig_enabled:
              description: Whether the GPU is in MIG mode now.
              type: bool
              sample: false
            persistence_mode:
              description: Whether the driver keeps the GPU initialised when nobody uses it.
              type: bool
              sample: true
            ecc_enabled:
              description: Whether ECC is on now.
              type: bool
              sample: true
            ecc_uncorrectable:
              description: Uncorrectable memory errors since the driver was loaded, and ever.
              type: dict
              sample:
                volatile: 0
                aggregate: 0
            remapped_rows:
              description:
                - Memory rows that were replaced after correctable and uncorrectable errors, whether a replacement waits
                  for a reset, and whether one has failed.
              type: dict
              sample:
                correctable: 0
                uncorrectable: 0
                pending: false
                failure: false
            processes:
              description: The processes that compute on the GPU. An empty list means none.
              type: list
              elements: dict
              sample:
                - pid: 4711
                  name: VLLM::EngineCore
                  memory_mib: 70000
            fabric:
              description:
                - How far Fabric Manager has brought this GPU, RV(ignore:state) V(completed) and RV(ignore:status)
                  V(success) when it is ready.
                - Null where no NVSwitch joins the GPU.
              type: dict
              sample:
                state: completed
                status: success
            nvlink_peers:
              description:
                - PCI addresses of the host's GPUs that NVLink joins it to, directly or by switches.
                - Empty means none, null means not known.
              type: list
              elements: str
              sample: ["0000:3d:00.0"]
            links:
              description:
                - Active NVLinks, counted by what is at the other end. Null where the product has no NVLink.
                - The program C(nvidia-smi) does not name switches, and with a single peer does not tell whether one is
                  between, RV(ignore:peer_type) is then V(unknown).
              type: list
              elements: dict
              sample:
                - peer_type: switch
                  peer_pci_address: "0000:07:00.0"
                  count: 4
            topology:
              description:
                - How each other GPU is reached.
                - The program C(nvidia-smi) tells no RV(ignore:p2p_read), and of GPUs that NVLink joins no
                  RV(ignore:common_ancestor).
              type: list
              elements: dict
              sample:
                - peer_pci_address: "0000:3d:00.0"
                  common_ancestor: node
                  nvlink: true
                  p2p_read: ok
            kernel_driver:
              description: Kernel driver that the PCI device is bound to.
              type: str
              sample: nvidia
            pcie:
              description: Current and highest speed and width of the PCIe link, as sysfs writes them.
              type: dict
              sample:
                speed: 32.0 GT/s PCIe
                speed_maximum: 32.0 GT/s PCIe
                width: 16
                width_maximum: 16
            pcie_link:
              description:
                - The PCIe link as the driver sees it. The generation now (an idle GPU lowers it), the highest that the
                  GPU in this slot can use, the highest of the GPU alone, and the number of lanes now and at most.
              type: dict
              sample:
                generation: 1
                generation_maximum: 5
                generation_product: 5
                width: 16
                width_maximum: 16
        unknown_devices:
          description: GPUs that the catalogue does not list, with their raw ids.
          type: list
          elements: dict
          sample: []
        warnings:
          description: What could not be read or does not agree. Each is shown as a warning, too.
          type: list
          elements: str
          sample: []
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.options import READER_OPTIONS, read


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=READER_OPTIONS, supports_check_mode=True)
    facts = read(module)
    for text in facts["warnings"]:
        module.warn(text)
    module.exit_json(changed=False, ansible_facts={"gpu": facts})


if __name__ == "__main__":
    main()

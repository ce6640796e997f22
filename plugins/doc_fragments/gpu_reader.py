# SPDX-License-Identifier: Apache-2.0
"""What every module that reads the GPUs of a host takes."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of ``module_utils/_gpu/options.py``."""

    DOCUMENTATION = r"""
options:
  sysfs_root:
    description:
      - Directory where sysfs is mounted.
      - A file named C(SIMULATED) in it marks the GPUs below as simulated.
    type: path
    default: /sys
  nvml_library:
    description:
      - Absolute path of C(libnvidia-ml.so.1) on the host.
      - Null lets the dynamic linker find it.
    type: path
  nvidia_smi:
    description:
      - Name or absolute path of the program C(nvidia-smi), used where NVML cannot be read.
    type: str
    default: nvidia-smi
  deadline_seconds:
    description:
      - Seconds that each reader of the driver, NVML and C(nvidia-smi), may take. One that gives no answer is killed,
        and the driver counts as hung.
    type: float
    default: 10
"""

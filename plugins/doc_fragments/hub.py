# SPDX-License-Identifier: Apache-2.0
"""What every module that asks a model hub takes."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of ``module_utils/_model_files.py``."""

    DOCUMENTATION = r"""
options:
  huggingface_endpoint:
    description:
      - Base URL of the hub or of a mirror that speaks its API.
    type: str
    default: https://huggingface.co
  huggingface_token:
    description:
      - Token for repositories that aren't public.
    type: str
"""

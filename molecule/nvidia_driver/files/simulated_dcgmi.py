# SPDX-License-Identifier: Apache-2.0
"""Stands in for dcgmi in a test: a report of the form of DCGM 4's. It asks no GPU. Not hardware.

The file dcgm.json below /srv/simulated_host says what differs from a report in which every test has passed: ``version``
of the DCGM, and the warning with which a GPU ``fails``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SAYS = Path("/srv/simulated_host/dcgm.json")


def main(arguments: list[str]) -> int:
    """Answer `diag --run LEVEL --json`; a failed test ends with 226, as DCGM's own."""
    if arguments[:2] != ["diag", "--run"] or arguments[3:] != ["--json"]:
        print(f"simulated dcgmi: {arguments} is not simulated", file=sys.stderr)
        return 2
    says = json.loads(SAYS.read_text(encoding="utf-8")) if SAYS.exists() else {}
    results = [{"entity_group": "GPU", "entity_id": gpu, "status": "Pass"} for gpu in range(2)]
    if "fails" in says:
        results[1].update(status="Fail", warnings=[{"warning": says["fails"]}])
    tests = [{"name": "software", "results": results}]
    report = {
        "DCGM Diagnostic": {"test_categories": [{"category": "Deployment", "tests": tests}]},
        "metadata": {"version": says.get("version", "4.6.1"), "simulated": True},
    }
    print(json.dumps(report, indent=1))
    return 226 if "fails" in says else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: Apache-2.0
"""One run of preflight shows the findings of a whole degraded fleet at once. The hardware is simulated."""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from artefact import Installed
from degraded_fleet import FINDINGS, build, play

pytestmark = pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="no C compiler")
SUBJECT = re.compile(r"^ *(?:host|model|fleet) (\S+): ([a-z_]+)$", re.MULTILINE)


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    return build(tmp_path)


def told(output: str) -> dict[str, list[str]]:
    """The codes of the report, by host, model or fleet; Ansible shows it as an error and as the task's result."""
    found = defaultdict(list)
    for subject, code in SUBJECT.findall(output.rpartition("FAILED! =>")[2]):
        found[subject].append(code)
    return dict(found)


def test_all_findings_of_the_fleet_come_in_one_report(installed: Installed, inventory: Path) -> None:
    status, output = play(installed, inventory, "gpufleet.metal.site")
    assert status == 2, output
    assert told(output) == FINDINGS, output
    number = sum(len(codes) for codes in FINDINGS.values())
    assert f"{number} findings on {len(FINDINGS)} hosts; nothing was changed on any host." in output
    assert "nvidia-smi: no answer within 5 seconds" in " ".join(output.split())
    assert re.search(r"changed=[1-9]", output) is None
    assert "PLAY [Harden" not in output, "nothing comes after the report"


def test_the_plans_findings_stand_in_the_same_report(installed: Installed, inventory: Path) -> None:
    status, output = play(installed, inventory, "gpufleet.metal.preflight", "--extra-vars", '{"fleet_modles": []}')
    assert status == 2, output
    assert told(output) == {"gpufleet": ["unknown_variable"], **FINDINGS}, output


def test_the_report_appears_even_when_no_host_answers(installed: Installed, inventory: Path) -> None:
    status, output = play(installed, inventory, "gpufleet.metal.preflight", "--limit", "gone")
    assert status == 2, output
    assert told(output) == {"gone": FINDINGS["gone"], "old": FINDINGS["old"]}, output
    assert "3 findings on 2 hosts; nothing was changed on any host." in output


def test_the_plan_alone_stops_with_its_own(installed: Installed, inventory: Path) -> None:
    status, output = play(installed, inventory, "gpufleet.metal.plan")
    assert status == 2, output
    assert told(output) == {"old": FINDINGS["old"]}, output
    assert "The plan has 2 findings; nothing was changed on any host." in output


def test_a_gpu_that_its_driver_does_not_report_does_not_spoil_a_record(installed: Installed, inventory: Path) -> None:
    """Before, it was recorded with nominal memory and without a UUID, and then never looked for."""
    status, output = play(installed, inventory, "gpufleet.metal.discover", "--limit", "dropped")
    assert status == 2, output
    assert (
        "dropped: found a driver that does not report the GPU 0000:3d:00.0, which is on the PCI bus, wanted one that "
        'answers for every GPU, or none. Nothing was recorded; repair it (docs/findings.md, "Drivers") and run '
        "discover again."
    ) in " ".join(output.split())
    assert not (inventory / "host_vars").exists()


def test_check_mode_shows_the_record_of_a_new_host(installed: Installed, inventory: Path) -> None:
    arguments = ("gpufleet.metal.discover", "--limit", "switch", "--check")
    status, output = play(installed, inventory, *arguments)
    assert status == 0, output
    shown = output.partition("TASK [Show the record that a new host would get]")[2]
    assert 'pci_address: "0000:17:00.0"' in shown.replace("'", "").replace('\\"', '"'), output
    assert not (inventory / "host_vars").exists()
    # And it is what is written then.
    status, output = play(installed, inventory, *arguments[:-1])
    assert status == 0, output
    record = (inventory / "host_vars" / "switch" / "gpu_inventory.yml").read_text(encoding="utf-8")
    assert 'memory_source: "nvml"' in record
    words = " ".join(shown.replace('\\"', '"').split())
    assert [line for line in record.splitlines() if " ".join(line.split()) not in words] == []
    status, output = play(installed, inventory, *arguments)
    assert (status, "changed=0" in output) == (0, True), output


def test_a_driver_that_hangs_does_not_spoil_a_record(installed: Installed, inventory: Path) -> None:
    status, output = play(installed, inventory, "gpufleet.metal.discover", "--limit", "frozen")
    assert status == 2, output
    words = " ".join(output.split())
    assert "frozen: found a driver that is hung (nvidia-smi: no answer within 10 seconds)" in words
    assert not (inventory / "host_vars").exists()

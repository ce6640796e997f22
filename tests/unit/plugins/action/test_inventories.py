# SPDX-License-Identifier: Apache-2.0
"""Every inventory of the repository is planned, without findings, into what docs/plan.schema.json describes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from jsonschema import Draft202012Validator

from ansible_collections.gpufleet.metal.plugins.action.fleet_plan import ActionModule
from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import needs, variables
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.cluster import DOCKER_POOLS
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import TINY_CONFIG

ROOT = Path(__file__).parents[4]
NAMES = sorted(path.name for path in (ROOT / "inventories").iterdir() if path.is_dir())
SCHEMA = json.loads((ROOT / "docs" / "plan.schema.json").read_text(encoding="utf-8"))

#: What tools/sandbox/build.sh says about the media of the sandbox, of which the plan needs only the form.
MEDIA = {
    "image": {
        "reference": "gpufleet-sandbox-vllm:0.32.0",
        "archive": "file:///srv/media/images/vllm-cpu.tar",
        "archive_sha256": "1" * 64,
        "id": f"sha256:{'2' * 64}",
    },
    "model": {
        "path": "/srv/media/models/tiny-llama",
        "archive": {"url": "file:///srv/media/models/tiny-llama.tar", "sha256": "3" * 64},
        "files_sha256": {"config.json": "4" * 64},
        "weights_bytes": 461568,
        "config": TINY_CONFIG,
    },
}


def variables_of(name: str) -> tuple[DataLoader, InventoryManager, VariableManager]:
    """Read an inventory of the repository."""
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(ROOT / "inventories" / name)])
    return loader, inventory, VariableManager(loader=loader, inventory=inventory)


def plan_of(name: str, directory: Path) -> dict[str, Any]:
    """Run the action on an inventory of the repository."""
    loader, inventory, manager = variables_of(name)
    hostvars = HostVars(inventory=inventory, variable_manager=manager, loader=loader)
    host = inventory.get_hosts("gateways")[0]
    task_vars = {**manager.get_vars(host=host), "hostvars": hostvars}
    task = Mock(args={"directory": str(directory)}, async_val=0, check_mode=False, diff=False, delegate_to=None)
    action = ActionModule(
        task=task,
        connection=Mock(),
        play_context=Mock(),
        loader=loader,
        templar=Templar(loader=loader, variables=task_vars),
        shared_loader_obj=None,
    )
    return action.run(task_vars=task_vars)


def test_there_are_inventories() -> None:
    """The examples and the sandbox are found."""
    assert {"airgapped", "ha_kubernetes", "sandbox", "single_rack"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_plan(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The written plan.json has the published shape."""
    media = tmp_path / "gpufleet-metal" / "media"
    media.mkdir(parents=True)
    (media / "media.json").write_text(json.dumps(MEDIA))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = plan_of(name, tmp_path / "fleet")
    assert not result.get("failed"), result["msg"]
    plan = json.loads((tmp_path / "fleet" / "plan.json").read_text(encoding="utf-8"))
    assert plan["instances"]
    Draft202012Validator(SCHEMA).validate(plan)
    # What the other file holds after a run is taken up again, and changes nothing.
    assert "nothing was applied yet" in result["table"]


URL = re.compile(r"https?://([^/\s\"']+)")
SERVER = "bundle.vault.example"
#: Which group each role that fetches something is applied to, as the stage playbooks do.
GROUPS = {
    "docker": "gpu_nodes",
    "model_store": "gpu_nodes",
    "nvidia_driver": "gpu_nodes",
    "nginx": "gateways",
    # The air-gapped inventory has no cluster: nothing is seen of these there.
    "flannel": "kube_control_plane",
    "kubernetes": "kube_nodes",
}
FACTS = {"distribution": "Debian", "distribution_release": "bookworm", "os_family": "Debian"}
#: Defaults that are not used with what the inventory says, and what shows that.
UNUSED = {
    "model_store_huggingface_endpoint": lambda given, plan: all(
        "huggingface" not in model["source"] for host in plan["hosts"].values() for model in host.get("models", ())
    ),
    "nginx_repository_key_url": lambda given, plan: given["nginx_repository"] == "distribution",
}


def role_values(role: str) -> dict[str, Any]:
    """Return the defaults and the constants of a role."""
    loader = DataLoader()
    values: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        path = ROOT / "roles" / role / part / "main.yml"
        if path.exists():
            values.update(loader.load_from_file(str(path), trusted_as_template=True))
    return values


def fetched_from(role: str, host_variables: dict[str, Any]) -> dict[str, str]:
    """Return every address and every choice of a repository that the role sees with these variables."""
    values = {**role_values(role), **host_variables}
    templar = Templar(loader=DataLoader(), variables=values)
    return {
        name: str(templar.template(values[name]))
        for name in role_values(role)
        if not name.endswith("_vendor_url")
        and isinstance(values[name], str)
        and (re.search(r"_(url|uri|endpoint|repository)$", name) or "://" in values[name])
    }


def test_every_role_that_fetches_something_is_looked_at() -> None:
    roles = {path.parent.parent.name for path in ROOT.glob("roles/*/defaults/main.yml")}
    fetch = {
        role
        for role in roles
        if any(isinstance(value, str) and ("://" in value or value == "vendor") for value in role_values(role).values())
    }
    # Completions, readiness and etcd are asked for inside the fleet.
    assert fetch - {"kubernetes_backup", "verify", "vllm"} == set(GROUPS)


def bundle_of(name: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Return the variables that a bundle of an inventory would be used with; its needs have no finding."""
    loader, inventory, manager = variables_of(name)
    hostvars = HostVars(inventory=inventory, variable_manager=manager, loader=loader)
    everywhere = hostvars[next(iter(plan["hosts"]))]
    options = {
        option: everywhere.get(f"bundle_{option}") for option in needs.OPTIONS if f"bundle_{option}" in everywhere
    }
    folder = ROOT / "roles" / "nvidia_driver" / "vars"
    rows = {
        "debian": [
            *loader.load_from_file(str(folder / "main.yml"))["__nvidia_driver_common_rows"],
            *loader.load_from_file(str(folder / "debian.yml"))["__nvidia_driver_rows"],
        ]
    }
    builders = {"b": {"distribution": "Debian", "version": "12", "release": "bookworm", "machine": "x86_64"}}
    settings = needs.settings_of(hostvars, plan["hosts"])
    found = needs.needs(plan, settings, {**options, "signed": True}, builders, rows)
    assert found["findings"] == []
    document = {
        **found,
        "systems": {"debian12": "amd64"},
        "repositories": found["systems"]["b"]["repositories"],
        "key_sha256": "1" * 64,
    }
    return variables.bundle_variables(document, f"http://{SERVER}", f"{SERVER}:443", "PEM")


def test_the_air_gapped_fleet_fetches_nothing_from_outside(tmp_path: Path) -> None:
    """With the variables of its bundle no repository is the vendor's, and every address is the bundle's server's."""
    assert not plan_of("airgapped", tmp_path).get("failed")
    text = (tmp_path / "plan.json").read_text(encoding="utf-8")
    assert set(URL.findall(text)) == set()
    plan = json.loads(text)
    given_to_all = bundle_of("airgapped", plan)
    digest = f"sha256:{'0' * 64}"
    assert given_to_all["vllm_image"] == {
        "reference": f"{SERVER}:443/docker.io/vllm/vllm-openai:v0.32.0@{digest}",
    }
    _loader, inventory, manager = variables_of("airgapped")
    seen = set()
    for role, group in GROUPS.items():
        for host in inventory.groups[group].get_hosts() if group in inventory.groups else ():
            driver = plan["hosts"][host.name].get("driver") or {}
            given = {
                **manager.get_vars(host=host),
                "ansible_facts": FACTS,
                "__nvidia_driver_key_file": "3BF863CC.pub",
                "__nvidia_driver_state": {"system": {"directory": "debian12/x86_64"}},
                # What playbooks/driver.yml hands over, and what goes before it: extra variables.
                **({"nvidia_driver_repository": driver["repository"]} if driver else {}),
                **given_to_all,
            }
            for name, value in fetched_from(role, given).items():
                if name in UNUSED:
                    assert UNUSED[name](given, plan), name
                    continue
                assert value != "vendor", f"{host}: {name}"
                assert set(URL.findall(value)) <= {SERVER}, f"{host}: {name} is {value}"
                seen |= set(URL.findall(value)) and {name}
    assert {"__docker_toolkit_base_url", "__docker_base_url", "__nvidia_driver_url", "__nvidia_driver_key_url"} <= seen


def test_the_pools_of_docker_that_the_plan_counts_with_are_those_of_its_role() -> None:
    """What hosts have that say nothing of docker_address_pools."""
    assert [pool["base"] for pool in role_values("docker")["docker_address_pools"]] == list(DOCKER_POOLS)

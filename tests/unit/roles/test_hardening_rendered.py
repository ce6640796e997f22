# SPDX-License-Identifier: Apache-2.0
"""What os_hardening and firewall write on systems that the sandbox does not run: Ubuntu and the RHEL family."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.utils.collection_loader import AnsibleCollectionConfig

ROLES = Path(__file__).resolve().parents[3] / "roles"

SYSTEMS: dict[str, dict[str, str]] = {
    "Debian 12": {"os_family": "Debian", "distribution": "Debian", "distribution_version": "12.11"},
    "Debian 13": {"os_family": "Debian", "distribution": "Debian", "distribution_version": "13.2"},
    "Ubuntu 22.04": {"os_family": "Debian", "distribution": "Ubuntu", "distribution_version": "22.04"},
    "Ubuntu 24.04": {"os_family": "Debian", "distribution": "Ubuntu", "distribution_version": "24.04"},
    "Ubuntu 26.04": {"os_family": "Debian", "distribution": "Ubuntu", "distribution_version": "26.04"},
    "RHEL 9": {"os_family": "RedHat", "distribution": "RedHat", "distribution_version": "9.6"},
    "Rocky 10": {"os_family": "RedHat", "distribution": "Rocky", "distribution_version": "10.0"},
}


@pytest.fixture(scope="module", autouse=True)
def plugins() -> None:
    # ansible-test has set the loader up already.
    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader()


def templar(role: str, system: str, **options: Any) -> Templar:
    """A templar with the role's defaults, its variables for the system, and the options of a user."""
    loader = DataLoader()
    facts: dict[str, Any] = dict(SYSTEMS[system])
    facts["distribution_major_version"] = facts["distribution_version"].split(".")[0]
    facts["interfaces"] = [
        "lo",
        "eth0",
        "ib0",
        "docker0",
        "br-0123456789ab",
        "br-lan",
        "br-storage",
        "compose",
        "veth12",
    ]
    facts["br_lan"] = {"type": "bridge", "interfaces": ["veth9"]}
    facts["br_storage"] = {"type": "bridge", "interfaces": ["eth1", "veth8"]}
    facts["compose"] = {"type": "bridge", "interfaces": ["veth12"]}
    facts.update(default_ipv4={"interface": "br-lan"}, default_ipv6={})
    variables: dict[str, Any] = {"ansible_facts": facts}
    for name in ("defaults/main.yml", "vars/main.yml", f"vars/{facts['os_family']}.yml"):
        path = ROLES / role / name
        if path.exists():
            variables.update(loader.load_from_file(str(path), cache="none", trusted_as_template=True))
    variables.update(options)
    return Templar(loader=loader, variables=variables)


def value(role: str, system: str, name: str, **options: Any) -> Any:
    return templar(role, system, **options).template(trust_as_template("{{ " + name + " }}"))


def rendered(role: str, system: str, template: str, **options: Any) -> str:
    text = trust_as_template((ROLES / role / "templates" / template).read_text())
    overrides = {"trim_blocks": True}
    return str(templar(role, system, **options).template(text, escape_backslashes=False, overrides=overrides))


@pytest.mark.parametrize(
    ("system", "packages", "units", "dests"),
    [
        (
            "Ubuntu 22.04",
            ["openssh-server", "procps", "chrony", "unattended-upgrades"],
            ["chrony.service", "apt-daily.timer", "apt-daily-upgrade.timer"],
            ["/etc/apt/apt.conf.d/52gpufleet-unattended-upgrades"],
        ),
        (
            "RHEL 9",
            ["openssh-server", "procps-ng", "chrony", "dnf-automatic"],
            ["chronyd.service", "dnf-automatic.timer"],
            ["/etc/dnf/automatic.conf"],
        ),
    ],
)
def test_packages_units_and_files(system: str, packages: list[str], units: list[str], dests: list[str]) -> None:
    options = {"os_hardening_time_servers": ["ntp.example.org"]}
    assert value("os_hardening", system, "__os_hardening_packages", **options) == packages
    assert value("os_hardening", system, "__os_hardening_units", **options) == units
    found = [entry["dest"] for entry in value("os_hardening", system, "__os_hardening_files", **options)]
    assert found == [
        "/usr/local/lib/gpufleet",
        "/usr/local/lib/gpufleet/check_sshd",
        "/etc/ssh/sshd_config.d/00-gpufleet.conf",
        "/etc/sysctl.d/99-zz-gpufleet.conf",
        *dests,
    ]


def test_what_is_switched_off_leaves_nothing_behind() -> None:
    options = {"os_hardening_time_service": "unmanaged", "os_hardening_automatic_updates": False}
    assert value("os_hardening", "Debian 13", "__os_hardening_packages", **options) == ["openssh-server", "procps"]
    assert value("os_hardening", "Debian 13", "__os_hardening_units", **options) == []
    assert len(value("os_hardening", "Debian 13", "__os_hardening_files", **options)) == 4


@pytest.mark.parametrize(
    ("system", "first"),
    [
        ("Debian 12", "sntrup761x25519-sha512@openssh.com"),
        ("Debian 13", "mlkem768x25519-sha256"),
        ("Ubuntu 22.04", "sntrup761x25519-sha512@openssh.com"),
        ("Ubuntu 26.04", "mlkem768x25519-sha256"),
        ("RHEL 9", None),
        ("Rocky 10", None),
    ],
)
def test_the_first_key_exchange_is_the_best_that_the_systems_openssh_knows(system: str, first: str | None) -> None:
    text = rendered("os_hardening", system, "sshd.conf.j2")
    kex = [line.split()[1].split(",")[0] for line in text.splitlines() if line.startswith("KexAlgorithms")]
    assert kex == ([] if first is None else [first])
    assert "\nPasswordAuthentication no\n" in text
    assert "\nPermitRootLogin prohibit-password\n" in text
    assert "AllowGroups" not in text


@pytest.mark.parametrize(
    ("system", "origin"),
    [
        ("Debian 12", '  "origin=Debian,codename=${distro_codename}-security,label=Debian-Security";\n'),
        ("Ubuntu 26.04", '  "origin=Ubuntu,archive=${distro_codename}-security";\n'),
    ],
)
def test_apt_takes_security_updates_only(system: str, origin: str) -> None:
    text = rendered("os_hardening", system, "unattended-upgrades.j2")
    assert "Unattended-Upgrade::Origins-Pattern {\n" + origin + "};\n" in text
    assert '  "^linux-";\n' in text
    assert '  "^nvidia";\n' in text


def test_dnf_takes_security_updates_only() -> None:
    text = rendered("os_hardening", "RHEL 9", "dnf-automatic.conf.j2", os_hardening_update_exclude=["kernel", "cuda"])
    assert "upgrade_type = security\n" in text
    assert "reboot = never\n" in text
    assert text.endswith("[base]\nexcludepkgs = cuda* kernel*\n")


def test_kernel_values_of_others_are_left_alone() -> None:
    options = {
        "os_hardening_sysctl": {"net.core.somaxconn": 4096, "kernel.panic": 10, "net.ipv4.tcp_syncookies": 2},
        "os_hardening_sysctl_unmanaged": ["kernel.*", "fs.*", "net.ipv6.*"],
    }
    wanted = value("os_hardening", "Debian 13", "__os_hardening_sysctl_wanted", **options)
    assert wanted["net.core.somaxconn"] == 4096
    assert wanted["net.ipv4.tcp_syncookies"] == 2
    assert {name.split(".")[0] for name in wanted} == {"net"}
    assert not [name for name in wanted if name.startswith("net.ipv6")]


def test_live_values_are_compared_by_name_and_by_pattern() -> None:
    live = [
        "net.ipv4.conf.all.rp_filter = 2",
        "net.ipv4.conf.eth0.rp_filter = 0",
        "net.ipv4.conf.eth0/100.rp_filter = 1",
        "net.ipv4.tcp_syncookies = 1",
        "net.ipv4.tcp_rmem = 4096\t131072\t6291456",
    ]
    found = value(
        "os_hardening",
        "Debian 13",
        "__os_hardening_sysctl_differing",
        __os_hardening_sysctl_live={"stdout_lines": live},
        os_hardening_sysctl={"net.ipv4.tcp_rmem": "4096 131072 6291456"},
    )
    assert found == ["net.ipv4.conf.eth0.rp_filter=2", "net.ipv4.conf.eth0/100.rp_filter=2"]


@pytest.mark.parametrize(
    ("enabled", "active", "condition", "tried", "differs"),
    [
        ("enabled", "active", "yes", "5", False),
        ("disabled", "active", "yes", "5", True),
        ("enabled", "failed", "yes", "5", True),
        ("enabled", "inactive", "no", "0", True),
        ("enabled", "inactive", "no", "5", False),
        ("masked", "inactive", "no", "5", True),
    ],
)
def test_units_that_are_not_as_wanted(enabled: str, active: str, condition: str, tried: str, differs: bool) -> None:
    block = (
        f"Id=x.service\nActiveState={active}\nUnitFileState={enabled}\n"
        f"ConditionResult={condition}\nConditionTimestampMonotonic={tried}"
    )
    found = value(
        "os_hardening", "Debian 13", "__os_hardening_units_differing", __os_hardening_units_live={"stdout": block}
    )
    assert found == (["x.service"] if differs else [])


def test_the_outside_is_every_interface_but_those_of_containers() -> None:
    assert value("firewall", "Debian 13", "__firewall_outer_interfaces") == ["br-lan", "br-storage", "eth0", "ib0"]
    chosen = value(
        "firewall", "Debian 13", "__firewall_outer_interfaces", firewall_external_interfaces=["wan1", "wan0"]
    )
    assert chosen == ["wan0", "wan1"]


def test_what_the_rules_accept_over_tcp() -> None:
    accepted = value(
        "firewall",
        "Debian 13",
        "__firewall_accepted",
        firewall_sets={"management": ["192.0.2.0/24"]},
        firewall_input=[
            {"name": "ssh", "source": "management", "protocol": "tcp", "ports": [22]},
            {"name": "https", "source": "any", "protocol": "tcp", "ports": [443]},
            {"name": "vxlan", "source": "any", "protocol": "udp", "ports": [8472]},
        ],
    )
    assert accepted == [
        {"ports": [22], "networks": ["192.0.2.0/24"]},
        {"ports": [443], "networks": ["0.0.0.0/0", "::/0"]},
    ]


@pytest.mark.parametrize(
    ("lines", "missing", "others", "boot"),
    [
        (["boot enabled"], [], [], "enabled"),
        (["missing nftables", "boot "], ["nftables"], [], ""),
        (["boot not-found", "other ufw is active"], [], ["ufw is active"], ""),
        (
            ["boot disabled", "other firewalld is running", "other firewalld starts at the next boot"],
            [],
            ["firewalld is running", "firewalld starts at the next boot"],
            "disabled",
        ),
    ],
)
def test_what_was_read_before_the_change(lines: list[str], missing: list[str], others: list[str], boot: str) -> None:
    read = {"stdout_lines": lines}
    found = [
        value("firewall", "Ubuntu 26.04", name, __firewall_read=read)
        for name in ("__firewall_missing", "__firewall_others", "__firewall_boot")
    ]
    assert found == [missing, others, boot]


def test_the_rules_of_a_gpu_node() -> None:
    text = rendered(
        "firewall",
        "Debian 12",
        "table.nft.j2",
        firewall_sets={"management": ["192.0.2.0/24", "2001:db8::/64"], "gateways": []},
        firewall_input=[{"name": "ssh", "source": "management", "protocol": "tcp", "ports": [2222, 22, 22]}],
        firewall_forward=[{"name": "engines", "source": "gateways", "protocol": "tcp", "ports": [8001, 8000]}],
    )
    lines = [line.strip() for line in text.splitlines()]
    assert 'ip saddr @management_v4 tcp dport { 22, 2222 } accept comment "ssh"' in lines
    assert 'ip6 saddr @management_v6 tcp dport { 22, 2222 } accept comment "ssh"' in lines
    outside = 'iifname { "br-lan", "br-storage", "eth0", "ib0" }'
    engines = (
        "ct status dnat ip saddr @gateways_v4 meta l4proto tcp ct original proto-dst { 8000, 8001 } "
        'accept comment "engines"'
    )
    known = lines.index(f'{outside} counter drop comment "not a planned flow"')
    inner = lines.index('iifname "docker*" accept')
    unknown = lines.index('counter drop comment "not a planned flow, by an interface that came later"')
    assert lines.index(engines) < known < inner < unknown == len(lines) - 2
    assert text.count("elements = ") == 2, "an empty set has no elements"


CLUSTER = {"firewall_sets": {"cp": ["192.0.2.21", "192.0.2.22"], "pods": ["10.244.0.0/16"]}}


def test_the_rules_of_a_control_plane() -> None:
    """VRRP has a protocol and no port, and etcd's rule beside it is written as ever."""
    text = rendered(
        "firewall",
        "Debian 12",
        "table.nft.j2",
        **CLUSTER,
        firewall_input=[
            {"name": "etcd", "source": "cp", "protocol": "tcp", "ports": [2380, 2379]},
            {"name": "VXLAN", "source": "cp", "protocol": "udp", "ports": [8472]},
            {"name": "VRRP", "source": "cp", "protocol": "vrrp", "ports": []},
        ],
    )
    lines = [line.strip() for line in text.splitlines()]
    first = lines.index('ip saddr @cp_v4 tcp dport { 2379, 2380 } accept comment "etcd"')
    assert lines[first + 1 :][:6] == [
        'ip6 saddr @cp_v6 tcp dport { 2379, 2380 } accept comment "etcd"',
        'ip saddr @cp_v4 udp dport { 8472 } accept comment "VXLAN"',
        'ip6 saddr @cp_v6 udp dport { 8472 } accept comment "VXLAN"',
        'ip saddr @cp_v4 meta l4proto 112 accept comment "VRRP"',
        'ip6 saddr @cp_v6 meta l4proto 112 accept comment "VRRP"',
        'counter comment "dropped by the policy"',
    ]


def test_routed_packets_pass_before_the_guard() -> None:
    """What is routed to pods comes from outside, untranslated; the guard after it drops the rest."""
    text = rendered(
        "firewall",
        "Debian 12",
        "table.nft.j2",
        **CLUSTER,
        firewall_routed=[{"name": "pods", "source": "cp", "destination": "pods"}],
    )
    lines = [line.strip() for line in text.splitlines()]
    first = lines.index('ip saddr @cp_v4 ip daddr @pods_v4 accept comment "pods"')
    assert lines[first - 1] == "ct state established,related accept"
    assert lines[first + 1] == 'ip6 saddr @cp_v6 ip6 daddr @pods_v6 accept comment "pods"'
    assert lines[first + 2].endswith('counter drop comment "not a planned flow"')


@pytest.mark.parametrize("name", ["gpu_node", "gateway"])
def test_the_table_of_a_fleet_without_kubernetes_is_that_of_before(name: str) -> None:
    """Byte for byte: another text would be another table on every host that runs."""
    directory = ROLES.parent / "tests" / "unit" / "fixtures" / "firewall"
    options = yaml.safe_load((directory / f"{name}.yml").read_text())
    assert rendered("firewall", "Debian 12", "table.nft.j2", **options) == (directory / f"{name}.nft").read_text()


def test_chrony_is_a_change_of_its_own() -> None:
    options = {"os_hardening_time_servers": ["ntp.example.org"]}
    tasks = yaml.safe_load((ROLES / "os_hardening" / "tasks" / "configure.yml").read_text())
    chrony = next(task for task in tasks if "chrony" in task["name"])
    written = chrony["gpufleet.metal.managed_files"]
    for system, unit in (("Debian 13", "chrony.service"), ("RHEL 9", "chronyd.service")):
        activate = templar("os_hardening", system, **options).template(trust_as_template(written["activate"]))
        assert activate == f"systemctl try-restart {unit}"


def test_automatic_updates_leave_every_package_of_the_driver_alone() -> None:
    """Held against the packages that the role nvidia_driver knows, and names of the distributions' own archives."""
    prefixes = value("os_hardening", "Debian 13", "os_hardening_update_exclude")
    texts = [path.read_text() for path in sorted((ROLES / "nvidia_driver" / "vars").glob("*.yml"))]
    named = {
        name for text in texts for listed in re.findall(r"packages: \[([^\]]+)\]", text) for name in listed.split(", ")
    }
    names = {re.split(r"[{]", name.strip('"'))[0].rstrip("-") or name for name in named}
    # Not the driver's: tools of InfiniBand, which its fabric service needs.
    names -= {"infiniband-diags"}
    assert len(names) > 15
    debian = [
        "libcuda1",
        "libcudadebugger1",
        "libnvcuvid1",
        "libnvoptix1",
        "firmware-nvidia-gsp",
        "xserver-xorg-video-nvidia",
    ]
    ubuntu = ["linux-modules-nvidia-580-server-generic", "linux-image-generic", "xserver-xorg-video-nvidia-580"]
    rhel = ["kernel-core", "kmod-nvidia-open-dkms", "nvidia-driver-cuda", "libnvidia-ml", "xorg-x11-drv-nvidia-cuda"]
    for name in sorted(names | {*debian, *ubuntu, *rhel}):
        assert any(name.startswith(prefix.rstrip("-")) for prefix in prefixes), name


def test_automatic_updates_remove_nothing() -> None:
    text = rendered("os_hardening", "Ubuntu 24.04", "unattended-upgrades.j2")
    for option in ("Remove-Unused-Kernel-Packages", "Remove-New-Unused-Dependencies", "Remove-Unused-Dependencies"):
        assert f'\nUnattended-Upgrade::{option} "false";\n' in text


SSHD = """#!/bin/sh
# Stands in for sshd: -T -f FILE shows what FILE says, -T what the whole configuration comes to.
shift
if [ "${1-}" = -f ]; then file=$2; else file=ROOT/comes_to; fi
while read -r option value; do
  case $option in ''|'#'*) continue ;; esac
  printf '%s %s\\n' "$(printf '%s' "$option" | tr '[:upper:]' '[:lower:]')" "$value"
done <"$file"
"""


@pytest.mark.parametrize(
    ("main", "parts", "comes_to", "said"),
    [
        ("Include PARTS/*.conf\n", {}, "MaxAuthTries 4\nPasswordAuthentication no\n", ""),
        # sshd takes the first value that it reads.
        (
            "# PasswordAuthentication is a matter of the fleet\nPasswordAuthentication yes\nInclude PARTS/*.conf\n",
            {},
            "PasswordAuthentication yes\nMaxAuthTries 4\n",
            "PasswordAuthentication is 'yes', wanted 'no': MAIN line 2 wins over OURS",
        ),
        (
            "Include PARTS/*.conf\nPasswordAuthentication yes\n",
            {"00-a.conf": "\n  passwordauthentication=yes\n"},
            "PasswordAuthentication yes\nMaxAuthTries 4\n",
            "PasswordAuthentication is 'yes', wanted 'no': PARTS/00-a.conf line 2 wins over OURS",
        ),
        # What is set for some is not set for everybody.
        (
            "Match User x\nMaxAuthTries 9\n",
            {},
            "PasswordAuthentication no\nMaxAuthTries 9\n",
            "MaxAuthTries is '9', wanted '4': something that is not in MAIN or PARTS wins over OURS",
        ),
        # An option that adds up.
        (
            "Include PARTS/*.conf\nMaxAuthTries 6\n",
            {},
            "PasswordAuthentication no\nMaxAuthTries 6\nMaxAuthTries 4\n",
            "MaxAuthTries is '4 6', wanted '4': MAIN line 2 wins over OURS",
        ),
    ],
)
def test_a_line_that_wins_over_the_roles_file_is_named(
    tmp_path: Path, main: str, parts: dict[str, str], comes_to: str, said: str
) -> None:
    places = {"MAIN": tmp_path / "sshd_config", "PARTS": tmp_path / "sshd_config.d"}
    places["OURS"] = places["PARTS"] / "00-gpufleet.conf"
    places["PARTS"].mkdir()
    places["MAIN"].write_text(main.replace("PARTS", str(places["PARTS"])))
    places["OURS"].write_text("# Managed.\nPasswordAuthentication no\nMaxAuthTries 4\n")
    for name, text in parts.items():
        (places["PARTS"] / name).write_text(text)
    (tmp_path / "comes_to").write_text(comes_to)
    sshd = tmp_path / "sshd"
    sshd.write_text(SSHD.replace("ROOT", str(tmp_path)))
    sshd.chmod(0o755)
    script = (ROLES / "os_hardening" / "files" / "check_sshd.sh").read_text()
    script = script.replace("/usr/sbin/sshd", str(sshd)).replace("/etc/ssh/", f"{tmp_path}/")
    done = subprocess.run(
        ["sh", "-s", "--", "--effective", str(places["OURS"])],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    for name, path in places.items():
        said = said.replace(name, str(path))
    end = f"; take that line out, or move it behind the Include of {places['PARTS']}\n"
    assert (done.returncode, done.stdout, done.stderr) == ((1, said + end, "") if said else (0, "", ""))

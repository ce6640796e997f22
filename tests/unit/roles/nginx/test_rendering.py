# SPDX-License-Identifier: Apache-2.0
"""The role's files as they are rendered for each distribution, also for those that no sandbox host runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.gpufleet.metal.plugins.filter.nginx_build import build
from ansible_collections.gpufleet.metal.plugins.filter.nginx_gateway import TLS_DEFAULTS, TLS_PATHS, gateway

ROLE = Path(__file__).parents[4] / "roles" / "nginx"
DISTRIBUTIONS = {
    "bookworm": {"distribution": "Debian", "distribution_major_version": "12", "os_family": "Debian"},
    "trixie": {"distribution": "Debian", "distribution_major_version": "13", "os_family": "Debian"},
    "jammy": {"distribution": "Ubuntu", "distribution_major_version": "22", "os_family": "Debian"},
    "noble": {"distribution": "Ubuntu", "distribution_major_version": "24", "os_family": "Debian"},
    "resolute": {"distribution": "Ubuntu", "distribution_major_version": "26", "os_family": "Debian"},
    "el9": {"distribution": "Rocky", "distribution_major_version": "9", "os_family": "RedHat"},
    "el10": {"distribution": "RedHat", "distribution_major_version": "10", "os_family": "RedHat"},
}


def trusted(value: Any) -> Any:
    """Mark every string as a template of ours, as Ansible does when it reads a role."""
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: trusted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [trusted(inner) for inner in value]
    return value


def variables(release: str, **options: Any) -> dict[str, Any]:
    """What the role's tasks would see: facts, defaults, its vars from least to most specific, then options."""
    facts = {**DISTRIBUTIONS[release], "distribution_release": release}
    found: dict[str, Any] = {"ansible_facts": facts, "nginx_server_name": "llm.example.org"}
    family = f"{facts['os_family']}.yml"
    own = f"{facts['distribution']}-{facts['distribution_major_version']}.yml"
    for path in (ROLE / "defaults" / "main.yml", *(ROLE / "vars" / name for name in ("main.yml", family, own))):
        if path.exists():
            found.update(yaml.safe_load(path.read_text(encoding="utf-8")))
    servers = [{"name": "gpu-1/tiny-0", "address": "198.51.100.11", "port": 8000, "weight": 1}]
    found.update({"nginx_upstreams": [{"name": "tiny", "model": "tiny", "servers": servers}], **options})
    found = dict(trusted(found))
    # What the tasks decide by filters, with NGINX not installed yet.
    names = ("allowed_paths", "server_name", "server_aliases", "default_model", "port")
    guarded = bool({"api_keys", "jwt"} & set(found["nginx_authentication"]))
    scopes = {**found["__nginx_scopes_defaults"], **found["nginx_scopes"]}
    given = {name: found[f"nginx_{name}"] for name in names}
    found["__nginx_gateway"] = gateway(found["nginx_upstreams"], **given, guarded=guarded, scopes=scopes)
    found["__nginx_listen"] = found["nginx_listen_addresses"] or ["0.0.0.0"]
    assumed = Templar(loader=DataLoader(), variables=found).template(found["__nginx_assumed"])
    found["__nginx_build"] = build("", assumed)
    found["__nginx_certificate_digest"] = "0" * 64
    found["__nginx_client_digests"] = f"{'1' * 64} {'2' * 64}"
    return found


def render(name: str, release: str, **options: Any) -> str:
    templar = Templar(loader=DataLoader(), variables=variables(release, **options))
    text = trust_as_template((ROLE / "templates" / name).read_text(encoding="utf-8"))
    overrides = {"trim_blocks": True, "lstrip_blocks": False, "newline_sequence": "\n"}
    return str(templar.copy_with_new_env(searchpath=[str(ROLE / "templates")]).template(text, overrides=overrides))


def value(name: str, release: str, **options: Any) -> Any:
    return value_of("{{ " + name + " }}", release, **options)


def value_of(text: Any, release: str, **options: Any) -> Any:
    return Templar(loader=DataLoader(), variables=variables(release, **options)).template(trusted(text))


@pytest.mark.parametrize(
    ("release", "repository", "user", "curves", "http2"),
    [
        ("bookworm", "vendor", "nginx", "X25519:prime256v1:secp384r1", "directive"),
        ("bookworm", "distribution", "www-data", "X25519:prime256v1:secp384r1", "listen"),
        ("trixie", "distribution", "www-data", "X25519MLKEM768:X25519:prime256v1:secp384r1", "directive"),
        ("jammy", "vendor", "nginx", "X25519:prime256v1:secp384r1", "directive"),
        ("noble", "distribution", "www-data", "X25519:prime256v1:secp384r1", "listen"),
        ("resolute", "distribution", "www-data", "X25519MLKEM768:X25519:prime256v1:secp384r1", "directive"),
        ("el9", "vendor", "nginx", "X25519:prime256v1:secp384r1", "directive"),
        ("el9", "distribution", "nginx", "X25519:prime256v1:secp384r1", "listen"),
        ("el10", "https://mirror.example/nginx", "nginx", "X25519:prime256v1:secp384r1", "directive"),
    ],
)
def test_what_differs_between_distributions(release: str, repository: str, user: str, curves: str, http2: str) -> None:
    lines = [line.strip() for line in render("nginx.conf.j2", release, nginx_repository=repository).splitlines()]
    assert f"user {user};" in lines
    assert f"ssl_ecdh_curve {curves};" in lines
    assert ("http2 on;" in lines) is (http2 == "directive")
    assert ("listen 0.0.0.0:443 ssl http2;" in lines) is (http2 == "listen")
    assert ("keepalive_min_timeout 3s;" in lines) is (repository != "distribution" or release == "resolute")


TLS = {
    "server_name": "engines.gpufleet.internal",
    "certificate_path": "/etc/gpufleet/pki/client.crt",
    "certificate_key_path": "/etc/gpufleet/pki/client.key",
    "ca_path": "/etc/gpufleet/pki/engines-ca.crt",
}


@pytest.mark.parametrize("authentication", [["none"], ["api_keys"]])
def test_engines_are_asked_over_mutual_tls(authentication: list[str]) -> None:
    """Said once, outside of every server: nothing there replaces a part of it, also where a request takes two hops."""
    servers = [{"name": "gpu-1/tiny-0", "address": "198.51.100.11", "port": 8000, "weight": 1}]
    upstreams = [{"name": "tiny", "model": "tiny", "servers": servers, "tls": TLS}]
    given = {"nginx_upstreams": upstreams, "nginx_authentication": authentication}
    text = render("nginx.conf.j2", "bookworm", **given)
    common, hops = text.split("\n  upstream model_tiny {")
    assert [line.strip() for line in common.splitlines() if "proxy_ssl" in line] == [
        "proxy_ssl_certificate /etc/gpufleet/pki/client.crt;",
        "proxy_ssl_certificate_key /etc/gpufleet/pki/client.key;",
        "proxy_ssl_trusted_certificate /etc/gpufleet/pki/engines-ca.crt;",
        "proxy_ssl_verify on;",
        "proxy_ssl_verify_depth 2;",
        "proxy_ssl_name engines.gpufleet.internal;",
        "proxy_ssl_server_name on;",
        "proxy_ssl_protocols TLSv1.3;",
        "proxy_ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256;",
        "proxy_ssl_session_reuse on;",
    ]
    assert "proxy_ssl" not in hops
    assert "proxy_pass https://model_tiny/v1/completions;" in hops
    assert "proxy_pass http://model_" not in hops
    assert f"whom to trust of them: {'1' * 64} {'2' * 64}." in common
    assert "proxy_connect_timeout 5s;" in common
    assert "proxy_connect_timeout 9s;" in render(
        "nginx.conf.j2", "bookworm", **given, nginx_proxy_connect_timeout_seconds=9
    )
    told = json.loads(render("probe_agent.json.j2", "bookworm", **given))["tls"]
    assert told == {**TLS, "handshake_timeout_seconds": 5}


def test_engines_are_asked_in_plain_http_unless_something_else_is_said() -> None:
    text = render("nginx.conf.j2", "bookworm")
    assert "proxy_ssl" not in text
    assert "whom to trust of them" not in text
    assert "proxy_pass http://model_tiny/v1/completions;" in text
    assert "proxy_connect_timeout 2s;" in text
    assert json.loads(render("probe_agent.json.j2", "bookworm"))["tls"] is None


def test_the_defaults_of_tls_are_the_ones_that_the_specification_states() -> None:
    spec = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    options = spec["argument_specs"]["main"]["options"]["nginx_upstreams"]["options"]["tls"]["options"]
    stated = {name: option["default"] for name, option in options.items() if "default" in option}
    assert stated == TLS_DEFAULTS
    assert {name for name, option in options.items() if option.get("required")} == {"server_name", *TLS_PATHS}


def test_a_name_only_endpoint_rejects_handshakes_without_name() -> None:
    text = render("nginx.conf.j2", "bookworm")
    assert "listen 0.0.0.0:443 ssl default_server;\n    server_name _;\n    ssl_reject_handshake on;" in text
    assert "listen 0.0.0.0:443 ssl;\n    http2 on;\n    server_name llm.example.org;" in text


def test_an_endpoint_with_an_address_is_the_sockets_default() -> None:
    text = render("nginx.conf.j2", "bookworm", nginx_server_aliases=["198.51.100.13"])
    assert (
        "listen 0.0.0.0:443 ssl default_server;\n    http2 on;\n    server_name llm.example.org 198.51.100.13;" in text
    )
    assert 'listen 0.0.0.0:443 ssl;\n    server_name "~.";\n    ssl_reject_handshake on;' in text


def test_every_address_is_listened_on() -> None:
    text = render("nginx.conf.j2", "trixie", nginx_listen_addresses=["198.51.100.13", "[::]"], nginx_port=8443)
    assert text.count("listen 198.51.100.13:8443 ssl") == 2
    assert text.count("listen [::]:8443 ssl") == 2


@pytest.mark.parametrize(("given", "logged"), [("200", "200"), ("000", "0"), ("009", "9"), ("499", "499")])
def test_a_status_in_the_log_is_a_number_of_json(given: str, logged: str) -> None:
    text = render("nginx.conf.j2", "trixie")
    pattern, result = re.findall(r'"~(\S+)" \$(\w+);', text[text.index("map $status $gateway_status") :])[0]
    match = re.search(pattern.replace("(?<", "(?P<"), given)
    assert (match[result] if match else given) == logged
    assert '"status":$gateway_status,' in text
    assert json.loads(logged) == int(given)


@pytest.mark.parametrize("options", [{}, {"nginx_authentication": ["api_keys"]}])
def test_every_line_of_the_log_is_json(options: dict[str, Any]) -> None:
    """NGINX's escape=json leaves bytes as they are that are no UTF-8; what clients can fill with them is replaced."""
    text = render("nginx.conf.j2", "trixie", **options)
    line = "".join(
        re.findall(r"^    '(.*)'$", text[text.index("log_format gpufleet") :].split(";", maxsplit=1)[0], re.MULTILINE)
    )
    numbers = re.findall(r":\$(\w+)", line)
    assert numbers == ["gateway_status", "request_length", "bytes_sent", "request_time"]
    clients_words = {"host", "uri", "request_uri", "http_user_agent", "http_x_request_id"}
    assert not clients_words & set(re.findall(r"\$(\w+)", line))
    for variable in ("host", "path", "agent"):
        assert f"$gateway_{variable}" in line
        assert re.search(rf'map \$\w+ \$gateway_{variable} \{{\n    default "\(not ASCII\)";', text)
    assert set(json.loads(re.sub(r"\$\w+", "0", "{" + line.strip("{}") + "}"))) >= {"status", "path", "agent"}


@pytest.mark.parametrize(
    ("probe", "watchdog", "start"),
    [({}, 60, 90), ({"health_interval_seconds": 60, "health_timeout_seconds": 30}, 210, 240)],
)
def test_a_slow_round_is_not_taken_for_a_dead_agent(probe: dict[str, int], watchdog: int, start: int) -> None:
    lines = render("gpufleet-probe.service.j2", "trixie", nginx_probe=probe).splitlines()
    assert f"WatchdogSec={watchdog}s" in lines
    assert f"TimeoutStartSec={start}s" in lines
    assert "TimeoutStopSec=60s" in lines


def test_the_worst_case_of_finding_a_hang_is_what_the_documentation_says() -> None:
    probe = value("__nginx_probe_defaults", "bookworm")
    question, patience = probe["progress_interval_seconds"], probe["progress_timeout_seconds"]
    pace = probe["health_interval_seconds"]
    # Asked, no answer; asked again at the pace of the rounds, no answer; the round that acts on it.
    idle = question + patience + (probe["progress_fall"] - 1) * (pace + patience) + pace
    text = " ".join((ROLE.parents[1] / "docs" / "gateway.md").read_text(encoding="utf-8").split())
    assert f"is found within {idle} s if it was idle" in text
    assert f"within {idle + question} s if it was busy" in text
    assert f"up to {probe['reload_minimum_interval_seconds'] + pace} s later if it was reloaded" in text


def test_limits_of_0_are_no_limits() -> None:
    text = render("nginx.conf.j2", "trixie", nginx_rate_limit_per_second=0, nginx_connections_per_address=0)
    assert re.findall(r"(?m)^\s*limit_(?:req|conn).*", text) == []


GUARDED: dict[str, Any] = {
    "nginx_repository": "distribution",
    "nginx_authentication": ["api_keys", "jwt"],
    "nginx_jwt": {"jwks_url": "https://issuer.example/keys"},
    "nginx_default_model": "tiny",
}


@pytest.mark.parametrize(
    ("release", "repository", "verifier", "packages"),
    [
        ("bookworm", "distribution", "sidecar", ["python3-cryptography"]),
        ("bookworm", "vendor", "njs", ["nginx-module-njs"]),
        ("trixie", "distribution", "njs", ["libnginx-mod-http-js"]),
        ("noble", "distribution", "sidecar", ["python3-cryptography"]),
        ("resolute", "distribution", "njs", ["libnginx-mod-http-js"]),
        ("el9", "distribution", "sidecar", ["python3-cryptography"]),
        ("el10", "https://mirror.example/nginx", "njs", ["nginx-module-njs"]),
    ],
)
def test_what_verifies_on_each_distribution(release: str, repository: str, verifier: str, packages: list[str]) -> None:
    options = {**GUARDED, "nginx_repository": repository}
    text = render("nginx.conf.j2", release, **options)
    assert ("js_content identity.decide;" in text) is (verifier == "njs")
    assert ("load_module modules/ngx_http_js_module.so;" in text) is (verifier == "njs")
    assert ("proxy_pass http://gateway_identity/;" in text) is (verifier == "sidecar")
    assert value("__nginx_verifier_packages", release, **options) == packages
    units = ["gpufleet-identity.service"] * (verifier == "sidecar") + ["gpufleet-identity-keys.service"]
    assert value("__nginx_identity_units", release, **options) == units
    files = [entry["dest"] for entry in value("__nginx_identity_files", release, **options)]
    assert [path for path in files if path.startswith("/etc/systemd/")] == [
        f"/etc/systemd/system/{unit}" for unit in units
    ]


def server_blocks(text: str) -> list[str]:
    return re.findall(r"\n  server \{\n(.*?)\n  \}", text, re.DOTALL)


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_a_guarded_endpoint_passes_on_in_its_second_hop_alone(release: str) -> None:
    scopes = {"paths": {"/v1/embeddings": "embed"}}
    __, outer, inner, __ = server_blocks(render("nginx.conf.j2", release, **GUARDED, nginx_scopes=scopes))
    assert "auth_request /_gateway_identity;" in outer
    assert set(re.findall(r"proxy_pass (\S+);", outer)) <= {"http://gateway_inner", "http://gateway_identity/"}
    embeddings = (
        'location = /v1/embeddings {\n      set $gateway_scope "embed";\n      proxy_pass http://gateway_inner;'
    )
    assert embeddings in outer
    assert outer.count('set $gateway_scope "inference";') == outer.count("proxy_pass http://gateway_inner;") - 2 - 4
    assert "listen unix:/run/gpufleet-identity/inner.sock;" in inner
    assert "limit_req zone=requests_per_identity burst=40 nodelay;" in inner
    assert "limit_conn concurrent_per_identity 64;" in inner
    assert "proxy_pass http://model_tiny/v1/embeddings;" in inner
    for name in ("Authorization", "Cookie", "X-Api-Key", "X-Forwarded-User"):
        assert f'proxy_set_header {name} "";' in outer
    assert re.findall(r"proxy_set_header X-Gateway-Identity (.*);", outer) == ["$gateway_identity"]


@pytest.mark.parametrize("methods", [[], ["none"]])
def test_an_endpoint_for_everyone_says_so_and_believes_nobody(methods: list[str]) -> None:
    text = render("nginx.conf.j2", "trixie", nginx_authentication=methods)
    assert "# NOBODY IS ASKED WHO THEY ARE" in text
    assert "auth_request" not in text
    assert "js_" not in text
    assert 'proxy_set_header X-Gateway-Identity "";' in text
    assert "proxy_set_header Authorization" not in text
    assert value("__nginx_identity_units", "bookworm", nginx_authentication=methods) == []
    assert value("__nginx_identity_wanted", "bookworm", nginx_authentication=methods) == []


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_no_limit_is_counted_by_what_a_client_writes(release: str) -> None:
    """The identity's header is of the gateway's own making in the second hop, and only there."""
    text = render("nginx.conf.j2", release, **GUARDED)
    zones = dict(re.findall(r"limit_(?:req|conn)_zone (\S+) zone=(\w+):", text))
    assert zones == {
        "$http_x_gateway_identity": "concurrent_per_identity",
        "$binary_remote_addr": "connections_per_address",
    }
    assert len(re.findall(r"limit_(?:req|conn)_zone ", text)) == 4
    __, outer, inner, __ = server_blocks(text)
    assert "_per_identity" not in outer
    assert "_per_address" not in inner
    # What would let a header say where a client is.
    assert "real_ip" not in text
    assert "proxy_protocol" not in text


def test_limits_of_0_are_no_limits_of_an_identity() -> None:
    limits = {"requests_per_second": 0, "concurrent": 0}
    text = render("nginx.conf.j2", "trixie", **GUARDED, nginx_identity_limits=limits)
    assert "_per_identity" not in text


def test_keys_that_are_given_are_written_and_not_fetched() -> None:
    options = {**GUARDED, "nginx_jwt": {"jwks": {"keys": []}}}
    paths = [entry["dest"] for entry in value("__nginx_identity_files", "trixie", **options)]
    assert "/etc/gpufleet/jwks.json" in paths
    assert value("__nginx_identity_units", "trixie", **options) == []
    assert json.loads(render("jwks.json.j2", "trixie", **options)) == {"keys": []}


def test_everything_that_is_written_for_identities_is_also_removed() -> None:
    leftovers = {entry["dest"] for entry in value("__nginx_identity_leftovers", "bookworm", **GUARDED)}
    for release in ("bookworm", "trixie"):
        for jwt in (GUARDED["nginx_jwt"], {"jwks": {"keys": []}}):
            options = {**GUARDED, "nginx_jwt": jwt}
            entries = value("__nginx_identity_files", release, **options)
            assert {entry["dest"] for entry in entries if entry.get("state") != "directory"} <= leftovers
            assert value("__nginx_identity_wanted", release, **options)


@pytest.mark.parametrize(("option", "name"), [("jwt", "jwt"), ("scopes", "scopes"), ("identity_limits", "limits")])
def test_the_defaults_of_identities_are_the_ones_that_the_specification_states(option: str, name: str) -> None:
    spec = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    options = spec["argument_specs"]["main"]["options"][f"nginx_{option}"]["options"]
    stated = {key: one["default"] for key, one in options.items() if "default" in one}
    assert value(f"__nginx_{name}_defaults", "bookworm") == stated


def test_the_agent_gets_numbers_and_the_servers() -> None:
    agent = json.loads(render("probe_agent.json.j2", "bookworm", nginx_probe={"health_fall": 4}))
    assert agent["health"] == {
        "path": "/health",
        "interval_seconds": 5,
        "timeout_seconds": 2,
        "fall": 4,
        "rise": 2,
    }
    assert agent["nginx"]["listener_port"] == 8008
    nothing = {"requests_per_second": 0, "burst": 0, "concurrent": 0}
    assert agent["limits"] == {
        "access_log": "/var/log/nginx/access.log",
        "address": {"requests_per_second": 50, "burst": 100, "concurrent": 200},
        "identity": nothing,
        "body_size": "20m",
    }
    agent = json.loads(render("probe_agent.json.j2", "bookworm", **GUARDED))
    assert agent["limits"]["identity"] == {"requests_per_second": 20, "burst": 40, "concurrent": 64}
    assert agent["upstreams"][0]["servers"] == [
        {"name": "gpu-1/tiny-0", "address": "198.51.100.11", "port": 8000, "weight": 1}
    ]


def repository_task(module: str) -> dict[str, Any]:
    """The options of the one task of repository.yml that calls the module."""
    tasks = yaml.safe_load((ROLE / "tasks" / "repository.yml").read_text(encoding="utf-8"))
    (found,) = [dict(task[module]) for task in tasks if module in task]
    return found


def test_the_repositorys_key_is_looked_at_in_every_run() -> None:
    """A key that changed in the variables reaches gateways that are installed."""
    tasks = yaml.safe_load((ROLE / "tasks" / "main.yml").read_text(encoding="utf-8"))
    (included,) = [task for task in tasks if task.get("ansible.builtin.include_tasks") == "repository.yml"]
    assert included["when"] == "nginx_repository != 'distribution'"
    options = repository_task("ansible.builtin.get_url")
    digest = value("nginx_repository_key_sha256", "el9")
    assert value_of(options["checksum"], "el9") == f"sha256:{digest}"
    assert value_of(options["dest"], "el9") == "/etc/pki/rpm-gpg/RPM-GPG-KEY-nginx"


@pytest.mark.parametrize(
    ("release", "repository", "uris", "suite"),
    [
        ("bookworm", "vendor", "https://nginx.org/packages/debian/", "bookworm"),
        ("noble", "vendor", "https://nginx.org/packages/ubuntu/", "noble"),
        ("trixie", "https://mirror.example/nginx", "https://mirror.example/nginx/debian/", "trixie"),
    ],
)
def test_the_source_for_apt(release: str, repository: str, uris: str, suite: str) -> None:
    options = repository_task("gpufleet.metal.apt_source")
    given = {name: value_of(text, release, nginx_repository=repository) for name, text in options.items()}
    assert given == {
        "name": "nginx",
        "uri": uris,
        "suite": suite,
        "components": ["nginx"],
        "key_url": "https://nginx.org/keys/nginx_signing.key",
        "key_sha256": value("nginx_repository_key_sha256", release),
    }


def test_the_source_for_dnf() -> None:
    assert render("nginx.repo.j2", "el9").splitlines()[2:] == [
        "[nginx]",
        "name=nginx stable",
        "baseurl=https://nginx.org/packages/rhel/$releasever/$basearch/",
        "enabled=1",
        "gpgcheck=1",
        "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-nginx",
        "module_hotfixes=true",
    ]


@pytest.mark.parametrize(
    ("release", "paths"),
    [
        ("jammy", ["/etc/apt/preferences.d/nginx"]),
        ("el10", ["/etc/yum.repos.d/nginx.repo"]),
    ],
)
def test_the_files_of_the_repository(release: str, paths: list[str]) -> None:
    assert [entry["dest"] for entry in value("__nginx_repository_files", release)] == paths


def test_the_probes_defaults_are_the_ones_that_the_specification_states() -> None:
    spec = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    options = spec["argument_specs"]["main"]["options"]["nginx_probe"]["options"]
    stated = {name: option["default"] for name, option in options.items()}
    assert value("__nginx_probe_defaults", "bookworm") == stated


@pytest.mark.parametrize("release", sorted(DISTRIBUTIONS))
def test_no_file_is_listed_twice(release: str) -> None:
    entries = value("__nginx_gateway_files + __nginx_repository_files", release)
    paths = [entry["dest"] for entry in entries]
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("unit", ["gpufleet-identity.service.j2", "gpufleet-identity-keys.service.j2"])
def test_every_line_of_a_unit_is_one(unit: str) -> None:
    lines = [line for line in render(unit, "bookworm", **GUARDED).splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"\[[A-Za-z]+\]|[A-Z][A-Za-z]+=[^#]*", line) for line in lines)
    assert "UMask=0027" in lines
    assert "User=www-data" in lines

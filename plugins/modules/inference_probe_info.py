#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prove that an inference endpoint answers a real request."""

from __future__ import annotations

DOCUMENTATION = r"""
module: inference_probe_info
short_description: Prove that an inference endpoint answers a real request
version_added: 0.1.0
description:
  - Asks an OpenAI-compatible server for its health, its list of models and one real completion; reports the answers.
  - A server whose health check says 200 may still hang, drain, or die on its first request.
    That is why a completion is asked for.
  - Waits for a server that is starting, and stops waiting at once when waiting can't help.
  - Changes nothing. Needs only Python's standard library, on the host or on the controller.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  url:
    description:
      - Base URL of the server, without C(/v1). A path is kept, as in V(https://llm.example.org/models/tiny-llama).
    type: str
    required: true
  model:
    description:
      - Name of the model to complete with. Without it only the health is asked for.
    type: str
  health_path:
    description:
      - Path of the health check below O(url). An empty string skips it.
    type: str
    default: /health
  api:
    description:
      - Which request to send. V(completion) is for models without a chat template.
    type: str
    choices: [chat, completion]
    default: chat
  prompt:
    description:
      - The text to send.
    type: str
    default: Hello
  max_tokens:
    description:
      - How many tokens to ask for.
    type: int
    default: 4
  stream:
    description:
      - Ask for a stream of server-sent events and check that it arrives whole.
    type: bool
    default: false
  timeout:
    description:
      - Seconds that one request may take in all.
    type: float
    default: 30
  wait_seconds:
    description:
      - How long to repeat failed attempts. With V(0) there is one attempt.
    type: float
    default: 0
  interval:
    description:
      - Seconds between two attempts.
    type: float
    default: 2
  api_key:
    description:
      - Sent as a bearer token.
    type: str
  headers:
    description:
      - Further request headers.
    type: dict
    default: {}
  ca_path:
    description:
      - File with the certificates of the authorities to trust, in PEM. Without it the system's are used.
    type: path
  client_cert:
    description:
      - File with the certificate, and its chain, that the server is asked with, in PEM.
    type: path
  client_key:
    description:
      - File with the private key of O(client_cert), in PEM. Without it, that file holds the key too.
    type: path
  validate_certs:
    description:
      - Whether to check the server's certificate and name.
    type: bool
    default: true
  tls_version:
    description:
      - Offer only this version of TLS. Without it, whatever both sides know best.
    type: str
    choices: ["1.2", "1.3"]
  resolve:
    description:
      - Addresses to connect to, by the host name in O(url), so that a name needs no DNS.
        The certificate's check and the C(Host) header keep the name.
    type: dict
    default: {}
  watch_container:
    description:
      - Name of a Docker container on the same host that runs the server. If it ends or is restarted during the wait,
        the module fails at once and says with which exit status, why most likely, and what its last lines were.
    type: str
  docker_socket:
    description:
      - The Docker engine's socket, for O(watch_container).
    type: path
    default: /var/run/docker.sock
extends_documentation_fragment:
  - gpufleet.metal.read_only
"""

EXAMPLES = r"""
- name: Wait until an engine serves its model
  gpufleet.metal.inference_probe_info:
    url: http://192.0.2.11:8000
    model: tiny-llama
    wait_seconds: 600
    watch_container: vllm-tiny-llama-0

- name: Ask an engine that answers only clients with a certificate
  gpufleet.metal.inference_probe_info:
    url: https://192.0.2.11:8000
    model: tiny-llama
    ca_path: /etc/gpufleet/pki/engines-ca.crt
    client_cert: /etc/gpufleet/pki/client.crt
    client_key: /etc/gpufleet/pki/client.key

- name: Prove that the gateway streams over TLS 1.3, before its name is in the DNS
  gpufleet.metal.inference_probe_info:
    url: https://llm.example.org
    health_path: /healthz
    model: tiny-llama
    stream: true
    ca_path: /etc/gpufleet/ca.pem
    tls_version: "1.3"
    resolve:
      llm.example.org: 192.0.2.20
  delegate_to: localhost
"""

RETURN = r"""
health_status:
  description: HTTP status of the health check, null if it was skipped.
  type: int
  returned: success
  sample: 200
models:
  description: Names that the server lists, sorted; empty if no model was asked for.
  type: list
  elements: str
  returned: success
  sample: [tiny-llama]
completion:
  description: The completion, null if no model was asked for.
  type: dict
  returned: success
  contains:
    ok:
      description: Always true.
      type: bool
    status:
      description: HTTP status.
      type: int
    text:
      description: The text that came back.
      type: str
    finish_reason:
      description: Why generation ended.
      type: str
    prompt_tokens:
      description: Tokens of the prompt, null if the server doesn't say.
      type: int
    completion_tokens:
      description: Generated tokens, null if the server doesn't say.
      type: int
    time_to_first_token_ms:
      description: Milliseconds to the first piece of text; without O(stream), to the first byte of the answer.
      type: float
    total_ms:
      description: Milliseconds of the whole request, connection included.
      type: float
    chunks:
      description: Number of events of the stream, 0 without O(stream).
      type: int
tls:
  description: Version and cipher of the connection, and SHA-256 of the server's certificate; null without TLS.
  type: dict
  returned: success
  sample:
    version: TLSv1.3
    cipher: TLS_AES_256_GCM_SHA384
    certificate_sha256: 5f2b1b6e1f1d2a3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4
http_version:
  description: Version of HTTP that the server spoke.
  type: str
  returned: success
  sample: HTTP/1.1
request_id:
  description: The answer's C(X-Request-Id), null if it has none.
  type: str
  returned: success
headers:
  description: The last answer's headers, with lower-case names.
  type: dict
  returned: success
attempts:
  description: How often was asked.
  type: int
  returned: success
waited_seconds:
  description: How long it took until the answer.
  type: float
  returned: success
cause:
  description: The most likely reason why the watched container ended, null if none is recognised.
  type: str
  returned: when the container of O(watch_container) ended
exit_status:
  description: The exit status of the watched container's process.
  type: int
  returned: when the container of O(watch_container) ended
log:
  description: The last lines of the watched container.
  type: list
  elements: str
  returned: when the container of O(watch_container) ended
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._docker import DockerClient
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._probe import (
    ContainerDiedError,
    ContainerWatch,
    Target,
    wait_until_ready,
)


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "url": {"type": "str", "required": True},
        "model": {"type": "str"},
        "health_path": {"type": "str", "default": "/health"},
        "api": {"type": "str", "choices": ["chat", "completion"], "default": "chat"},
        "prompt": {"type": "str", "default": "Hello"},
        "max_tokens": {"type": "int", "default": 4, "no_log": False},
        "stream": {"type": "bool", "default": False},
        "timeout": {"type": "float", "default": 30},
        "wait_seconds": {"type": "float", "default": 0},
        "interval": {"type": "float", "default": 2},
        "api_key": {"type": "str", "no_log": True},
        "headers": {"type": "dict", "default": {}},
        "ca_path": {"type": "path"},
        "client_cert": {"type": "path"},
        "client_key": {"type": "path"},
        "validate_certs": {"type": "bool", "default": True},
        "tls_version": {"type": "str", "choices": ["1.2", "1.3"]},
        "resolve": {"type": "dict", "default": {}},
        "watch_container": {"type": "str"},
        "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    options = dict(module.params)
    wait_seconds, interval = options.pop("wait_seconds"), options.pop("interval")
    container, socket_path = options.pop("watch_container"), options.pop("docker_socket")
    try:
        watch = ContainerWatch(DockerClient(socket_path), container) if container else None
        result = wait_until_ready(Target(**options), wait_seconds, interval, watch)
    except ContainerDiedError as error:
        module.fail_json(msg=str(error), cause=error.cause, exit_status=error.exit_status, log=error.log)
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()

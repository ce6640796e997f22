# SPDX-License-Identifier: Apache-2.0
"""Send the cases of identity_cases.py to a gateway: python3 ask.py HOST CASES MUTATIONS -> JSON.

Of the cases it tells the wrong answers, of the mutations all answers: another gateway has to give the same.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
from pathlib import Path
from typing import Any

HOST, CASES, MUTATIONS = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
CONTEXT = ssl.create_default_context(cafile="/etc/gpufleet/pki/gateway.crt")
REALM = 'Bearer realm="llm.example.org"'
LACKS = "insufficient_scope"
FORGED = {
    "X-Gateway-Identity": "jwt:root",
    "X-Forwarded-User": "root",
    "X-User-Id": "root",
    "X-Api-Key": "k",
    "Cookie": "a=b",
}


def ask(connection: http.client.HTTPSConnection, authorization: str | None) -> tuple[http.client.HTTPResponse, Any]:
    """Send a completion with headers that nobody may believe."""
    headers = {"Content-Type": "application/json", **FORGED}
    if authorization is not None:
        headers["Authorization"] = authorization
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "x", "max_tokens": 2}), headers)
    answer = connection.getresponse()
    return answer, json.loads(answer.read())


def tell(connection: http.client.HTTPSConnection, authorization: str) -> str:
    """Ask for the models; returns what was answered in one line."""
    connection.request("GET", "/v1/models", headers={"Authorization": authorization})
    answer = connection.getresponse()
    answer.read()
    return f"{answer.status} {answer.getheader('WWW-Authenticate', '')}"


def wanted_challenge(case: dict[str, Any]) -> str | None:
    """Return what WWW-Authenticate has to say."""
    if case["status"] == 200:
        return None
    if case["says"] is None:
        return REALM
    error = "invalid_token" if case["status"] == 401 else LACKS
    scope = ', scope="inference"' if case["status"] == 403 else ""
    return f'{REALM}, error="{error}", error_description="{case["says"]}"{scope}'


def faults(case: dict[str, Any], answer: http.client.HTTPResponse, body: Any) -> list[str]:
    """Say what was answered otherwise than wanted."""
    found: list[tuple[str, Any, Any]] = [
        ("status", answer.status, case["status"]),
        ("WWW-Authenticate", answer.getheader("WWW-Authenticate"), wanted_challenge(case)),
    ]
    if case["status"] == 200:
        seen = {name: value for name, value in body.get("headers", {}).items() if name in SEEN}
        found.append(("what the engine saw", seen, {"x-gateway-identity": case["says"]}))
    else:
        code = "invalid_api_key" if case["status"] == 401 else LACKS
        found.append(("error code", body.get("error", {}).get("code"), code))
    leaked = [name for name in answer.headers if name.lower().startswith("x-gateway")]
    found.append(("headers of the inside", leaked, []))
    return [f"{case['name']}: {what} is {seen!r}, wanted {wanted!r}" for what, seen, wanted in found if seen != wanted]


SEEN = {name.lower() for name in (*FORGED, "Authorization")}
table = json.loads(CASES.read_text(encoding="utf-8"))
connection = http.client.HTTPSConnection(HOST, 443, context=CONTEXT, timeout=60)
problems: list[str] = []
for case in table:
    problems += faults(case, *ask(connection, case["authorization"]))
answers = [tell(connection, authorization) for authorization in json.loads(MUTATIONS.read_text(encoding="utf-8"))]
print(json.dumps({"cases": len(table), "faults": problems, "answers": answers}))

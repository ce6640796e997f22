# SPDX-License-Identifier: Apache-2.0
"""Get tokens from authorization_server.py as clients do: python3 flows.py URL CERTIFICATE -> JSON of tokens by name."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request

SERVER, AUTHORITY = sys.argv[1], sys.argv[2]
CALLBACK = "https://chat.example/callback"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """The browser's part ends where the server sends it: the callback is read, not visited."""

    def redirect_request(self, *__: object) -> None:
        return None


OPENER = urllib.request.build_opener(
    urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=AUTHORITY)), NoRedirect
)


def token(client: str, **form: str) -> str:
    """Ask the token endpoint; returns the access token."""
    credentials = base64.b64encode(f"{client}:secret-of-{client}".encode()).decode()
    request = urllib.request.Request(f"{SERVER}/token", urllib.parse.urlencode(form).encode())
    request.add_header("Authorization", f"Basic {credentials}")
    with OPENER.open(request, timeout=60) as answer:
        return str(json.loads(answer.read())["access_token"])


def of_a_program(scope: str) -> str:
    """Client credentials."""
    return token("batch", grant_type="client_credentials", scope=scope)


def sent_to(page: str) -> str:
    """Open a page as a browser does; returns the address that it is sent to."""
    try:
        OPENER.open(page, timeout=60).close()
    except urllib.error.HTTPError as answer:
        return str(answer.headers["Location"])
    raise SystemExit("the authorization endpoint sent the browser nowhere")


def of_a_person(scope: str) -> str:
    """Authorization code with PKCE."""
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(8)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": "chat",
        "redirect_uri": CALLBACK,
        "scope": scope,
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    location = sent_to(f"{SERVER}/authorize?{urllib.parse.urlencode(query)}")
    back = urllib.parse.parse_qs(urllib.parse.urlsplit(location).query)
    if back["state"] != [state]:
        raise SystemExit("the state came back otherwise")
    code = back["code"][0]
    return token("chat", grant_type="authorization_code", code=code, redirect_uri=CALLBACK, code_verifier=verifier)


with OPENER.open(f"{SERVER}/jwks.json", timeout=60) as published:
    keys = json.loads(published.read())
tokens = {
    "program": of_a_program("inference"),
    "program_without_scope": of_a_program("admin"),
    "person": of_a_person("inference admin"),
    "person_without_scope": of_a_person("admin"),
}
print(json.dumps({"keys": keys, "tokens": tokens}))

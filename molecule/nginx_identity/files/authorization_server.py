# SPDX-License-Identifier: Apache-2.0
"""A real OAuth 2.0 authorization server, of Authlib and Flask: python3 authorization_server.py PORT CERTIFICATE KEY.

Programs get tokens of ES256 by their own credentials; people get tokens of RS256 by authorization code with PKCE, and
are all alice, who agrees to everything. Its endpoints are /authorize, /token and /jwks.json. Only for tests.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any, ClassVar

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.jose import JsonWebKey
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc6749.models import AuthorizationCodeMixin, ClientMixin
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from flask import Flask, Response, jsonify

PORT, CERTIFICATE, KEY = int(sys.argv[1]), sys.argv[2], sys.argv[3]
ISSUER, AUDIENCE = f"https://127.0.0.1:{PORT}", "llm-gateway"
OF_PEOPLE = JsonWebKey.generate_key("RSA", 2048, {"kid": "people", "use": "sig"}, is_private=True)
OF_PROGRAMS = JsonWebKey.generate_key("EC", "P-256", {"kid": "programs", "use": "sig"}, is_private=True)


@dataclass
class Client(ClientMixin):
    """A program that asks for tokens, for itself or for a person."""

    name: str
    secret: str
    redirect_uri: str
    grant: str
    scopes: frozenset[str]

    def get_client_id(self) -> str:
        return self.name

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_allowed_scope(self, scope: str) -> str:
        return " ".join(word for word in (scope or "").split() if word in self.scopes)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == self.redirect_uri

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == self.secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == self.grant


class Person:
    """Who sits in front of the browser."""

    def get_user_id(self) -> str:
        return "alice"


@dataclass
class Code(AuthorizationCodeMixin):
    """What the browser carries from /authorize to the client."""

    client: str
    redirect_uri: str
    scope: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_auth_time(self) -> int:
        return int(time.time())


class Tokens(JWTBearerTokenGenerator):
    """Access tokens of RFC 9068."""

    def __init__(self, key: Any, algorithm: str) -> None:
        super().__init__(issuer=ISSUER, alg=algorithm)
        self.key = key

    def get_jwks(self) -> dict[str, Any]:
        return {"keys": [self.key.as_dict(is_private=True)]}

    def get_audiences(self, client: Any, user: Any, scope: Any) -> list[str]:
        return [client.get_client_id(), AUDIENCE]


class Codes(grants.AuthorizationCodeGrant):
    """Authorization code, with PKCE."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)
    issued: ClassVar[dict[str, Code]] = {}

    def save_authorization_code(self, code: str, request: Any) -> Code:
        payload = request.payload
        challenge, method = payload.data["code_challenge"], payload.data["code_challenge_method"]
        self.issued[code] = Code(payload.client_id, payload.redirect_uri, payload.scope, challenge, method)
        return self.issued[code]

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        found = self.issued.get(code)
        return found if found is not None and found.client == client.name else None

    def delete_authorization_code(self, authorization_code: Code) -> None:
        for code in [code for code, one in self.issued.items() if one is authorization_code]:
            del self.issued[code]

    def authenticate_user(self, authorization_code: Code) -> Person:
        return Person()


BOTH = frozenset({"inference", "admin"})
CLIENTS = {
    client.name: client
    for client in (
        Client("batch", "secret-of-batch", "", "client_credentials", BOTH),
        Client("chat", "secret-of-chat", "https://chat.example/callback", "authorization_code", BOTH),
    )
}
app = Flask(__name__)
server = AuthorizationServer(app, query_client=CLIENTS.get, save_token=lambda token, request: None)
server.register_grant(grants.ClientCredentialsGrant)
server.register_grant(Codes, [CodeChallenge(required=True)])
server.register_token_generator("client_credentials", Tokens(OF_PROGRAMS, "ES256"))
server.register_token_generator("authorization_code", Tokens(OF_PEOPLE, "RS256"))


@app.get("/authorize")
def authorize() -> Response:
    """Send the browser back with a code: alice agreed."""
    return server.create_authorization_response(grant_user=Person())


@app.post("/token")
def token() -> Response:
    """Give a token for a code, or to a program for itself."""
    return server.create_token_response()


@app.get("/jwks.json")
def key_set() -> Response:
    """Publish the keys."""
    return jsonify({"keys": [key.as_dict(is_private=False) for key in (OF_PEOPLE, OF_PROGRAMS)]})


app.run("127.0.0.1", PORT, ssl_context=(CERTIFICATE, KEY))

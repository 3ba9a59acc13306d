"""Sign-in by OpenID Connect, against a small provider on this machine that signs real id_tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from httpx import Response
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from clinics import Clinic, clinic
from dermalert.clinic import accounts
from dermalert.clinic.schema import Role

BACK = "/login/oidc/back"


@dataclass
class Provider:
    """An OpenID provider: it knows one person, and can be told to lie."""

    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1", "use": "sig", "alg": "RS256"}))
    claims: dict[str, Any] = field(default_factory=dict)
    challenge: str = ""
    nonce: str = ""
    asked: int = 0
    address: str = ""

    def authorize(self, url: str) -> dict[str, str]:
        """What a person who signs in there brings back."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        self.challenge, self.nonce = query["code_challenge"], query["nonce"]
        return {"code": "good", "state": query["state"]}

    def token(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.asked += 1
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if form.get("code") != "good" or base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != self.challenge:
            return 400, {"error": "invalid_grant"}
        at = int(time.time())
        claims = {
            "iss": self.address,
            "aud": "dermalert",
            "sub": "person-1",
            "iat": at,
            "exp": at + 60,
            "nonce": self.nonce,
            "email": "ida@clinic.example",
            "email_verified": True,
            **self.claims,
        }
        signed = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.key)
        return 200, {"access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": signed}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    ours = Provider()
    public = {"keys": [ours.key.as_dict(private=False)]}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {
                "issuer": ours.address,
                "authorization_endpoint": f"{ours.address}/authorize",
                "token_endpoint": f"{ours.address}/token",
                "jwks_uri": f"{ours.address}/keys",
                "id_token_signing_alg_values_supported": ["RS256"],
            }
            self._answer(200, public if self.path == "/keys" else known)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(*ours.token({name: values[0] for name, values in parse_qs(body).items()}))

        def _answer(self, status: int, value: dict[str, Any]) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ours.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield ours
    server.shutdown()
    server.server_close()


@pytest.fixture
def ours(tmp_path, provider: Provider) -> Iterator[Clinic]:
    provider.claims = {}
    settings = {"oidc_issuer": provider.address, "oidc_client": "dermalert", "oidc_secret": "hush"}
    with clinic(tmp_path, **settings) as running:
        with running.service.store.session() as session:
            accounts.add_user(session, "test", "Dr Ida", Role.READER, "Ida@clinic.example")
        yield running


def _sign_in(browser: TestClient, provider: Provider, **changes: str) -> Response:
    there = browser.get("/login/oidc", params={"next": "/account"})
    assert there.status_code == 302
    return browser.get(BACK, params=provider.authorize(there.headers["location"]) | changes)


def test_a_person_with_an_account_signs_in(ours: Clinic, provider: Provider) -> None:
    browser = ours.client()
    answer = _sign_in(browser, provider)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    assert "Dr Ida" in browser.get("/account").text


def test_from_then_on_the_person_counts_and_not_the_address(ours: Clinic, provider: Provider) -> None:
    assert _sign_in(ours.client(), provider).status_code == 303
    provider.claims = {"email": "married@clinic.example"}
    assert _sign_in(ours.client(), provider).status_code == 303
    provider.claims = {"sub": "person-2"}
    assert _sign_in(ours.client(), provider).status_code == 401


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "stranger@clinic.example"},
        {"email_verified": False},
        {"email": None},
        {"nonce": "of another sign-in"},
        {"aud": "another client"},
        {"iss": "https://elsewhere.example"},
        {"exp": 1},
    ],
    ids=str,
)
def test_a_token_that_does_not_hold_lets_nobody_in(ours: Clinic, provider: Provider, claims: dict[str, Any]) -> None:
    provider.claims = claims
    answer = _sign_in(ours.client(), provider)
    assert answer.status_code == 401
    assert "dermalert" not in answer.cookies


def test_a_signature_by_another_key_lets_nobody_in(
    ours: Clinic, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "key", RSAKey.generate_key(2048, {"kid": "1"}))
    assert _sign_in(ours.client(), provider).status_code == 401


def test_state_code_and_verifier_must_be_those_of_this_browsers_sign_in(ours: Clinic, provider: Provider) -> None:
    assert _sign_in(ours.client(), provider, state="guessed").status_code == 401
    assert _sign_in(ours.client(), provider, code="stolen").status_code == 401
    browser = ours.client()
    brought = provider.authorize(browser.get("/login/oidc").headers["location"])
    asked = provider.asked
    assert ours.client().get(BACK, params=brought).status_code == 401  # another browser, without the cookie
    assert provider.asked == asked
    provider.challenge = "of another sign-in"
    assert browser.get(BACK, params=brought).status_code == 401


def test_who_declines_there_is_told_so_here(ours: Clinic, provider: Provider) -> None:
    browser = ours.client()
    brought = provider.authorize(browser.get("/login/oidc").headers["location"])
    answer = browser.get(BACK, params={"error": "access_denied", "state": brought["state"]})
    assert answer.status_code == 401
    assert "not completed" in answer.text


def test_who_is_new_is_let_in_only_where_a_role_for_them_is_set(tmp_path, provider: Provider) -> None:
    provider.claims = {"sub": "new", "email": "new@clinic.example"}
    settings = {"oidc_issuer": provider.address, "oidc_client": "dermalert", "oidc_secret": "hush"}
    with clinic(tmp_path, **settings, oidc_role="reader") as running:
        browser = running.client()
        assert _sign_in(browser, provider).status_code == 303
        assert "new@clinic.example" in browser.get("/account").text
        provider.claims = {"sub": "newer", "email": "newer@clinic.example", "email_verified": False}
        assert _sign_in(running.client(), provider).status_code == 401


def test_a_provider_that_does_not_answer_leaves_the_password(tmp_path) -> None:
    with clinic(tmp_path, oidc_issuer="http://127.0.0.1:9", oidc_client="x") as running:
        browser = running.client()
        assert "/login/oidc" in browser.get("/login").text
        assert browser.get("/login/oidc").status_code == 502


def test_without_a_provider_there_is_no_such_way_in(tmp_path) -> None:
    with clinic(tmp_path) as running:
        assert "/login/oidc" not in running.client().get("/login").text
        assert running.client().get("/login/oidc").status_code == 404

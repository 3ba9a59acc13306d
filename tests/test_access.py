"""Who may do what: the written table, and every route asked as everybody."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi import APIRouter
from httpx import Response

from clinics import Clinic, clinic
from dermalert.clinic import access
from dermalert.clinic.routes import events
from dermalert.clinic.schema import Role
from dermalert.clinic.throttle import Throttle

EVERYBODY = {None, *Role}
SENDERS = set(Role)
READERS = {Role.READER, Role.ADMIN}
ADMINS = {Role.ADMIN}

# The table. A new route has its line here, or this test fails.
TABLE: dict[str, set[Role | None]] = {
    "GET /healthz": EVERYBODY,
    "GET /readyz": EVERYBODY,
    "GET /login": EVERYBODY,
    "POST /login": EVERYBODY,
    "GET /login/oidc": EVERYBODY,
    "GET /login/oidc/back": EVERYBODY,
    "GET /welcome": EVERYBODY,
    "POST /welcome": EVERYBODY,
    "GET /api/v1/openapi.json": EVERYBODY,
    "POST /logout": READERS,
    "GET /account": READERS,
    "POST /account/password": READERS,
    "POST /account/tokens": READERS,
    "POST /account/tokens/{id}/revoke": READERS,
    "POST /api/v1/pictures": SENDERS,
    "GET /api/v1/pictures/{id}": SENDERS,
    "GET /api/v1/cases": READERS,
    "GET /api/v1/cases/{id}": READERS,
    "POST /api/v1/cases/{id}/decisions": READERS,
    "POST /api/v1/cases/{id}/notes": READERS,
    "POST /api/v1/cases/{id}/histology": READERS,
    "POST /api/v1/cases/{id}/close": READERS,
    "POST /api/v1/cases/{id}/requeue": READERS,
    "GET /": READERS,
    "GET /worklist": READERS,
    "POST /worklist/search": READERS,
    "GET /cases/{id}": READERS,
    "GET /cases/{id}/picture": READERS,
    "GET /cases/{id}/evidence": READERS,
    "POST /cases/{id}/decision": READERS,
    "POST /cases/{id}/notes": READERS,
    "POST /cases/{id}/histology": READERS,
    "POST /cases/{id}/close": READERS,
    "POST /cases/{id}/requeue": READERS,
    "GET /references/{sha256}": READERS,
    "GET /upload": READERS,
    "POST /upload": READERS,
    "POST /theme": READERS,
    "GET /events": READERS,
    "GET /alerts": READERS,
    "POST /alerts/{id}/acknowledge": READERS,
    "GET /cases/{id}/report.pdf": READERS,
    "GET /reports/{day}.pdf": READERS,
    "GET /export": READERS,
    "GET /dashboard": READERS,
    "GET /metrics": SENDERS,
    "POST /alerts/rules": ADMINS,
    "POST /alerts/rules/{id}/test": ADMINS,
    "POST /alerts/rules/{id}/on": ADMINS,
    "POST /alerts/rules/{id}/off": ADMINS,
    "GET /admin": ADMINS,
    "GET /admin/users": ADMINS,
    "POST /admin/users": ADMINS,
    "POST /admin/users/{id}/link": ADMINS,
    "POST /admin/users/{id}/token": ADMINS,
    "POST /admin/users/{id}/role": ADMINS,
    "POST /admin/users/{id}/disable": ADMINS,
    "POST /admin/users/{id}/enable": ADMINS,
    "POST /admin/tokens/{id}/revoke": ADMINS,
    "GET /admin/trail": ADMINS,
}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    with clinic(tmp_path_factory.mktemp("clinic")) as running:
        object.__setattr__(running.service, "sign_ins", Throttle(10_000, per=1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(events, "LASTS", 0.0)  # a stream that ends at once
            yield running


def _ask(running: Clinic, route: str, role: Role | None) -> Response:
    method, path = route.split()
    return running.as_(role).request(method, re.sub(r"\{[^}]+\}", "nothing", path))


def _was_let_in(answer: Response) -> bool:
    to_login = answer.status_code == 303 and answer.headers["location"].startswith("/login")
    return answer.status_code not in (401, 403) and not to_login


def test_the_table_names_every_route(ours: Clinic) -> None:
    assert {route for route, _ in access.rules(ours.app)} == {*TABLE, "/static"}


@pytest.mark.parametrize("role", [None, Role.UPLOADER, Role.READER, Role.ADMIN], ids=str)
def test_every_route_lets_in_whom_the_table_names_and_nobody_else(ours: Clinic, role: Role | None) -> None:
    wrong = {}
    for route, allowed in TABLE.items():
        answer = _ask(ours, route, role)
        if route == "POST /logout":
            assert answer.status_code == (303 if role in allowed else 403 if role else 401)
            ours.forget(role) if role else None
        elif _was_let_in(answer) != (role in allowed) or answer.status_code >= 500:
            wrong[route] = answer.status_code
    assert wrong == {}


def test_a_route_without_a_rule_keeps_the_service_from_starting(tmp_path) -> None:
    bare = APIRouter()
    bare.get("/bare")(lambda: None)
    with clinic(tmp_path) as running:
        running.app.include_router(bare)
        with pytest.raises(RuntimeError, match="GET /bare"):
            access.check_every_route(running.app)


def test_what_manages_accounts_takes_no_api_token(ours: Clinic) -> None:
    browser = ours.client(headers={"Authorization": f"Bearer {ours.token(Role.ADMIN)}"})
    assert browser.get("/admin/users").status_code == 403
    assert browser.get("/account").status_code == 403
    assert browser.get("/api/v1/cases").status_code == 200


def test_a_change_with_a_cookie_but_without_its_csrf_token_is_refused(ours: Clinic) -> None:
    reader = ours.client(cookies=ours.as_(Role.READER).cookies)
    note = {"text": "as if from a page of ours"}
    for headers in ({}, {"X-CSRF-Token": "guessed"}):
        answer = reader.post("/api/v1/cases/nothing/notes", json=note, headers=headers)
        assert answer.status_code == 403
    good = {"X-CSRF-Token": ours.as_(Role.READER).headers["X-CSRF-Token"]}
    assert reader.post("/api/v1/cases/nothing/notes", json=note, headers=good).status_code == 404
    form = {"csrf": good["X-CSRF-Token"], "name": ""}
    assert reader.post("/account/tokens", data=form).status_code == 422
    assert reader.post("/account/tokens", data={"name": ""}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
    ],
    ids=str,
)
def test_a_change_from_another_sites_page_is_refused_even_with_the_token(ours: Clinic, headers) -> None:
    reader = ours.as_(Role.READER)
    answer = reader.post("/api/v1/cases/nothing/notes", json={"text": "x"}, headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.json()["detail"]


def test_an_unknown_token_counts_before_a_good_cookie(ours: Clinic) -> None:
    answer = ours.as_(Role.READER).get("/api/v1/cases", headers={"Authorization": "Bearer dermalert_guessed"})
    assert answer.status_code == 401


def test_who_is_not_signed_in_comes_back_to_the_page_that_was_asked_for(ours: Clinic) -> None:
    answer = ours.client().get("/account?tab=1", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Faccount%3Ftab%3D1")


@pytest.mark.parametrize("address", ["/healthz", "/login", "/static/style.css", "/nothing", "/api/v1/cases"])
def test_every_answer_carries_the_security_headers(ours: Clinic, address: str) -> None:
    headers = ours.client().get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "strict-transport-security" not in headers


def test_an_error_that_nobody_foresaw_tells_a_reference_and_nothing_of_itself(
    ours: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bool:
        raise ValueError("Erika Mustermann")

    monkeypatch.setattr(type(ours.service.store), "healthy", fails)
    for accept in ("application/json", "text/html"):
        answer = ours.client().get("/readyz", headers={"Accept": accept})
        assert answer.status_code == 500
        assert "Mustermann" not in answer.text
        assert answer.headers["x-request-id"] in answer.text
        assert "content-security-policy" in answer.headers


def test_a_bundle_that_cannot_be_loaded_is_told_and_pictures_are_still_taken(
    ours: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ours.client().get("/readyz").json()["model"]
    monkeypatch.setattr(ours.service.models, "problem", "bundle.json is missing")
    answer = ours.client().get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "database": True, "disk": True, "model": False}


def test_behind_tls_cookies_are_secure_and_bound_to_the_host(tmp_path) -> None:
    with clinic(tmp_path, https=True, base_url="https://derma.example") as running:
        answer = running.client().get("/login")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-dermalert-form=")
    for word in ("Secure", "HttpOnly", "SameSite=lax", "Path=/"):
        assert word in cookie
    assert answer.headers["strict-transport-security"].startswith("max-age=")


def test_a_throttle_gives_its_permissions_back_with_time() -> None:
    clock = [0.0]
    throttle = Throttle(2, per=60, clock=lambda: clock[0])
    assert [throttle.wait("a"), throttle.wait("a"), throttle.wait("a")] == [0.0, 0.0, 30.0]
    assert throttle.wait("b") == 0.0
    clock[0] = 30.0
    assert throttle.wait("a") == 0.0
    assert throttle.wait("a") == 30.0

"""Accounts: how one gets in, and how one does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select

from clinics import PASSWORD, Clinic, clinic
from dermalert.clinic import accounts
from dermalert.clinic.schema import Login, Role, Token, TrailEntry, User
from dermalert.clinic.store import Store
from dermalert.clinic.throttle import Throttle
from dermalert.errors import DataError, SignInRefused


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    with clinic(tmp_path_factory.mktemp("clinic")) as running:
        yield running


@pytest.fixture(scope="module")
def store(ours: Clinic) -> Store:
    ours.as_(Role.ADMIN)
    return ours.service.store


def _person(store: Store, name: str, role: Role = Role.READER) -> str:
    with store.session() as session:
        user_id = accounts.add_user(session, "test", name, role).id
        link = accounts.new_link(session, "test", user_id)
    accounts.set_password_by_link(store, link, PASSWORD)
    return user_id


def _user(store: Store, name: str) -> User:
    with store.reading() as session:
        return session.scalars(select(User).where(User.name == name)).one()


def test_the_first_admin_comes_in_by_a_link_that_works_once_and_nobody_by_a_default_password(tmp_path) -> None:
    with clinic(tmp_path) as running:
        store, browser = running.service.store, running.client()
        first, second = accounts.first_link(store), accounts.first_link(store)
        assert first
        assert second
        assert browser.get("/welcome", params={"token": first}).status_code == 404  # the later one counts
        page = browser.get("/welcome", params={"token": second})
        assert "admin" in page.text
        form = {"csrf": browser.cookies["dermalert-form"], "token": second}
        assert browser.post("/welcome", data={**form, "password": "short"}).status_code == 422
        assert browser.post("/welcome", data={**form, "password": PASSWORD}).status_code == 303
        assert browser.post("/welcome", data={**form, "password": PASSWORD}).status_code == 404
        assert accounts.first_link(store) is None
        form = {"csrf": browser.cookies["dermalert-form"], "name": "admin", "next": "/account"}
        for guess in ("", "admin", "password"):
            assert browser.post("/login", data={**form, "password": guess}).status_code in (401, 422)
        answer = browser.post("/login", data={**form, "password": PASSWORD})
        assert (answer.status_code, answer.headers["location"]) == (303, "/account")
        cookie = answer.headers["set-cookie"]
        for word in ("HttpOnly", "SameSite=lax", "Path=/"):
            assert word in cookie
        assert "Secure" not in cookie  # this one is reached by http
        assert browser.get("/account").status_code == 200


def test_what_is_stored_lets_nobody_in(store: Store, ours: Clinic) -> None:
    token = ours.token(Role.UPLOADER)
    cookie = accounts.sign_in(store, str(Role.ADMIN), PASSWORD, hours=1)
    with store.reading() as session:
        kept = [*session.scalars(select(Token.hash)), *session.scalars(select(Login.hash))]
        hashes = list(session.scalars(select(User.password_hash).where(User.password_hash.is_not(None))))
    assert not {token, cookie} & set(kept)
    assert all(each.startswith("$argon2id$") for each in hashes)
    assert accounts.visitor_by_session(store, kept[-1]) is None


def test_five_wrong_passwords_lock_an_account_for_a_minute_and_each_more_for_twice_as_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _person(store, "locked")
    at = [accounts.now()]
    monkeypatch.setattr(accounts, "now", lambda: at[0])
    for _ in range(5):
        with pytest.raises(SignInRefused):
            accounts.sign_in(store, "locked", "wrong password", hours=1)
    with pytest.raises(SignInRefused):
        accounts.sign_in(store, "locked", PASSWORD, hours=1)
    at[0] += timedelta(seconds=61)
    with pytest.raises(SignInRefused):
        accounts.sign_in(store, "locked", "wrong password", hours=1)
    at[0] += timedelta(seconds=119)
    with pytest.raises(SignInRefused):
        accounts.sign_in(store, "locked", PASSWORD, hours=1)
    at[0] += timedelta(seconds=2)
    assert accounts.sign_in(store, "locked", PASSWORD, hours=1)
    assert _user(store, "locked").failures == 0


def test_guesses_made_at_once_are_counted_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _person(store, "guessed")
    checked = []
    monkeypatch.setattr(accounts, "_is_right", lambda kept, _: checked.append(kept) and False)

    def guess() -> None:
        with pytest.raises(SignInRefused):
            accounts.sign_in(store, "guessed", "wrong", hours=1)

    threads = [threading.Thread(target=guess) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(kept is not None for kept in checked) == accounts.FREE_TRIES


def test_a_refusal_does_not_tell_whether_the_name_is_known(store: Store, ours: Clinic) -> None:
    told = []
    for name in (str(Role.ADMIN), "nobody of that name"):
        with pytest.raises(SignInRefused) as refusal:
            accounts.sign_in(store, name, "wrong password", hours=1)
        told.append(str(refusal.value))
    assert told[0] == told[1]


def test_too_many_tries_from_one_address_have_to_wait(tmp_path) -> None:
    with clinic(tmp_path) as running:
        object.__setattr__(running.service, "sign_ins", Throttle(2, per=3600))
        browser, tried = running.as_(None), {"name": "x", "password": "y"}
        assert [browser.post("/login", data=tried).status_code for _ in range(3)] == [401, 401, 429]
        assert int(browser.post("/login", data=tried).headers["retry-after"]) > 1


def test_a_session_ends_after_its_hours_or_an_idle_one_however_it_began(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = [accounts.now()]
    monkeypatch.setattr(accounts, "now", lambda: at[0])
    cookie = accounts.sign_in(store, str(Role.ADMIN), PASSWORD, hours=2)
    for _ in range(3):
        at[0] += timedelta(minutes=39)
        assert accounts.visitor_by_session(store, cookie)
    at[0] += timedelta(minutes=5)
    assert accounts.visitor_by_session(store, cookie) is None
    idle = accounts.sign_in(store, str(Role.ADMIN), PASSWORD, hours=12)
    at[0] += accounts.IDLE
    assert accounts.visitor_by_session(store, idle) is None


def test_signing_in_gives_a_new_session_and_signing_out_ends_it(ours: Clinic, store: Store) -> None:
    browser = ours.as_(None)
    browser.cookies.set("dermalert", "chosen by somebody else")
    form = {"name": str(Role.ADMIN), "password": PASSWORD, "next": "//elsewhere.example"}
    answer = browser.post("/login", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.cookies["dermalert"]
    assert cookie != "chosen by somebody else"
    visitor = accounts.visitor_by_session(store, cookie)
    assert visitor
    browser.cookies.clear()
    browser.cookies.set("dermalert", cookie)
    left = browser.post("/logout", data={"csrf": visitor.csrf}, headers={"X-CSRF-Token": visitor.csrf})
    assert left.status_code == 303
    assert accounts.visitor_by_session(store, cookie) is None


def test_who_is_disabled_is_out_at_once_with_session_and_token(store: Store) -> None:
    user_id = _person(store, "leaves")
    cookie = accounts.sign_in(store, "leaves", PASSWORD, hours=1)
    with store.session() as session:
        token = accounts.new_token(session, "test", user_id, "room 4")
    assert accounts.visitor_by_token(store, token)
    with store.session() as session:
        accounts.set_disabled(session, "test", user_id, True)
    assert accounts.visitor_by_session(store, cookie) is None
    assert accounts.visitor_by_token(store, token) is None
    with pytest.raises(SignInRefused):
        accounts.sign_in(store, "leaves", PASSWORD, hours=1)


def test_a_revoked_token_is_void_and_another_persons_cannot_be_revoked(store: Store) -> None:
    one, two = _person(store, "one"), _person(store, "two")
    with store.session() as session:
        secret = accounts.new_token(session, "test", one, "room 4")
        token = accounts.tokens(session, one)[0].id
    with pytest.raises(DataError), store.session() as session:
        accounts.revoke_token(session, "two", token, of=two)
    assert accounts.visitor_by_token(store, secret)
    with store.session() as session:
        accounts.revoke_token(session, "one", token, of=one)
    assert accounts.visitor_by_token(store, secret) is None


def test_another_password_ends_all_sessions(store: Store) -> None:
    user_id = _person(store, "changes")
    cookie = accounts.sign_in(store, "changes", PASSWORD, hours=1)
    with pytest.raises(SignInRefused):
        accounts.change_password(store, user_id, "wrong", "eight red boats at dawn")
    accounts.change_password(store, user_id, PASSWORD, "eight red boats at dawn")
    assert accounts.visitor_by_session(store, cookie) is None
    assert accounts.sign_in(store, "changes", "eight red boats at dawn", hours=1)


@pytest.mark.parametrize("password", ["short", "a" * 40, "abababababababab", "careful careful", "x" * 257])
def test_easy_passwords_are_refused(store: Store, password: str) -> None:
    with store.session() as session:
        user = session.scalars(select(User).where(User.name == "careful")).first()
        user_id = user.id if user else accounts.add_user(session, "test", "careful", Role.READER).id
        link = accounts.new_link(session, "test", user_id)
    with pytest.raises(DataError):
        accounts.set_password_by_link(store, link, password)


def test_the_last_admin_stays(tmp_path) -> None:
    with clinic(tmp_path) as running:
        running.as_(Role.ADMIN)
        store = running.service.store
        user_id = _user(store, str(Role.ADMIN)).id
        with pytest.raises(DataError, match="last admin"), store.session() as session:
            accounts.set_role(session, "test", user_id, Role.READER)
        with pytest.raises(DataError, match="last admin"), store.session() as session:
            accounts.set_disabled(session, "test", user_id, True)


def test_an_uploader_has_no_way_in_by_password(store: Store) -> None:
    with store.session() as session:
        user_id = accounts.add_user(session, "test", "camera", Role.UPLOADER).id
    with pytest.raises(DataError, match="API token"), store.session() as session:
        accounts.new_link(session, "test", user_id)
    demoted = _person(store, "demoted")
    cookie = accounts.sign_in(store, "demoted", PASSWORD, hours=1)
    with store.session() as session:
        accounts.set_role(session, "test", demoted, Role.UPLOADER)
    assert accounts.visitor_by_session(store, cookie) is None
    with pytest.raises(SignInRefused):
        accounts.sign_in(store, "demoted", PASSWORD, hours=1)


def test_admins_manage_accounts_in_the_browser_and_the_trail_tells_of_it(ours: Clinic, store: Store) -> None:
    admin = ours.as_(Role.ADMIN)
    made = admin.post("/admin/users", data={"name": "Dr Ida", "role": "reader", "email": "ida@clinic.example"})
    assert "/welcome?token=" in made.text
    assert "is not" not in made.text
    camera = admin.post("/admin/users", data={"name": "camera 7", "role": "uploader"})
    assert "dermalert_" in camera.text
    for wrong in (
        {"name": "Dr Ida", "role": "reader"},
        {"name": "service", "role": "reader"},
        {"name": "x", "role": "y"},
    ):
        assert admin.post("/admin/users", data=wrong).status_code == 422
    ida = _user(store, "Dr Ida")
    for change in ("role", "disable", "enable", "link"):
        assert admin.post(f"/admin/users/{ida.id}/{change}", data={"role": "admin"}).status_code in (200, 303)
    assert _user(store, "Dr Ida").role == Role.ADMIN
    with store.reading() as session:
        lines = session.scalars(select(TrailEntry).where(TrailEntry.subject == ida.id)).all()
    assert [line.action for line in lines] == [
        "add user",
        "make link",
        "set role",
        "disable user",
        "enable user",
        "make link",
    ]
    assert {line.who for line in lines} == {str(Role.ADMIN)}
    assert "disable user" in admin.get("/admin/trail").text


def test_a_token_of_ones_own_is_shown_once(ours: Clinic) -> None:
    reader = ours.as_(Role.READER)
    shown = reader.post("/account/tokens", data={"name": "my script"}).text
    secret = shown[shown.index("dermalert_") :].split("<")[0]
    assert ours.client(headers={"Authorization": f"Bearer {secret}"}).get("/api/v1/cases").status_code == 200
    assert secret not in reader.get("/account").text

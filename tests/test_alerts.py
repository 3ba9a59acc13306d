"""Alerts: raised once and lost by nothing, sent to a real mail server and a real receiver, faults and all."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from dermalert.clinic import alerts, delivery, targets, trail
from dermalert.clinic.delivery import MAX_ATTEMPTS, deliver, sweep_and_deliver, telling
from dermalert.clinic.drift import Comparison, Drift, Shift, shift_of_diagnoses
from dermalert.clinic.schema import Case, Delivery, Finding, Picture, Rule, new_id, now
from dermalert.clinic.settings import Settings
from dermalert.clinic.store import Store
from dermalert.errors import DataError

SECRET = "a long random word"


@pytest.fixture
def store(clinic_store: Store) -> Store:
    """Both databases."""
    return clinic_store


# Receivers


class Post:
    """A mail server that keeps what it is sent; `faults` are answers that it gives first."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.faults: list[str] = []
        self.over_tls: list[bool] = []
        self.logins: list[bytes] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.faults:
            return self.faults.pop(0)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.over_tls.append(session.ssl is not None)
        return "250 kept"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        self.logins.append(data.login)
        return AuthResult(success=data.password == b"w/ord")


@dataclass
class Receiver:
    """A webhook's receiver; `faults` are statuses that it answers first."""

    url: str = ""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A context for servers on localhost, and the file by which clients trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(datetime.now(UTC) - timedelta(days=1))
    made = made.not_valid_after(datetime.now(UTC) + timedelta(days=1)).add_extension(names, critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    public, private = folder / "localhost.pem", folder / "localhost.key"
    public.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def post() -> Iterator[tuple[Post, int]]:
    handler = Post()
    controller = Controller(handler, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield handler, controller.port
    controller.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    yield from serving()


def serving(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.requests.append((dict(self.headers), body))
            status = kept.faults.pop(0) if kept.faults else 204
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"{kept.url}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    kept.url = f"{'https' if context else 'http'}://localhost:{server.server_port}/hook"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield kept
    server.shutdown()
    server.server_close()


def free_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return server.server_port


def settings(smtp_port: int | None = None, **changes: Any) -> Settings:
    smtp = f"smtp://127.0.0.1:{smtp_port}" if smtp_port else "smtp://127.0.0.1:1"
    values = {"smtp": smtp, "webhook_secret": SECRET, "base_url": "https://derma.example/", **changes}
    return Settings(data=Path("unused"), **values)


# Cases and rules


def add_case(
    store: Store, *, status: str = "scored", melanoma: float | None = 0.7, alert: str = "refer", hours: float = 0
) -> str:
    """A case that came, and was scored, so many hours ago; it knows a patient's name."""
    at, id_ = now() - timedelta(hours=hours), new_id()
    with store.session() as session:
        session.add(Picture(sha256=id_, size=1, stored_at=at))
        case = Case(
            id=id_, sha256=id_, patient="Erika Mustermann", lesion="left arm 3", origin="api", uploaded_by="somebody",
            received_at=at, status=status, score=melanoma, scored_at=at if melanoma is not None else None,
        )  # fmt: skip
        if melanoma is not None:
            case.finding = Finding(
                bundle="b", bundle_digest="d" * 64, probabilities={"melanoma": melanoma}, melanoma=melanoma,
                alert=alert, diagnosis="melanoma", possible=[], scored_at=at,
            )  # fmt: skip
        session.add(case)
    return id_


def add_rule(store: Store, given: Settings, kind: str = "operating_point", **more: Any) -> str:
    values = {"name": "Melanoma to see", "channel": "email", "target": "ward@clinic.example", "kind": kind, **more}
    with store.session() as session:
        return alerts.add_rule(session, "an admin", given, **values).id


def sweep(store: Store, given: Settings, at: datetime | None = None) -> int:
    with store.session() as session:
        return alerts.sweep(session, at or now(), given)


def after(**time: float) -> Callable[[], datetime]:
    """The clock as it will be."""
    return lambda: now() + timedelta(**time)


def deliveries(store: Store) -> list[Delivery]:
    with store.reading() as session:
        return list(session.scalars(select(Delivery)))


def actions(store: Store) -> list[str]:
    with store.reading() as session:
        assert trail.verify(session).broken is None
        return list(session.scalars(select(trail.TrailEntry.action).order_by(trail.TrailEntry.seq)))


# Raising


def test_each_kind_of_rule_is_raised_by_what_it_is_about_and_by_nothing_else(store: Store) -> None:
    given = settings()
    for kind, more in (
        ("operating_point", {}),
        ("risk", {"threshold": 0.6}),
        ("waiting", {"hours": 24.0}),
        ("waiting", {"hours": 2.0, "threshold": 0.6}),
        ("failed", {}),
    ):
        add_rule(store, given, kind, name=kind + str(sorted(more)), **more)
    high, low = add_case(store), add_case(store, melanoma=0.1, alert="none")
    failed = add_case(store, status="failed", melanoma=None)
    old, older = add_case(store, melanoma=0.2, hours=30), add_case(store, status="refused", melanoma=None, hours=3)
    done = add_case(store, status="reviewed", hours=50)
    sweep(store, given)
    with store.reading() as session:
        found = {(alert.rule.name, alert.case_id) for alert, _ in alerts.raised(session)}
    assert found == {
        ("operating_point[]", high),
        ("risk['threshold']", high),
        ("waiting['hours']", old),
        ("waiting['hours', 'threshold']", older),  # without a score it is unknown, not harmless
        ("failed[]", failed),
    }
    assert not {low, done} & {case for _, case in found}


def test_what_was_scored_before_a_rule_was_on_raises_nothing(store: Store) -> None:
    given = settings()
    add_case(store, hours=1)
    rule = add_rule(store, given)
    with store.session() as session:
        alerts.switch(session, "an admin", rule, on=False)
    add_case(store)
    assert sweep(store, given) == 0
    with store.session() as session:
        alerts.switch(session, "an admin", rule, on=True)
    assert sweep(store, given) == 0
    add_case(store)
    assert sweep(store, given) == 1


def test_a_case_is_raised_once_however_often_one_sweeps(store: Store) -> None:
    given = settings()
    add_rule(store, given)
    add_case(store)
    assert [sweep(store, given) for _ in range(3)] == [1, 0, 0]
    assert len(deliveries(store)) == 1
    assert actions(store).count("alert") == 1


def test_two_processes_that_raise_the_same_raise_it_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings()
    rule, case = add_rule(store, given), add_case(store)
    sweep(store, given)
    with store.reading() as session:
        known = session.get(Rule, rule)
    assert known is not None
    with pytest.raises(IntegrityError), store.session() as session:
        alerts._raise(session, known, case, f"{rule}:{case}", now(), now())
    monkeypatch.setattr(alerts, "any_to_raise", lambda *_: True)
    monkeypatch.setattr(alerts, "sweep", lambda *_: (_ for _ in ()).throw(IntegrityError("", {}, Exception())))
    sweep_and_deliver(store, given)  # and the other's is sent
    assert deliveries(store)[0].attempts == 1


def test_drift_is_told_once_a_window(store: Store) -> None:
    given = settings()
    add_rule(store, given, "drift")
    moved: Shift = shift_of_diagnoses(np.array([900, 100]), np.array([10, 190]))
    later = now() + timedelta(minutes=1)
    window = Comparison("site", 3, later, later, 200, (moved,))
    quiet = Comparison("bundle", 3, later, later, 200, ())
    before = replace(window, window=1, until=later - timedelta(days=9))
    with store.session() as session:
        assert alerts.sweep_drift(session, [before, window, quiet], "d" * 64, now(), given) == 1
        assert alerts.sweep_drift(session, [window], "d" * 64, now(), given) == 0
        assert alerts.sweep_drift(session, [window], "e" * 64, now(), given) == 1  # of another model


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "weather"},
        {"kind": "risk"},
        {"kind": "risk", "threshold": 0.0},
        {"kind": "risk", "threshold": float("nan")},
        {"kind": "failed", "threshold": 0.5},
        {"kind": "waiting"},
        {"kind": "waiting", "hours": -1.0},
        {"kind": "failed", "hours": 3.0},
        {"name": ""},
        {"name": "two\nlines"},
        {"channel": "pigeon"},
        {"target": "nobody"},
        {"target": "a@b.example\nBcc: everybody@c.example"},
        {"target": "Ward <a@b.example>"},
        {"target": "a@b.example, c@d.example"},
    ],
    ids=str,
)
def test_a_rule_that_makes_no_sense_is_refused(store: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        add_rule(store, settings(), **wrong)


def test_without_a_mail_server_or_a_secret_there_is_no_rule_that_would_need_it(store: Store) -> None:
    with pytest.raises(DataError, match="DERMALERT_SMTP"):
        add_rule(store, settings(smtp=""))
    with pytest.raises(DataError, match="DERMALERT_WEBHOOK_SECRET"):
        add_rule(store, settings(webhook_secret=""), channel="webhook", target="https://a.example/")


def test_whoever_acknowledges_first_is_recorded_and_nothing_more_is_sent(store: Store, post: tuple[Post, int]) -> None:
    given = settings(post[1])
    add_rule(store, given)
    add_case(store)
    sweep(store, given)
    with store.session() as session:
        ((alert, _),) = alerts.raised(session)
        assert alerts.unacknowledged(session) == 1
        alerts.acknowledge(session, "Ada", alert.id)
        alerts.acknowledge(session, "Bob", alert.id)
    with store.reading() as session:
        ((alert, _),) = alerts.raised(session)
        assert alert.acknowledged_by == "Ada"
        assert alerts.raised(session, unacknowledged=True) == []
    assert deliver(store, given) == 0
    assert post[0].mails == []
    assert actions(store).count("acknowledge") == 1


# E-mail


def test_an_email_names_nobody_shows_nothing_and_links_to_the_case(store: Store, post: tuple[Post, int]) -> None:
    given = settings(post[1])
    add_rule(store, given)
    case = add_case(store)
    sweep_and_deliver(store, given)
    (mail,) = post[0].mails
    assert f"https://derma.example/cases/{case}" in mail.get_content()
    assert mail.get_content_type() == "text/plain"
    assert not list(mail.iter_attachments())
    assert mail["To"] == "ward@clinic.example"
    # Not the whole message: its date and its random Message-ID may hold any digits.
    told = f"{mail['Subject']} {mail['To']} {mail.get_content()}".replace(case, "")
    assert not re.search(r"Erika|Mustermann|left arm|0\.7|70", told)
    assert deliveries(store)[0].sent_at is not None
    assert actions(store)[-1] == "alert sent"
    sweep_and_deliver(store, given)
    assert len(post[0].mails) == 1


def test_what_is_due_at_once_goes_in_one_message(store: Store, post: tuple[Post, int]) -> None:
    given = settings(post[1])
    add_rule(store, given)
    cases = [add_case(store) for _ in range(53)]
    sweep_and_deliver(store, given)
    (mail,) = post[0].mails
    assert "(53 alerts)" in mail["Subject"]
    assert sum(case in mail.get_content() for case in cases) == 50
    assert "3 more: https://derma.example/alerts" in mail.get_content()


def test_a_digest_waits_for_its_hour(store: Store, post: tuple[Post, int]) -> None:
    given = settings(post[1])
    add_rule(store, given, digest=True)
    cases = [add_case(store), add_case(store)]
    sweep_and_deliver(store, given)
    assert post[0].mails == []
    (due,) = {each.next_try_at for each in deliveries(store)}
    assert due is not None
    assert (due.hour, due.minute) == (given.digest_hour, 0)
    assert now() < due <= now() + timedelta(days=1)
    assert deliver(store, given, lambda: due) == 1
    assert all(case in post[0].mails[0].get_content() for case in cases)


def test_a_mail_server_that_refuses_is_asked_again_later_and_later_then_given_up(
    store: Store, post: tuple[Post, int]
) -> None:
    given = settings(post[1])
    add_rule(store, given)
    add_case(store)
    sweep(store, given)
    post[0].faults = ["451 busy with Erika Mustermann"] * (MAX_ATTEMPTS - 1)
    waits = []
    for attempt in range(MAX_ATTEMPTS - 1):
        assert deliver(store, given, after(days=attempt)) == 0
        (left,) = deliveries(store)
        assert left.next_try_at is not None
        assert left.problem == "The mail server refused it with 451 (SMTPDataError)."
        waits.append((left.next_try_at - after(days=attempt)()).total_seconds())
    assert waits == pytest.approx([min(15 * 2**n, 7200) for n in range(MAX_ATTEMPTS - 1)], abs=5)
    post[0].faults = ["550 no"]
    assert deliver(store, given, after(days=30)) == 0
    (left,) = deliveries(store)
    assert (left.attempts, left.next_try_at, left.sent_at) == (MAX_ATTEMPTS, None, None)
    assert actions(store)[-1] == "alert not sent"


def test_a_sender_that_died_in_between_is_followed_by_another(
    store: Store, post: tuple[Post, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(post[1])
    add_rule(store, given)
    add_case(store)
    sweep(store, given)
    with monkeypatch.context() as patch:
        patch.setattr(delivery, "_record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            deliver(store, given)
    assert deliver(store, given) == 0  # it may still be at work
    assert deliver(store, given, after(minutes=3)) == 1
    first, second = post[0].mails
    assert first["Message-ID"] == second["Message-ID"]  # so the receiver can tell that it is one


def test_it_logs_in_over_tls_and_only_so(
    store: Store, tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Post()
    controller = Controller(
        handler, hostname="127.0.0.1", port=free_port(), tls_context=tls[0], require_starttls=True,
        authenticator=handler.authenticate, auth_required=True,
    )  # fmt: skip
    controller.start()
    try:
        address = f"smtp://derma:w%2Ford@localhost:{controller.port}"
        add_rule(store, settings())
        add_case(store)
        sweep(store, settings())
        assert deliver(store, settings(smtp=address)) == 0  # a certificate that nobody vouches for
        assert "SSLCertVerificationError" in str(deliveries(store)[0].problem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tls[1]))
        assert deliver(store, settings(smtp=address), after(hours=1)) == 1
        assert (handler.over_tls, handler.logins) == ([True], [b"derma"])
    finally:
        controller.stop()


def test_a_mail_server_elsewhere_without_tls_is_not_used_unless_asked(
    store: Store, post: tuple[Post, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_LOOPBACK", ())
    add_rule(store, settings())
    add_case(store)
    sweep(store, settings())
    assert deliver(store, settings(post[1])) == 0
    assert "STARTTLS" in str(deliveries(store)[0].problem)
    plain = settings(smtp=f"smtp://127.0.0.1:{post[1]}?tls=none")
    assert deliver(store, plain, after(hours=1)) == 1


def test_a_test_message_goes_the_way_of_alerts(store: Store, post: tuple[Post, int]) -> None:
    given = settings(post[1])
    rule = add_rule(store, given, digest=True)
    with store.session() as session:
        alerts.send_test(session, "an admin", rule, now())
    assert deliver(store, given) == 1
    assert "This is a test" in post[0].mails[0].get_content()


# Webhooks


def snippet() -> Any:
    """What docs/operate.md gives receivers to verify a webhook by."""
    text = (Path(__file__).parent.parent / "docs" / "operate.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?def is_from_dermalert.*?)```", text, re.DOTALL)
    room: dict[str, Any] = {}
    exec(code, room)
    return room["is_from_dermalert"]


def test_a_webhook_is_verified_by_the_snippet_of_the_documentation(store: Store, receiver: Receiver) -> None:
    given = settings()
    add_rule(store, given, channel="webhook", target=receiver.url)
    case = add_case(store)
    sweep_and_deliver(store, given)
    ((headers, body),) = receiver.requests
    is_authentic = snippet()
    assert is_authentic(headers, body, SECRET)
    assert not is_authentic(headers, body + b" ", SECRET)
    assert not is_authentic(headers, body, "another word")
    old = {**headers, **delivery.signature(body, SECRET, now() - timedelta(minutes=6))}
    assert not is_authentic(old, body, SECRET)
    told = json.loads(body)
    assert told["id"] == headers["Dermalert-Id"]
    assert told["alerts"][0]["case"] == case
    assert told["alerts"][0]["url"] == f"https://derma.example/cases/{case}"
    assert b"Mustermann" not in body
    assert headers["Host"] == receiver.url.split("/")[2]


@pytest.mark.parametrize("status", [302, 400, 429, 500])
def test_a_receiver_that_fails_is_tried_again_and_redirects_lead_nowhere(
    store: Store, receiver: Receiver, status: int
) -> None:
    given = settings()
    add_rule(store, given, channel="webhook", target=receiver.url)
    add_case(store)
    sweep(store, given)
    receiver.faults = [status]
    assert deliver(store, given) == 0
    assert len(receiver.requests) == 1
    assert str(status) in str(deliveries(store)[0].problem)
    assert deliver(store, given, after(minutes=1)) == 1


def test_a_receiver_that_is_away_or_silent_holds_up_no_other_rule(
    store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_PATIENCE", 0.2)
    given = settings()
    away = f"http://127.0.0.1:{free_port()}/"
    add_rule(store, given, channel="webhook", target=away)
    add_rule(store, given, channel="webhook", target=receiver.url)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:  # takes connections, answers none
        add_rule(store, given, channel="webhook", target=f"http://127.0.0.1:{silent.server_port}/")
        add_case(store)
        sweep(store, given)
        assert deliver(store, given) == 1
    assert sorted(str(each.problem) for each in deliveries(store)) == [
        "It could not be reached (ConnectError).",
        "It could not be reached (ReadTimeout).",
        "None",
    ]


def test_over_tls_the_certificate_must_be_of_the_name(
    store: Store, tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings()
    for receiver in serving(tls[0]):
        add_rule(store, given, channel="webhook", target=receiver.url)
        add_case(store)
        sweep(store, given)
        assert deliver(store, given) == 0
        monkeypatch.setenv("SSL_CERT_FILE", str(tls[1]))
        assert deliver(store, given, after(hours=1)) == 1
        add_rule(store, given, channel="webhook", target=receiver.url.replace("localhost", "127.0.0.1"))
        add_case(store)
        sweep(store, given)
        deliver(store, given, after(hours=2))
    assert sorted(each.sent_at is None for each in deliveries(store)) == [False, False, True]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/",
        "http://a.example/",
        "https://",
        "https://user:word@a.example/",
        "https://a.example/#part",
        "https://a.example:port/",
        "https://a.example/ x",
        "https://[::1",
        "file:///etc/passwd",
        "https://a.example/" + "x" * 600,
    ],
)
def test_a_url_that_webhooks_may_not_go_to_is_no_target(url: str) -> None:
    with pytest.raises(DataError):
        targets.check_webhook(settings(), url)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "240.0.0.1"],
)
def test_a_name_that_leads_to_this_machine_or_its_clouds_secrets_is_no_target(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets.socket, "getaddrinfo", answering(["10.1.2.3", address]))
    with pytest.raises(DataError, match="may not reach"):
        targets.resolved(settings(), "https://hospital.example/hook")


def test_the_connection_goes_to_the_address_that_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets.socket, "getaddrinfo", answering(["10.1.2.3"]))
    assert targets.resolved(settings(), "https://h.example:8443/a?b").numeric_url == "https://10.1.2.3:8443/a?b"
    monkeypatch.setattr(targets.socket, "getaddrinfo", answering(["fd00::5"]))
    assert targets.resolved(settings(), "https://h.example/a").numeric_url == "https://[fd00::5]/a"
    named = settings(plain_hosts="pacs.local, other.local")
    assert targets.resolved(named, "http://pacs.local/a").numeric_url == "http://[fd00::5]/a"


def answering(addresses: list[str]) -> Any:
    def lookup(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return [(10 if ip_address(each).version == 6 else 2, 1, 6, "", (each, 443)) for each in addresses]

    return lookup


def test_the_thread_tells_of_new_cases_and_survives_what_goes_wrong(
    store: Store, post: tuple[Post, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    given, failures, told = settings(post[1]), [RuntimeError("once")], threading.Event()
    add_rule(store, given)
    add_case(store)
    real = delivery.sweep_and_deliver

    def faulty(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        real(*arguments)
        told.set()

    monkeypatch.setattr(delivery, "_EVERY", 0.01)
    monkeypatch.setattr(delivery, "sweep_and_deliver", faulty)
    with telling(store, given, lambda _: Drift("", 0, (), (), False)):
        assert told.wait(20)
    assert len(post[0].mails) == 1

"""Who people are: accounts, passwords, sessions, API tokens, and the one-time links that set a password.

Comes in: names, passwords, cookies and tokens that anybody may have made. Goes out: a `Visitor`, or `SignInRefused`. It
knows no request; `access` says what a visitor may do.

Nobody has a default password: an account is made without one, and a link that works once, for three days, sets it.
Passwords are kept as argon2id; cookies, tokens and links, which are random, as SHA-256. A try to sign in is counted
before it is checked, so that many at once are no way round the lock-out; and a password is never hashed within a
transaction, for that would make everybody wait.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session, joinedload

from dermalert.clinic import trail
from dermalert.clinic.schema import Link, Login, Role, Token, User, now
from dermalert.clinic.store import Store
from dermalert.errors import DataError, SignInRefused

MIN_PASSWORD, MAX_PASSWORD = 12, 256  # characters
FREE_TRIES = 5  # to sign in, before an account is locked
LONGEST_LOCK = timedelta(minutes=30)
IDLE = timedelta(hours=1)  # after which a session that nobody uses ends
LINK_LASTS = timedelta(days=3)
_MINUTE = timedelta(minutes=1)
_NOT_PEOPLE = ("service", "worker", "watcher", "anonymous")  # who else stands in the audit trail

# argon2id with the parameters of RFC 9106 for machines with little memory: 64 MiB a hash, so two at a time.
_hasher = PasswordHasher()
_hashing = threading.BoundedSemaphore(2)


@dataclass(frozen=True)
class Visitor:
    """Who sends a request.

    Attributes:
        name: of the user; empty for somebody who has not signed in.
        role: None for somebody who has not signed in.
        csrf: what this visitor's forms must carry; empty where none can be sent.
        by: "session", "token", or empty.
    """

    user_id: str = ""
    name: str = ""
    role: Role | None = None
    csrf: str = ""
    by: str = ""


# Signing in


def sign_in(store: Store, name: str, password: str, *, hours: float) -> str:
    """Opens a session.

    Args:
        hours: after which it ends, however it is used.

    Returns:
        what the cookie holds.

    Raises:
        SignInRefused: unknown name, wrong password, disabled or locked account; it does not tell which.
    """
    user_id, kept = _counted(store, name)
    if not _is_right(kept, password) or kept is None:
        raise SignInRefused(
            "The name or the password is wrong, or the account is locked for some minutes after too many tries. "
            "An admin can send you a link that sets a new password."
        )
    anew = _hashed(password) if _hasher.check_needs_rehash(kept) else kept
    with store.session() as session:
        user = session.get_one(User, user_id, with_for_update=True)
        user.failures, user.locked_until, user.password_hash = 0, None, anew
        trail.append(session, user.name, "sign-in", user.id, by="password")
        return _open(session, user, hours)


def sign_in_by_oidc(store: Store, claims: Mapping[str, Any], *, hours: float, role: str) -> str:
    """Opens a session for whom an OpenID provider vouches, whose signature the caller has checked.

    The first time, the account is found by the e-mail address that the provider has verified; from then on by the
    provider's own name for the person, for addresses change hands.

    Args:
        claims: of the id_token: "iss", "sub", and the first time "email" and "email_verified".
        role: of who has no account yet; empty: they are refused.

    Raises:
        SignInRefused: no account, or a disabled one.
    """
    subject = hashlib.sha256(f"{claims['iss']}\n{claims['sub']}".encode()).hexdigest()
    with store.session() as session:
        user = session.scalar(select(User).where(User.subject == subject)) or _claimed(session, claims, subject, role)
        if user is None or user.disabled or user.role == Role.UPLOADER:
            raise SignInRefused("There is no account for you here. Ask an admin to make one with your e-mail address.")
        trail.append(session, user.name, "sign-in", user.id, by="oidc")
        return _open(session, user, hours)


def sign_out(store: Store, cookie: str) -> None:
    """Ends a session; harmless where there is none."""
    with store.session() as session:
        login = session.get(Login, _digest(cookie), options=[joinedload(Login.user)])
        if login:
            trail.append(session, login.user.name, "sign-out", login.user_id)
            session.delete(login)


def visitor_by_session(store: Store, cookie: str) -> Visitor | None:
    """Whose session it is; None where it is unknown, over, or its user is disabled."""
    at = now()
    with store.reading() as session:
        login = session.get(Login, _digest(cookie), options=[joinedload(Login.user)])
    if login is None or login.user.disabled or at >= min(login.expires_at, login.seen_at + IDLE):
        return None
    if at - login.seen_at > _MINUTE:
        with store.session() as session:
            if kept := session.get(Login, login.hash):
                kept.seen_at = at
    return Visitor(login.user_id, login.user.name, Role(login.user.role), login.csrf, "session")


def visitor_by_token(store: Store, secret: str) -> Visitor | None:
    """Whose API token it is; None where it is unknown or revoked, or its user is disabled."""
    at = now()
    with store.reading() as session:
        asked = select(Token).where(Token.hash == _digest(secret), Token.revoked_at.is_(None))
        token = session.scalar(asked.options(joinedload(Token.user)))
    if token is None or token.user.disabled:
        return None
    if token.used_at is None or at - token.used_at > _MINUTE:
        with store.session() as session:
            session.get_one(Token, token.id).used_at = at
    return Visitor(token.user_id, token.user.name, Role(token.user.role), by="token")


# Accounts


def first_link(store: Store) -> str | None:
    """A one-time link's secret for the first admin, where no admin can sign in yet; None where one can.

    The account is called "admin". Each start of the service makes a new link, and the one before is void.
    """
    with store.session() as session:
        able = User.password_hash.is_not(None) | User.subject.is_not(None)
        if session.scalar(select(exists().where(User.role == Role.ADMIN, ~User.disabled, able))):
            return None
        user = session.scalar(select(User).where(User.name == "admin"))
        if user is None:
            user = add_user(session, "service", "admin", Role.ADMIN)
        user.role, user.disabled = Role.ADMIN, False
        return new_link(session, "service", user.id)


def users(session: Session) -> list[User]:
    """All accounts, by name."""
    return list(session.scalars(select(User).order_by(User.name)))


def tokens(session: Session, user_id: str | None = None) -> list[Token]:
    """The API tokens that are not revoked, of one user or of all, the newest first."""
    asked = select(Token).where(Token.revoked_at.is_(None)).options(joinedload(Token.user))
    if user_id is not None:
        asked = asked.where(Token.user_id == user_id)
    return list(session.scalars(asked.order_by(Token.created_at.desc())))


def add_user(session: Session, who: str, name: str, role: str, email: str = "") -> User:
    """Makes an account without a password.

    Raises:
        DataError: no such role, a name or address that is taken or makes no sense.
    """
    name, email = name.strip(), email.strip().lower()
    if not (1 <= len(name) <= 100 and name.isprintable()) or name.lower() in _NOT_PEOPLE:
        raise DataError(f"A name has 1 to 100 printable characters, and is not {', '.join(_NOT_PEOPLE)}.")
    if email and ("@" not in email or len(email) > 254 or not email.isprintable() or " " in email):
        raise DataError("This is no e-mail address. Give one as name@clinic.example, or none.")
    taken = User.name == name if not email else (User.name == name) | (User.email == email)
    if session.scalar(select(exists().where(taken))):
        raise DataError("There is an account of this name or address. Choose another.")
    user = User(name=name, email=email or None, role=_role(role), created_at=now())
    session.add(user)
    session.flush()
    trail.append(session, who, "add user", user.id, name=name, role=user.role)
    return user


def set_role(session: Session, who: str, user_id: str, role: str) -> None:
    """Gives a user another role, from this moment on.

    Raises:
        DataError: no such user or role, or nobody would be left to manage.
    """
    user = _user(session, user_id)
    user.role = _role(role)
    if user.role == Role.UPLOADER:
        _end_sessions(session, user_id)
    _keep_an_admin(session)
    trail.append(session, who, "set role", user.id, role=user.role)


def set_disabled(session: Session, who: str, user_id: str, disabled: bool) -> None:
    """Disables an account, whose sessions and tokens end with it, or lets it in again.

    Raises:
        DataError: no such user, or nobody would be left to manage.
    """
    user = _user(session, user_id)
    user.disabled = disabled
    if disabled:
        _end_sessions(session, user_id)
    _keep_an_admin(session)
    trail.append(session, who, "disable user" if disabled else "enable user", user.id)


def new_link(session: Session, who: str, user_id: str) -> str:
    """A secret that sets this user's password once, within `LINK_LASTS`. Earlier ones become void.

    Raises:
        DataError: no such user, or one who brings pictures by API tokens alone.
    """
    user = _user(session, user_id)
    if user.role == Role.UPLOADER:
        raise DataError("An uploader has no password. Make an API token instead.")
    session.execute(delete(Link).where(Link.user_id == user.id))
    secret = secrets.token_urlsafe(32)
    session.add(Link(hash=_digest(secret), user_id=user.id, expires_at=now() + LINK_LASTS))
    trail.append(session, who, "make link", user.id)
    return secret


def name_by_link(session: Session, secret: str) -> str | None:
    """Whose password the link sets; None where it is void."""
    link = _link(session, secret)
    return link.user.name if link else None


def set_password_by_link(store: Store, secret: str, password: str) -> str:
    """Sets a password; the link is then void, the lock of the account opened, and its sessions ended.

    Returns:
        the user's name.

    Raises:
        DataError: a void link, or a password that is too easy.
    """
    with store.reading() as session:
        name = name_by_link(session, secret)
    hashed = _new_hash(name or "", password)
    with store.session() as session:
        link = _link(session, secret)
        if link is None:
            raise DataError("This link was used before, or is too old. Ask an admin for a new one.")
        user = link.user
        session.execute(delete(Link).where(Link.user_id == user.id))
        _set(session, user, hashed)
        return user.name


def change_password(store: Store, user_id: str, old: str, password: str) -> None:
    """Sets another password and ends all of the user's sessions.

    Raises:
        SignInRefused: the old one is wrong. DataError: the new one is too easy.
    """
    with store.reading() as session:
        name = _user(session, user_id).name
    _, kept = _counted(store, name)
    if not _is_right(kept, old) or kept is None:
        raise SignInRefused("The present password is wrong. Nothing was changed.")
    hashed = _new_hash(name, password)
    with store.session() as session:
        _set(session, _user(session, user_id), hashed)


def new_token(session: Session, who: str, user_id: str, name: str) -> str:
    """Makes an API token of a user and returns it; it can't be shown again.

    Raises:
        DataError: no such user, or no name for it.
    """
    user, name = _user(session, user_id), name.strip()
    if not (1 <= len(name) <= 100 and name.isprintable()):
        raise DataError("Name the token, in 1 to 100 characters, by where it is used: microscope in room 4.")
    secret = f"dermalert_{secrets.token_urlsafe(32)}"
    token = Token(user_id=user.id, hash=_digest(secret), name=name, created_at=now())
    session.add(token)
    session.flush()
    trail.append(session, who, "make token", user.id, token=token.id)
    return secret


def revoke_token(session: Session, who: str, token_id: str, *, of: str | None = None) -> None:
    """Makes a token void, from this moment on.

    Args:
        of: the id of the user whose token it must be; None: anybody's.

    Raises:
        DataError: there is no such token.
    """
    token = session.get(Token, token_id)
    if token is None or (of is not None and token.user_id != of):
        raise DataError("There is no such token. Look at the list again.")
    token.revoked_at = token.revoked_at or now()
    trail.append(session, who, "revoke token", token.user_id, token=token.id)


def sweep(session: Session) -> None:
    """Forgets sessions and links that are over."""
    at = now()
    session.execute(delete(Login).where((Login.expires_at < at) | (Login.seen_at < at - IDLE)))
    session.execute(delete(Link).where(Link.expires_at < at))


# Below: how


def _counted(store: Store, name: str) -> tuple[str, str | None]:
    """Counts a try to sign in: the user's id and hash; without a hash where no password can be right."""
    at = now()
    with store.session() as session:
        user = session.scalar(select(User).where(User.name == name).with_for_update())
        if user is None or user.password_hash is None or user.disabled or user.role == Role.UPLOADER:
            return "", None
        if user.locked_until is not None and at < user.locked_until:
            return "", None
        user.failures += 1
        user.locked_until = _locked_until(user.failures, at)
        if user.locked_until is not None:
            trail.append(session, "service", "lock user", user.id, tries=user.failures)
        return user.id, user.password_hash


def _locked_until(failures: int, at: datetime) -> datetime | None:
    """After `FREE_TRIES` a minute, and from then on twice as long for each try, up to `LONGEST_LOCK`."""
    beyond = failures - FREE_TRIES
    return None if beyond < 0 else at + min(_MINUTE * 2 ** min(beyond, 10), LONGEST_LOCK)


@cache
def _nobodys() -> str:
    """A hash of no password, so that an unknown name takes as long to refuse as a wrong password."""
    return _hasher.hash(secrets.token_urlsafe())


def _is_right(kept: str | None, password: str) -> bool:
    try:
        with _turn():
            return _hasher.verify(kept or _nobodys(), password[: MAX_PASSWORD + 1])
    except (VerificationError, InvalidHashError):
        return False


@contextmanager
def _turn() -> Iterator[None]:
    if not _hashing.acquire(timeout=10):
        raise SignInRefused("Too many people sign in at this moment. Try again in a minute.")
    try:
        yield
    finally:
        _hashing.release()


def _hashed(password: str) -> str:
    with _turn():
        return _hasher.hash(password)


def _new_hash(name: str, password: str) -> str:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise DataError(f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters. A sentence is a good one.")
    if len(set(password)) < 6 or name.lower() in password.lower():
        raise DataError("This password is easy to guess: it repeats itself, or holds your name. A sentence is better.")
    return _hashed(password)


def _set(session: Session, user: User, hashed: str) -> None:
    user.password_hash, user.failures, user.locked_until = hashed, 0, None
    _end_sessions(session, user.id)
    trail.append(session, user.name, "set password", user.id)


def _open(session: Session, user: User, hours: float) -> str:
    cookie, at = secrets.token_urlsafe(32), now()
    session.add(
        Login(
            hash=_digest(cookie),
            user_id=user.id,
            csrf=secrets.token_urlsafe(24),
            created_at=at,
            seen_at=at,
            expires_at=at + timedelta(hours=hours),
        )
    )
    return cookie


def _claimed(session: Session, claims: Mapping[str, Any], subject: str, role: str) -> User | None:
    email = str(claims.get("email") or "").lower()
    if not email or claims.get("email_verified") is not True:
        return None
    user = session.scalar(select(User).where(func.lower(User.email) == email, User.subject.is_(None)))
    if user is None and role and not session.scalar(select(exists().where(User.email == email))):
        user = add_user(session, "service", email[:100], role, email)
    if user is not None and not user.disabled:
        user.subject = subject
    return user


def _link(session: Session, secret: str) -> Link | None:
    link = session.get(Link, _digest(secret), options=[joinedload(Link.user)])
    return link if link and now() < link.expires_at and not link.user.disabled else None


def _user(session: Session, user_id: str) -> User:
    user = session.get(User, user_id)
    if user is None:
        raise DataError("There is no such user. Look at the list again.")
    return user


def _role(role: str) -> Role:
    if role not in set(Role):
        raise DataError(f"{role!r:.40} is no role. Choose one of: {', '.join(Role)}.")
    return Role(role)


def _keep_an_admin(session: Session) -> None:
    session.flush()
    if not session.scalar(select(exists().where(User.role == Role.ADMIN, ~User.disabled))):
        raise DataError("This is the last admin. Make another one first.")


def _end_sessions(session: Session, user_id: str) -> None:
    session.execute(delete(Login).where(Login.user_id == user_id))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()

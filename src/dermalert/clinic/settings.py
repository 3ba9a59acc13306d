"""What the clinic is told on the command line or by DERMALERT_* variables.

Comes in: options and an environment. Goes out: a frozen `Settings`. An option counts before a variable, and a variable
before a default. Secrets come by variables alone: what is typed stands in the list of processes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dermalert.errors import DataError
from dermalert.intake.decode import Limits


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one installation of the clinic runs.

    Attributes:
        data: the folder of pictures and, by default, of the database.
        db: URL of the database; empty: SQLite in `data`.
        bundle: the folder of the model; None: the one that ships.
        host, port: where it listens.
        base_url: what links in messages begin with, as "https://derma.example".
        https: whether browsers reach it by TLS, through a proxy: cookies are then marked Secure.
        proxies: addresses of proxies whose X-Forwarded headers are believed, with commas.
        workers: scoring threads in the service; 0 where separate processes score.
        watch: a folder whose pictures are taken in; None: none is watched.
        max_bytes: of one picture. max_files: in one request or zip. max_pixels: of one picture.
        max_request: bytes of one request. upload_seconds: that it may take to arrive.
        max_waiting: cases waiting to be scored, beyond which uploads are turned away for a while.
        decode_seconds: of decoding one picture, after which the decoder is killed.
        decode_memory: bytes of address space that the decoder may take.
        lease_seconds: after which the case of a worker that died is given to another.
        max_attempts: of scoring, before a case is laid aside as failed.
        session_hours: after which one has to log in again.
        smtp: "smtp://user:password@host:port" or "smtps://…"; empty: no e-mail.
        mail_from: the sender of e-mails.
        webhook_secret: key of the signature (HMAC-SHA-256) of webhooks.
        plain_hosts: hosts, with commas, that webhooks may reach by http; by default only this machine.
        digest_hour: of the day, in UTC, at which digests of alerts are sent.
        oidc_issuer, oidc_client, oidc_secret: of sign-in by OpenID Connect; empty: by password alone.
        oidc_role: of who signs in by OpenID Connect for the first time; empty: only people who have an account may.
        neighbours: a folder, table or manifest of reference pictures for similar cases; None: none are shown.
    """

    data: Path
    db: str = field(default="", repr=False)
    bundle: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    base_url: str = ""
    https: bool = False
    proxies: str = ""
    workers: int = 1
    watch: Path | None = None
    max_bytes: int = 30_000_000
    max_files: int = 200
    max_request: int = 500_000_000
    upload_seconds: float = 300.0
    max_pixels: int = 80_000_000
    max_waiting: int = 2000
    decode_seconds: float = 20.0
    decode_memory: int = 3_000_000_000
    lease_seconds: float = 40.0
    max_attempts: int = 5
    session_hours: float = 12.0
    smtp: str = field(default="", repr=False)
    mail_from: str = "dermalert@localhost"
    webhook_secret: str = field(default="", repr=False)
    plain_hosts: str = ""
    digest_hour: int = 6
    oidc_issuer: str = ""
    oidc_client: str = ""
    oidc_secret: str = field(default="", repr=False)
    oidc_role: str = ""
    neighbours: Path | None = None

    @property
    def db_url(self) -> str:
        """The database's URL; SQLite in the data folder where none is given."""
        return self.db or f"sqlite:///{self.data / 'clinic.db'}"

    @property
    def link_base(self) -> str:
        """What links begin with, without a slash at the end."""
        return (self.base_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def limits(self) -> Limits:
        """What one picture may cost the decoder."""
        return Limits(max_bytes=self.max_bytes, max_pixels=self.max_pixels, max_seconds=self.decode_seconds)


def settings_of(environment: Mapping[str, str] = os.environ, **options: Any) -> Settings:
    """The settings that options and DERMALERT_* variables give; an option of None is not given.

    Raises:
        DataError: a variable holds a value that makes no sense.
    """
    given: dict[str, Any] = {"data": default_data_folder(environment)}
    for each in fields(Settings):
        name = f"DERMALERT_{each.name.upper()}"
        if options.get(each.name) is not None:
            given[each.name] = options[each.name]
        elif environment.get(name):
            given[each.name] = _parsed(name, environment[name], str(each.type))
    return Settings(**given)


def default_data_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where this operating system keeps a user's data, and in it `dermalert`."""
    if sys.platform == "win32":
        base = Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "dermalert"


def _parsed(name: str, text: str, kind: str) -> Any:
    kinds: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": _truth, "str": str}
    try:
        return kinds.get(kind, Path)(text)
    except ValueError:
        raise DataError(f"{name} is {text!r:.60}, which is no {kind}. Mend it, or unset it.") from None


def _truth(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]

"""The commands of the clinic: what `dermalert serve`, `worker`, `check`, `backup`, `restore` and `audit-trail` run.

Parses, calls, prints. The service's libraries are imported inside, so that other commands start without them.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dermalert.errors import Damaged, MissingExtra, printable

if TYPE_CHECKING:
    from dermalert.clinic.files import Files
    from dermalert.clinic.settings import Settings
    from dermalert.clinic.store import Store

Command = TypeVar("Command", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


def place_options(command: Command) -> Command:
    """Where the clinic keeps what it knows."""
    data = click.option("--data", type=FOLDER, help="The clinic's folder; default: in your data folder.")
    db = click.option(
        "--db", metavar="URL", help="sqlite:///FILE or postgresql://…; default: SQLite in --data. Or DERMALERT_DB."
    )
    return data(db(command))


def places(**options: Any) -> tuple[Settings, Store, Files]:
    """The settings, and the store and the files they name; nothing is made.

    Raises:
        MissingExtra: the service's libraries are not installed.
    """
    try:
        from dermalert.clinic.files import Files
        from dermalert.clinic.settings import settings_of
        from dermalert.clinic.store import Store
    except ImportError as error:
        raise MissingExtra("The clinic", "serve") from error
    settings = settings_of(**options)
    return settings, Store(settings.db_url), Files(settings.data / "pictures")


def made(**options: Any) -> tuple[Settings, Store, Files]:
    """As `places`; the folder and the tables are made, and tables of an older version upgraded."""
    settings, store, files = places(**options)
    settings.data.mkdir(parents=True, exist_ok=True)
    store.upgrade()
    return settings, store, files


def found(**options: Any) -> tuple[Settings, Store, Files]:
    """As `places`; a clinic must be there."""
    settings, store, files = places(**options)
    store.require()
    return settings, store, files


@click.command()
@place_options
@click.option("--host", help="Where it listens; default: 127.0.0.1, this machine alone.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: 8000.")
@click.option("--base-url", metavar="URL", help="What links begin with, behind a proxy: https://derma.example.")
@click.option("--https", is_flag=True, default=None, help="Browsers come by TLS, through a proxy: cookies are Secure.")
@click.option("--proxies", metavar="ADDRESSES", help="Of proxies whose X-Forwarded headers are believed.")
@click.option("--bundle", type=FOLDER, help="The bundle/ folder of a training run; default: the model that ships.")
@click.option("--workers", type=click.IntRange(0), help="Scoring threads; 0: `dermalert worker` scores. Default: 1.")
@click.option("--watch", type=FOLDER, help="A folder whose pictures are taken in.")
def serve(**options: Any) -> None:
    """Serve the clinic: a worklist that alerts, and an API.

    The first time, prints a link that sets the admin's password; it works once. Every option can be given as a
    variable, DERMALERT_PORT and so on; some things only so: see docs/operate.md. Ends in order on SIGTERM or Ctrl-C.

    \b
    Example:
      dermalert serve --data /srv/clinic --watch /srv/from-the-microscope
    """
    settings, store, _ = made(**options)
    from dermalert.clinic import accounts
    from dermalert.clinic.serving import listening, run

    with listening(settings) as (settings, taken):
        link = accounts.first_link(store)
        store.close()
        if link:
            click.echo(
                f"Nobody can sign in yet. Set the password of 'admin': {settings.link_base}/welcome?token={link}"
            )
        run(settings, taken, lambda name: click.echo(f"Serving {settings.link_base} with {printable(name)}", err=True))


@click.command()
@place_options
@click.option("--bundle", type=FOLDER, help="The bundle/ folder of a training run; default: the model that ships.")
@click.option("--workers", type=click.IntRange(1), help="Scoring threads in this process; default: 1.")
def worker(**options: Any) -> None:
    """Score the clinic's cases in a process of its own.

    Several may run, on several machines, beside `dermalert serve --workers 0`: with PostgreSQL as the database, and
    --data on a disk that all of them see. Ends in order on SIGTERM or Ctrl-C: the cases at hand are finished first.

    \b
    Example:
      dermalert worker --db postgresql://clinic@db/clinic --data /srv/clinic
    """
    settings, store, files = made(**options)
    from dermalert.clinic.model import ModelInUse
    from dermalert.clinic.worker import Workers

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    models = ModelInUse(settings.bundle)
    name = models.current().bundle.name
    workers = Workers(store, files, models, settings)
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    workers.start()
    click.echo(f"Scoring with {printable(name)}; stop with Ctrl-C", err=True)
    while not stop.wait(1.0):  # a wait without an end would keep signals out on some systems
        pass
    workers.stop()


@click.command()
@place_options
def check(**options: Any) -> None:
    """Prove that the clinic's files, rows and audit trail agree.

    Reads every picture and every row; may run beside the service. Exit status 1 and a line for each fault if there
    are any.

    \b
    Example:
      dermalert check --data /srv/clinic
    """
    _, store, files = found(**options)
    from dermalert.clinic.checking import check as checked

    whole = checked(store, files)
    for problem in whole.problems:
        click.echo(printable(problem))
    told = f"{whole.cases} cases, {whole.pictures} pictures, {whole.lines} lines of the trail"
    if whole.problems:
        raise Damaged(f"{len(whole.problems)} faults in {told}. Restore what is gone from a backup.")
    click.echo(f"{told}: all agree. The trail's head is {whole.head}")
    if whole.unclaimed:
        click.echo(f"{whole.unclaimed} files are of uploads that broke off before they were acknowledged", err=True)


@click.command()
@click.argument("file", type=FILE)
@place_options
def backup(file: Path, **options: Any) -> None:
    """Write the database and all pictures into one file, while the service runs.

    FILE is a tar; each part in it is held against its checksum when it is restored. It is not encrypted. For
    PostgreSQL, takes pg_dump.

    \b
    Example:
      dermalert backup /backups/clinic-monday.tar --data /srv/clinic
    """
    _, store, files = found(**options)
    from dermalert.clinic.backup import write_backup

    written = write_backup(store, files, file, datetime.now(UTC))
    click.echo(f"Wrote {printable(str(file))}: the database and {written.pictures} pictures of {written.made}")


@click.command()
@click.argument("file", type=FILE)
@place_options
def restore(file: Path, **options: Any) -> None:
    """Bring a backup back into an empty database, and check it.

    For PostgreSQL, takes pg_restore.

    \b
    Example:
      dermalert restore /backups/clinic-monday.tar --data /srv/clinic-again
    """
    _, store, files = places(**options)
    from dermalert.clinic.backup import restore_backup
    from dermalert.clinic.checking import check as checked

    restored = restore_backup(file, store, files)
    whole = checked(store, files)
    if whole.problems:
        raise Damaged(f"{file}: was restored, but {len(whole.problems)} faults were in it: run dermalert check.")
    click.echo(f"Restored {whole.cases} cases and {whole.pictures} pictures of {restored.made}")


@click.group("audit-trail")
def audit_trail() -> None:
    """Work with the record of who did what.

    \b
    Example:
      dermalert audit-trail verify --data /srv/clinic
    """


@audit_trail.command("verify")
@place_options
@click.option("--known", metavar="HEAD", help="A head that an earlier call printed: its line must still be there.")
def verify(known: str | None, **options: Any) -> None:
    """Find a line of the audit trail that was altered, removed, added or moved.

    Prints the trail's head. Note it where nobody who can write the database can change it: held against it, even a
    trail that was forged as a whole is found.

    \b
    Example:
      dermalert audit-trail verify --data /srv/clinic
    """
    _, store, _ = found(**options)
    from dermalert.clinic import trail

    with store.reading() as session:
        lines = trail.verify(session, _head(known) if known else None)
    if lines.broken:
        raise Damaged(f"audit trail: line {lines.broken.seq} {lines.broken.why}. Find out who could write to it.")
    click.echo(f"{lines.seq} lines, all as they were written. The head is {lines.seq}:{lines.digest}")


def _head(text: str) -> tuple[int, str]:
    number, _, digest = text.partition(":")
    if not number.isdigit() or not digest:
        raise click.BadParameter(f"{text!r} is no head, as in 120:5ab0…", param_hint="--known")
    return int(number), digest


clinic_commands: tuple[click.Command, ...] = (serve, worker, check, backup, restore, audit_trail)

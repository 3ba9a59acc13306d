"""Writes a draft of a migration, from what the tables of `clinic/schema.py` have that the newest migration has not.

    .venv/bin/python scripts/migration.py 0002 "A case knows its camera"

Read what it wrote and mend it; what fills new columns of old rows has to be written by hand.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic import command

from dermalert.clinic.store import Store, alembic_config


def main(number: str, message: str) -> None:
    """Writes `migrations/versions/NUMBER_….py`."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{Path(folder) / 'empty.db'}")
        store.upgrade()
        with store.session() as session:
            command.revision(alembic_config(session.connection()), message, autogenerate=True, rev_id=number)


if __name__ == "__main__":
    main(*sys.argv[1:])

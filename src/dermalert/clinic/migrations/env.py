"""Run by Alembic, within the transaction of `Store.upgrade` or of `scripts/migration.py`."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from dermalert.clinic.schema import Base, Moment


def _as_of_now(kind: str, thing: Any, _: object) -> str | Literal[False]:
    """A migration stays as it was written, whatever becomes of our own type."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(thing, Moment) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    render_item=_as_of_now,
)
with context.begin_transaction():
    context.run_migrations()

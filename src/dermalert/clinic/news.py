"""Whether cases have changed, for all the pages that are open at one moment.

Comes in: a database. Goes out: a stamp that grows with every change. However many ask, one looks, once a second.
"""

from __future__ import annotations

import threading
import time

from dermalert.clinic import worklist
from dermalert.clinic.store import Store

EVERY = 1.0  # seconds between looks


class News:
    """The news of one service.

    Attributes:
        streams: how many pages listen now.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._lock = store, threading.Lock()
        self._stamp, self._looked = 0, -EVERY
        self.streams = 0

    def stamp(self) -> int:
        """The stamp of all cases, at most `EVERY` seconds old."""
        with self._lock:
            if time.monotonic() - self._looked >= EVERY:
                with self._store.reading() as session:
                    self._stamp = worklist.stamp(session)
                self._looked = time.monotonic()
            return self._stamp

    def stamp_of(self, case: str) -> int:
        """The stamp of one case, as it is now."""
        with self._store.reading() as session:
            return worklist.stamp(session, case)

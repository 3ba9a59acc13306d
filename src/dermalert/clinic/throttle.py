"""How often somebody may ask: a bucket of permissions each, that fills again with time.

Comes in: who asks, and a clock. Goes out: how long they have to wait. It is kept in memory, by process: a restart
forgets it, and so it stands beside the lock-out of accounts, which is in the database, and not in its place.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_KEYS = 20_000  # remembered; beyond, whoever has not asked for longest is forgotten


class Throttle:
    """At most `most` times in a row, and on average `most` in `per` seconds."""

    def __init__(self, most: int, *, per: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._rate = most / per
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, key: str) -> float:
        """Takes one permission of `key`: 0.0, or the seconds until there is one again, and then none was taken."""
        with self._lock:
            now = self._clock()
            left, at = self._left.pop(key, (float(self._most), now))
            left = min(float(self._most), left + (now - at) * self._rate)
            allowed = left >= 1
            self._left[key] = (left - 1 if allowed else left, now)
            if len(self._left) > _MOST_KEYS:
                self._left.popitem(last=False)
            return 0.0 if allowed else (1 - left) / self._rate

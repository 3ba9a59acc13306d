"""What readers look for, kept here and not in addresses: a reference of a patient must stand in no log and no history.

Comes in: the words of a search. Goes out: an opaque name for them, which an address may carry. They are in memory
alone, of one service: after a restart a search is made anew.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict

MOST = 5000  # searches remembered; the oldest is forgotten first


class Searches:
    """Searches of all readers; each sees only their own."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, user_id: str, text: str) -> str:
        """Remembers the words, and gives the name by which `text_of` finds them."""
        name = secrets.token_urlsafe(9)
        with self._lock:
            self._kept[name] = (user_id, text)
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)
        return name

    def text_of(self, user_id: str, name: str) -> str | None:
        """The words; None where they are forgotten, or somebody else's."""
        owner, text = self._kept.get(name, ("", ""))
        return text if owner == user_id else None

"""Trying again what may pass: a share that hangs for a moment, a server that is busy.

Comes in: a piece of work. Goes out: its result, or its last error. It knows errors of the operating system and of
HTTP by their numbers, and decides nothing about what an error means for the user.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

Made = TypeVar("Made")

_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "EREMOTEIO", "ESTALE", "ENOTCONN", "EAGAIN", "EBUSY", "EINTR", "ETIMEDOUT"),
        *("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "EPIPE", "ESHUTDOWN"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETRESET", "ENETUNREACH"),
    )
    if hasattr(errno, name)  # each system has its own
)
_PASSING_STATUS = frozenset({408, 425, 429})  # of HTTP: too slow, too early, too many; and from 500 on
_HOPELESS = 8  # failures in a row


def may_pass(error: BaseException | None) -> bool:
    """Whether the same work may succeed in a moment."""
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    status = http_status(error)
    if status is not None:
        return status in _PASSING_STATUS or status >= 500
    return isinstance(error, OSError) and error.errno in _PASSING


def http_status(error: BaseException | None) -> int | None:
    """The status that a server answered with, if the error tells one: aiohttp calls it `status`, others `code`."""
    told = (getattr(error, name, None) for name in ("status", "code"))
    return next((status for status in told if isinstance(status, int)), None)


class Patience:
    """How often and how long something is tried.

    A share that has gone for good must not cost a wait for each of a million files: after 8 pieces of work in a row
    that all attempts failed for, each further one is tried once, until one succeeds.

    Attributes:
        attempts: in all.
        first_wait_s: seconds before the second attempt; doubled before each further one.
        timeout_s: seconds that one attempt at something remote may take.
    """

    def __init__(
        self,
        attempts: int = 4,
        first_wait_s: float = 0.5,
        timeout_s: float = 60.0,
        *,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.attempts = attempts
        self.first_wait_s = first_wait_s
        self.timeout_s = timeout_s
        self._sleep = sleep
        self._failed_in_a_row = 0

    def __call__(self, work: Callable[[], Made], *, passes: Callable[[Exception], bool] = may_pass) -> Made:
        """What `work` returns.

        Args:
            passes: whether an error may be gone at the next attempt.

        Raises:
            Exception: what the last attempt raised, or the first that cannot pass.
        """
        attempts = 1 if self._failed_in_a_row >= _HOPELESS else self.attempts
        for attempt in range(attempts):
            try:
                made = work()
            except Exception as error:
                if not passes(error):
                    raise
                if attempt == attempts - 1:
                    self._failed_in_a_row += 1
                    raise
                self._sleep(self.first_wait_s * 2**attempt)
            else:
                self._failed_in_a_row = 0
                return made
        raise AssertionError("at least one attempt is made")


PATIENCE = Patience()

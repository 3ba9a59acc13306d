"""Work on threads, its results in order: how reading, decoding and scoring overlap.

Comes in: items, however many, and what to do with each. Goes out: the results, as they are asked for. What may run
ahead is bounded, so that a slow reader of the results holds up those who make them, and memory stays flat. One stage's
results may be the next one's items.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_order(work: Callable[[Given], Made], items: Iterable[Given], workers: int | None = None) -> Iterator[Made]:
    """`map(work, items)` on threads, in order, with a bounded number under way: memory stays flat.

    Args:
        workers: threads; by default one a core.
    """
    count = workers or cores()
    pending: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                while pending and (len(pending) >= 4 * count or pending[0].done()):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux, where a container may have fewer than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

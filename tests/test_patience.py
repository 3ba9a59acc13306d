"""Trying again: what may pass is tried again with growing waits, what cannot is not, and hope ends."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from dermalert.intake.patience import Patience, may_pass


class Status(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


class Code(Exception):
    def __init__(self, code: object) -> None:
        self.code = code


class Flaky:
    """Work that raises each of the errors once, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def gone() -> str:
    raise OSError(errno.ESTALE, "Stale file handle")


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patience(waits: list[float]) -> Patience:
    return Patience(attempts=4, first_wait_s=0.5, sleep=waits.append)


def test_what_passes_is_tried_again_with_doubled_waits(patience: Patience, waits: list[float]) -> None:
    assert patience(Flaky(*[OSError(errno.EIO, "I/O error")] * 3)) == "done"
    assert waits == [0.5, 1.0, 2.0]


def test_after_the_last_attempt_its_error_comes_through(patience: Patience, waits: list[float]) -> None:
    with pytest.raises(OSError, match="Stale"):
        patience(gone)
    assert len(waits) == 3


def test_what_cannot_pass_is_tried_once(patience: Patience, waits: list[float]) -> None:
    work = Flaky(FileNotFoundError(errno.ENOENT, "no such file"))
    with pytest.raises(FileNotFoundError):
        patience(work)
    assert (work.calls, waits) == (1, [])


def test_a_share_that_has_gone_for_good_costs_no_wait_a_file(patience: Patience, waits: list[float]) -> None:
    for _ in range(100):
        with pytest.raises(OSError, match="Stale"):
            patience(gone)
    assert len(waits) == 8 * 3
    assert patience(Flaky()) == "done"
    with pytest.raises(OSError, match="Stale"):
        patience(gone)
    assert len(waits) == 9 * 3


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        *((OSError(getattr(errno, name), ""), True) for name in ("EIO", "ESTALE", "ENOTCONN", "EBUSY", "EHOSTDOWN")),
        *((OSError(getattr(errno, name), ""), False) for name in ("ENOENT", "EACCES", "EISDIR", "ENAMETOOLONG")),
        *((Status(number), True) for number in (408, 429, 500, 502, 503, 504)),
        *((Status(number), False) for number in (400, 401, 403, 404, 410)),
        (Code(503), True),
        (Code(404), False),
        (Code("503"), False),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (ValueError(), False),
        (None, False),
    ],
)
def test_errors_are_told_apart_by_their_numbers(error: Exception | None, passes: bool) -> None:
    assert may_pass(error) is passes


def test_the_caller_may_say_what_passes(patience: Patience) -> None:
    passes: Callable[[Exception], bool] = lambda error: isinstance(error, KeyError)  # noqa: E731
    assert patience(Flaky(KeyError()), passes=passes) == "done"

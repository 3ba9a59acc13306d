"""Work on threads: in order, bounded, and gone when nobody asks for more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from dermalert.intake.overlap import cores, in_order


def test_results_come_in_order_however_long_each_takes() -> None:
    done = [threading.Event() for _ in range(41)]

    def work(number: int) -> int:
        if number % 2 == 0:  # every other one waits for the one after it
            done[number + 1].wait(timeout=10)
        done[number].set()
        return number

    assert list(in_order(work, range(40), workers=4)) == list(range(40))


def test_only_a_bounded_number_is_under_way_so_that_memory_stays_flat() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken = number
            yield number

    for number in in_order(lambda item: item, items(), workers=2):
        assert taken - number <= 8


def test_work_is_spread_over_the_threads_asked_for() -> None:
    meet = threading.Barrier(3, timeout=10)
    assert len(list(in_order(lambda _: meet.wait(), range(3), workers=3))) == 3


def test_an_error_in_one_is_raised_in_its_turn_and_the_rest_is_not_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ZeroDivisionError
        return number

    results = in_order(work, range(10_000), workers=1)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert len(begun) < 20


def test_a_reader_that_stops_leaves_nothing_running() -> None:
    before = set(threading.enumerate())
    results = in_order(lambda number: number, range(10_000), workers=3)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_nothing_to_do_gives_nothing() -> None:
    assert list(in_order(lambda item: item, [], workers=2)) == []


def test_a_result_is_given_as_soon_as_it_is_there() -> None:
    done, given = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert done.wait(timeout=10)
        yield 2
        assert given.wait(timeout=0), "asked for a third before the first result was given"
        yield 3

    def work(number: int) -> int:
        if number == 1:
            threading.Timer(0.05, done.set).start()  # once this result is there
        return number

    results = in_order(work, items(), workers=8)
    assert next(results) == 1
    given.set()
    assert list(results) == [2, 3]


def test_there_is_a_core() -> None:
    assert cores() >= 1

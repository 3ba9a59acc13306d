from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dermalert.errors import (
    BrokenPicture,
    BundleError,
    DataError,
    DermalertError,
    MissingExtra,
    NotAPicture,
    NotEnoughNegatives,
    NotEnoughPositives,
    RefusedFile,
    RunError,
    TooLarge,
    Unreadable,
    in_utf8,
    printable,
)

REFUSALS = [NotAPicture, BrokenPicture, TooLarge, Unreadable]


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_names_the_file_the_reason_and_the_mend(kind: type[RefusedFile]) -> None:
    refusal = kind(Path("set") / "x.jpg", "the file is cut off", "Copy it again.")
    assert (refusal.path, refusal.reason, refusal.mend) == ("set/x.jpg", "the file is cut off", "Copy it again.")
    assert str(refusal) == "set/x.jpg: the file is cut off. Copy it again."


def test_refusals_are_told_apart_by_their_codes() -> None:
    assert [kind.code for kind in REFUSALS] == ["not_a_picture", "broken", "too_large", "unreadable"]


@pytest.mark.parametrize(
    "error",
    [*REFUSALS, RefusedFile, DataError, NotEnoughNegatives, NotEnoughPositives, BundleError, RunError, MissingExtra],
)
def test_one_except_clause_catches_every_error_a_user_can_cause(error: type[Exception]) -> None:
    assert issubclass(error, DermalertError)


def test_a_refused_file_is_no_data_error_so_that_the_batch_goes_on() -> None:
    assert not issubclass(RefusedFile, DataError)
    assert issubclass(NotEnoughPositives, DataError)
    assert issubclass(NotEnoughNegatives, DataError)


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_comes_back_whole_from_a_worker_process(kind: type[RefusedFile]) -> None:
    back = pickle.loads(pickle.dumps(kind("x.jpg", "empty", "Remove it.")))
    assert type(back) is kind
    assert (back.path, back.reason, back.mend) == ("x.jpg", "empty", "Remove it.")


def test_a_missing_extra_says_how_to_install_it() -> None:
    assert "pip install '.[train]'" in str(MissingExtra("Training", "train"))


def test_a_hostile_name_cannot_break_out_of_its_line() -> None:
    refusal = NotAPicture("a\nERROR\x1b[31m\u202e\udcff.jpg", "empty", "Remove it.")
    assert str(refusal) == r"a\nERROR\x1b[31m\u202e\udcff.jpg: empty. Remove it."


@given(st.text(st.characters(), max_size=30))
@example("line separator \u2028 and paragraph separator \u2029")
@settings(deadline=None, max_examples=200)
def test_printable_text_is_one_line_of_valid_unicode(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert "\x1b" not in shown
    if text.isprintable():
        assert shown == text


@given(st.text(st.characters(), max_size=30))
@example("b\udcff.jpg")
@settings(deadline=None, max_examples=100)
def test_any_name_can_be_written_in_utf8_and_one_that_is_utf8_stays_as_it_is(text: str) -> None:
    written = in_utf8(text).encode("utf-8")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        assert b"\\ud" in written
    else:
        assert written.decode("utf-8") == text

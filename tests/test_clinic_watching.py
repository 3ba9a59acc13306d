"""The watched folder: a file is taken once it is whole, and lies in done/ or in refused/ with the reason after."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import select

from dermalert.clinic.files import Files
from dermalert.clinic.receiving import Bounds
from dermalert.clinic.schema import Case
from dermalert.clinic.store import Store
from dermalert.clinic.watching import Watcher
from dermalert.errors import Busy
from pictures import picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(f"sqlite:///{tmp_path / 'clinic.db'}")
    made.upgrade()
    return made


@pytest.fixture
def watcher(store: Store, folder: Path, tmp_path: Path) -> Watcher:
    return Watcher(store, Files(tmp_path / "pictures"), folder, Bounds(max_waiting=3, max_bytes=100_000))


def _cases(store: Store) -> list[Case]:
    with store.reading() as session:
        return list(session.scalars(select(Case)))


def _names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


def test_a_file_is_taken_once_it_is_still(watcher: Watcher, store: Store, folder: Path) -> None:
    file = folder / "a.png"
    file.write_bytes(picture(1)[:30])
    assert watcher.look() == 0
    file.write_bytes(picture(1))
    assert watcher.look() == 0
    assert watcher.look() == 1
    [case] = _cases(store)
    assert (case.origin, case.uploaded_by) == ("watch", "watched folder")
    assert _names(folder) == ["done"]
    assert _names(folder / "done") == ["a.png"]


def test_what_is_no_picture_is_put_aside_with_the_reason(watcher: Watcher, store: Store, folder: Path) -> None:
    (folder / "letter.pdf").write_bytes(b"%PDF-1.7")
    (folder / "link.png").symlink_to("/etc/hostname")
    (folder / "large.png").write_bytes(picture(1) + b"0" * 100_000)
    (folder / ".hidden.png").write_bytes(picture(1))
    os.mkfifo(folder / "pipe.zip")
    for _ in range(2):
        watcher.look()
    assert _cases(store) == []
    assert _names(folder) == [".hidden.png", "refused"]
    reasons = {file.name: file.read_text() for file in (folder / "refused").glob("*.txt")}
    assert sorted(reasons) == ["large.png.txt", "letter.pdf.txt", "link.png.txt", "pipe.zip.txt"]
    assert "PDF" in reasons["letter.pdf.txt"]


def test_the_pictures_of_an_archive_are_taken(watcher: Watcher, store: Store, folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("1.png", picture(1))
        archive.writestr("2.png", picture(2))
    for _ in range(2):
        watcher.look()
    assert len(_cases(store)) == 2
    assert _names(folder / "done") == ["a.zip"]


def test_a_file_that_comes_again_is_the_same_case(watcher: Watcher, store: Store, folder: Path) -> None:
    for _ in range(2):  # as after a crash between the commit and the move
        (folder / "a.png").write_bytes(picture(1))
        watcher.look()
        watcher.look()
    assert len(_cases(store)) == 1
    assert len(_names(folder / "done")) == 2


def test_while_the_queue_is_full_files_stay_where_they_are(watcher: Watcher, store: Store, folder: Path) -> None:
    for number in range(4):
        (folder / f"{number}.png").write_bytes(picture(number))
    watcher.look()
    with pytest.raises(Busy):
        watcher.look()
    assert (_names(folder), len(_cases(store))) == (["3.png", "done"], 3)


def test_a_case_is_committed_before_its_file_is_moved(
    watcher: Watcher, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> NoReturn:
        assert len(_cases(store)) == 1
        raise OSError

    (folder / "a.png").write_bytes(picture(1))
    watcher.look()
    monkeypatch.setattr(watcher, "_move", dies)
    with pytest.raises(OSError):  # noqa: PT011
        watcher.look()
    assert _names(folder) == ["a.png"]

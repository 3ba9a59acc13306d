"""Stored pictures: whole or not there, and never silently another."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dermalert.clinic.files import Files
from dermalert.errors import Damaged, NoRoom


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "pictures")


def test_what_is_stored_comes_back_under_the_digest_of_its_content(files: Files) -> None:
    sha256 = files.put(b"a picture")
    assert sha256 == hashlib.sha256(b"a picture").hexdigest()
    assert files.read(sha256) == b"a picture"
    assert list(files.walk()) == [sha256]


def test_the_same_content_is_one_file(files: Files) -> None:
    first = files.path(files.put(b"a picture")).stat()
    assert files.path(files.put(b"a picture")).stat() == first


def test_a_damaged_file_is_never_given_out_and_a_new_upload_mends_it(files: Files) -> None:
    sha256 = files.put(b"a picture")
    files.path(sha256).write_bytes(b"a pictura")
    with pytest.raises(Damaged, match="not what was stored"):
        files.read(sha256)
    files.put(b"a picture")
    assert files.read(sha256) == b"a picture"
    files.path(sha256).unlink()
    with pytest.raises(Damaged, match="is gone"):
        files.read(sha256)


def test_a_file_has_its_name_only_once_it_is_on_the_disk(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(any(files.walk()))
        real(handle)

    files.root.mkdir()
    monkeypatch.setattr(os, "fsync", fsync)
    files.put(b"a picture")
    assert synced == [False, False, True]  # the folder's name, the content, and last the file's name


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_told_and_leaves_nothing(files: Files, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    (files.root / hashlib.sha256(b"b").hexdigest()[:2]).mkdir(parents=True)
    monkeypatch.setattr(os if step == "fsync" else Path, step, full)
    with pytest.raises(NoRoom, match="Make room"):
        files.put(b"b")
    monkeypatch.undo()
    assert [file for file in files.root.rglob("*") if file.is_file()] == []
    files.put(b"b")


def test_what_a_killed_process_left_is_swept_away_once_it_is_old(files: Files) -> None:
    sha256 = files.put(b"a picture")
    part = files.path(sha256).with_name(f"{sha256}.1234.part")
    part.write_bytes(b"a pic")
    assert list(files.walk()) == [sha256]
    assert files.sweep() == 0
    os.utime(part, (0, 0))
    assert files.sweep() == 1
    assert [file.name for file in files.root.rglob("*") if file.is_file()] == [sha256]


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, "a" * 63 + "\n"])
def test_only_a_digest_is_a_name(files: Files, name: str) -> None:
    with pytest.raises(ValueError, match="no SHA-256"):
        files.read(name)

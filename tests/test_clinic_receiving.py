"""What is acknowledged is stored and committed; what is refused leaves nothing; twice the same is one case."""

from __future__ import annotations

import io
import threading
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import func, select

from dermalert.clinic import queue, trail
from dermalert.clinic.files import Files
from dermalert.clinic.receiving import About, Bounds, Receipt, receive, receive_zip
from dermalert.clinic.schema import Case, Origin, Picture, Status, TrailEntry
from dermalert.clinic.store import Store
from dermalert.errors import Busy, KeyTaken, NoRoom, NotAPicture, RefusedFile, TooLarge
from pictures import picture


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "pictures")


def _take(store: Store, files: Files, data: bytes, **options: Any) -> Receipt:
    return receive(store, files, data, who="anna", origin=Origin.API, **options)


def _count(store: Store, kind: type[Any]) -> int:
    with store.reading() as session:
        return session.scalar(select(func.count()).select_from(kind)) or 0


def test_an_acknowledged_picture_is_stored_committed_and_due(clinic_store: Store, files: Files) -> None:
    about = About(patient="p7", lesion="l2", site="back", age=61)
    receipt = _take(clinic_store, files, picture(1), key="visit 3", about=about)
    again = Store(clinic_store.url.render_as_string(hide_password=False))  # as another process sees it
    with again.reading() as session:
        case = session.scalars(select(Case)).one()
        assert (case.id, case.status, case.patient, case.site) == (receipt.case.id, Status.RECEIVED, "p7", "back")
        assert queue.is_due(session, case.received_at)
        assert files.read(case.sha256) == picture(1)
        line = session.scalars(select(TrailEntry)).one()
        assert (line.who, line.action, line.subject) == ("anna", "received", case.id)
    again.close()


def test_the_same_picture_under_the_same_key_is_one_case(clinic_store: Store, files: Files) -> None:
    first = _take(clinic_store, files, picture(1), key="visit 3")
    second = _take(clinic_store, files, picture(1), key="visit 3")
    other = _take(clinic_store, files, picture(1), key="visit 4")
    assert (first.is_new, second.is_new, other.is_new) == (True, False, True)
    assert first.case.id == second.case.id != other.case.id
    assert (_count(clinic_store, Case), _count(clinic_store, Picture)) == (2, 1)


def test_the_same_picture_of_another_patient_is_never_taken_for_the_first(clinic_store: Store, files: Files) -> None:
    _take(clinic_store, files, picture(1), about=About(patient="p7"))
    with pytest.raises(KeyTaken, match="another key"):
        _take(clinic_store, files, picture(1), about=About(patient="p8"))
    _take(clinic_store, files, picture(1), key="p8", about=About(patient="p8"))


def test_uploads_at_one_moment_are_one_case(clinic_store: Store, files: Files) -> None:
    receipts: list[Receipt] = []
    start = threading.Barrier(4)

    def take() -> None:
        start.wait()
        receipts.append(_take(clinic_store, files, picture(1)))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({receipt.case.id for receipt in receipts}) == 1
    assert [receipt.is_new for receipt in receipts].count(True) == 1
    with clinic_store.reading() as session:
        assert trail.verify(session).broken is None


@pytest.mark.parametrize(
    ("data", "refusal", "told"),
    [
        (b"", NotAPicture, "empty"),
        (b"%PDF-1.7 ...", NotAPicture, "PDF"),
        (picture(1) + b"0" * 2000, TooLarge, "1,000 are allowed"),
    ],
)
def test_what_cannot_be_a_picture_is_refused_at_once_and_leaves_nothing(
    clinic_store: Store, files: Files, data: bytes, refusal: type[RefusedFile], told: str
) -> None:
    with pytest.raises(refusal, match=told):
        _take(clinic_store, files, data, bounds=Bounds(max_bytes=1000))
    assert (_count(clinic_store, Case), list(files.walk())) == (0, [])


def test_a_full_queue_turns_uploads_away_and_keeps_what_it_has(clinic_store: Store, files: Files) -> None:
    bounds = Bounds(max_waiting=2)
    for number in range(2):
        _take(clinic_store, files, picture(number), bounds=bounds)
    with pytest.raises(Busy, match="2 cases wait") as told:
        _take(clinic_store, files, picture(2), bounds=bounds)
    assert told.value.retry_after > 0
    assert (_count(clinic_store, Case), len(list(files.walk()))) == (2, 2)


def test_a_full_disk_opens_no_case(clinic_store: Store, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: bytes) -> NoReturn:
        raise NoRoom("full")

    monkeypatch.setattr(files, "put", full)
    with pytest.raises(NoRoom):
        _take(clinic_store, files, picture(1))
    assert _count(clinic_store, Case) == 0


# Archives


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    stream.seek(0)
    return stream


def _take_zip(store: Store, files: Files, archive: io.BytesIO, **options: Any) -> dict[str, Receipt | RefusedFile]:
    return dict(receive_zip(store, files, archive, who="anna", **options))


def test_each_picture_of_an_archive_is_a_case_and_the_rest_is_told(clinic_store: Store, files: Files) -> None:
    found = _take_zip(
        clinic_store,
        files,
        _zip({"a.png": picture(1), "sub/b.png": picture(2), "list.csv": b"a,b", "in.zip": b"PK\3\4"}),
    )
    assert isinstance(found["a.png"], Receipt)
    assert isinstance(found["sub/b.png"], Receipt)
    assert isinstance(found["list.csv"], NotAPicture)
    assert isinstance(found["in.zip"], NotAPicture)
    assert _count(clinic_store, Case) == 2


@pytest.mark.parametrize("name", ["../../x.png", "/etc/x.png", "..\\x.png", "C:\\x.png"])
def test_a_member_whose_name_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    store = Store(f"sqlite:///{tmp_path / 'clinic.db'}")
    store.upgrade()
    found = _take_zip(store, Files(tmp_path / "data" / "pictures"), _zip({name: picture(1)}))
    assert isinstance(found[name], NotAPicture)
    assert [file.name for file in tmp_path.rglob("*.png")] == []


def test_bombs_are_refused_before_they_are_unpacked(clinic_store: Store, files: Files) -> None:
    bomb = _zip({"bomb.png": b"\0" * 20_000_000}, zipfile.ZIP_DEFLATED)
    assert isinstance(_take_zip(clinic_store, files, bomb)["bomb.png"], TooLarge)
    large = _zip({"large.png": b"\0" * 2000})
    assert isinstance(_take_zip(clinic_store, files, large, bounds=Bounds(max_bytes=1000))["large.png"], TooLarge)
    many = _zip({f"{number}.png": picture(number) for number in range(4)})
    with pytest.raises(TooLarge, match="4 files, and 3 are allowed"):
        _take_zip(clinic_store, files, many, bounds=Bounds(max_files=3))


def test_a_header_that_lies_about_its_size_unpacks_no_more_than_allowed(clinic_store: Store, files: Files) -> None:
    archive = bytearray(_zip({"a.png": b"\0" * 5000}, zipfile.ZIP_DEFLATED).getvalue())
    for start in (archive.find(b"PK\3\4") + 22, archive.find(b"PK\1\2") + 24):
        archive[start : start + 4] = (100).to_bytes(4, "little")
    found = _take_zip(clinic_store, files, io.BytesIO(bytes(archive)), bounds=Bounds(max_bytes=1000))
    assert isinstance(found["a.png"], RefusedFile)
    assert _count(clinic_store, Case) == 0


def test_a_broken_archive_is_told(clinic_store: Store, files: Files) -> None:
    with pytest.raises(NotAPicture, match="no zip"):
        _take_zip(clinic_store, files, io.BytesIO(b"PK\3\4 and then nothing"))
    torn = bytearray(_zip({"a.png": picture(1)}).getvalue())
    torn[50] ^= 255
    assert isinstance(_take_zip(clinic_store, files, io.BytesIO(bytes(torn)))["a.png"], NotAPicture)

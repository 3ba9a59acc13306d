"""What is given to be scored: each form of it gives its pictures once, in order, and tells what is wrong."""

from __future__ import annotations

import errno
import os
import sys
from itertools import islice
from pathlib import Path

import pytest

from bad_files import saved
from dermalert.errors import BrokenArchive, DataError, MissingExtra, NotAPicture, RefusedFile, TooLarge, Unreadable
from dermalert.intake import given as module
from dermalert.intake import remote, sources
from dermalert.intake.decode import Limits
from dermalert.intake.given import Given, given_at, load_given
from dermalert.intake.index import index
from dermalert.intake.patience import Patience
from dermalert.intake.sources import list_data
from packed import tar_of, zip_of

JPEG = saved("JPEG")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(*names: str, data: bytes = JPEG) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)


def names(*arguments: str | Path) -> list[str]:
    return [one.path if isinstance(one, RefusedFile) else one.name for one in given_at(arguments)]


def only(*arguments: str | Path) -> RefusedFile:
    (one,) = given_at(arguments)
    assert isinstance(one, RefusedFile)
    return one


# Files, folders, manifests


def test_a_picture_is_named_as_it_was_given(home: Path) -> None:
    put("a.jpg")
    assert list(given_at(["a.jpg", home / "a.jpg"])) == [
        Given("a.jpg", path=Path("a.jpg")),
        Given(str(home / "a.jpg"), path=home / "a.jpg"),
    ]


def test_a_folder_is_walked_in_order_and_its_archives_are_told_of(home: Path) -> None:
    put("f/b.jpg", "f/a.jpg", "f/x/c.jpg", "f/old.zip", "f/notes.txt", "f/z.tar/d.jpg")
    found = list(given_at(["f"]))
    assert [one.path if isinstance(one, RefusedFile) else one.name for one in found] == [
        *("f/a.jpg", "f/b.jpg", "f/old.zip", "f/x/c.jpg", "f/z.tar/d.jpg")
    ]
    assert found[2].reason == "it is an archive inside a folder"


def test_a_folder_is_walked_as_pictures_are_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(*(f"f/{folder}/x.jpg" for folder in range(50)))
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (listed.append(folder), scandir(folder))[1])
    assert len(list(islice(given_at(["f"]), 3))) == 3
    assert len(listed) == 4


def test_a_manifest_gives_its_pictures_in_its_order(home: Path) -> None:
    put("set/b.jpg", "set/a.jpg")
    index(list_data(Path("set")), workers=1).manifest.write(home / "m.parquet")
    assert names("m.parquet") == [str(home / "set/a.jpg"), str(home / "set/b.jpg")]


def test_what_is_not_there_is_told_before_any_picture_comes(home: Path) -> None:
    put("a.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg: there is no such file or folder"):
        given_at(["a.jpg", "gone.jpg"])
    with pytest.raises(DataError, match=r"gone\.parquet: there is no such"):
        given_at(["a.jpg", "gone.parquet"])


# Patterns


def test_quoted_patterns_give_pictures_archives_and_folders(home: Path) -> None:
    put("d/1.jpg", "d/2.png", "d/notes.txt", "d/table.csv", "d/sub/3.jpg")
    put("d/s.zip", data=zip_of({"4.jpg": JPEG}))
    assert names("d/*") == ["d/1.jpg", "d/2.png", "d/s.zip::4.jpg", "d/sub/3.jpg"]
    assert names("d/**/*.jpg") == ["d/1.jpg", "d/sub/3.jpg"]
    assert names(f"{home}/d/?.jpg") == [f"{home}/d/1.jpg"]


def test_shards_are_numbered_in_braces(home: Path) -> None:
    for number in range(3):
        put(f"shards/{number:05}.tar", data=tar_of({f"{number}.jpg": JPEG, f"{number}.cls": b"1"}))
    assert names("shards/{00000..00002}.tar") == [f"shards/{n:05}.tar::{n}.jpg" for n in range(3)]
    assert names("shards/{00002..00003}.tar") == ["shards/00002.tar::2.jpg", "shards/00003.tar"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(home: Path) -> None:
    put("a[1].jpg", "b{1,2}.jpg", "c*.jpg", "cc.jpg")
    assert names("a[1].jpg", "b{1,2}.jpg", "c*.jpg") == ["a[1].jpg", "b{1,2}.jpg", "c*.jpg"]


def test_a_pattern_that_nothing_fits_is_told_and_the_others_go_on(home: Path) -> None:
    put("a.jpg", "notes.txt")
    assert names("*.png", "a.jpg") == ["*.png", "a.jpg"]
    assert only("*.txt").reason == "no picture, archive or folder fits it"


def test_a_pattern_in_a_folder_that_is_not_there_says_which(home: Path) -> None:
    first = only("gone/*.jpg")
    assert (first.path, first.reason) == ("gone", "the folder cannot be listed (No such file or directory)")


# Lists


@pytest.mark.parametrize("column", ["path", "image", "filename", "PATH", " File "])
def test_a_list_names_pictures_below_its_own_folder(column: str, home: Path) -> None:
    put("lists/a.jpg", "lists/x/b.jpg")
    Path("lists/list.csv").write_text(f"id,{column}\n1,a.jpg\n2,x/b.jpg\n", encoding="utf-8-sig")
    assert names("lists/list.csv") == ["lists/a.jpg", "lists/x/b.jpg"]


def test_a_list_may_name_absolute_paths_archives_and_addresses(home: Path) -> None:
    put("s.tar", data=tar_of({"x.jpg": JPEG}))
    Path("list.csv").write_text(f"path\n{home}/a.jpg\ns.tar\nmemory://b/c.jpg\n", encoding="utf-8")
    assert names("list.csv") == [f"{home}/a.jpg", "s.tar::x.jpg", "memory://b/c.jpg"]


def test_a_row_whose_address_cannot_be_read_is_refused_alone(home: Path) -> None:
    Path("list.csv").write_text(f"path\nnosuch://x/a.jpg\nzip://a.jpg\nfile://{home}/a%20b.jpg\n", encoding="utf-8")
    first, second, third = given_at(["list.csv"])
    assert (first.path, "Protocol not known" in first.reason) == ("nosuch://x/a.jpg", True)
    assert isinstance(second, Unreadable)
    assert third == Given(f"{home}/a b.jpg", path=home / "a b.jpg")


def test_a_list_without_a_fitting_column_is_refused_with_the_names_it_has(home: Path) -> None:
    Path("list.csv").write_text("id,picture\n1,a.jpg\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"looked for path, image, filename.*It has: id, picture"):
        given_at(["list.csv"])
    Path("list.csv").write_bytes("pfad,ä\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        given_at(["list.csv"])


def test_a_list_that_breaks_off_gives_the_rows_before(home: Path) -> None:
    good = "".join(f"{number}.jpg\n" for number in range(5000)).encode()
    Path("list.csv").write_bytes(b"path\n" + good + "ä.jpg\n".encode("latin-1") * 9)
    *before, refusal = given_at(["list.csv"])
    assert before[0] == Given("0.jpg", path=Path("0.jpg"))
    assert len(before) > 1000
    assert isinstance(refusal, BrokenArchive)
    assert refusal.reason.startswith("it cannot be read to its end")


def test_a_row_of_a_list_without_a_picture_is_an_error_of_its_own(home: Path) -> None:
    put("a.jpg")
    Path("list.csv").write_text("path,dx\na.jpg,mel\n,nv\ngone.jpg\n", encoding="utf-8")
    first, second, third = given_at(["list.csv"])
    assert (first.name, second.path) == ("a.jpg", "list.csv line 3")
    with pytest.raises(Unreadable, match=r"gone\.jpg"):
        load_given(third)


# Archives


def test_archives_are_known_by_content_once_their_name_says_archive(home: Path) -> None:
    put("a.tar", data=zip_of({"x.jpg": JPEG}))
    put("b.zip", data=tar_of({"x.jpg": JPEG}))
    put("c.tgz", data=tar_of({"x.jpg": JPEG}))
    assert list(given_at(["a.tar", "b.zip", "c.tgz"])) == [
        Given(f"{n}::x.jpg", data=JPEG) for n in ("a.tar", "b.zip", "c.tgz")
    ]


def test_a_folder_or_nothing_under_an_archives_name_is_refused(home: Path) -> None:
    put("a.jpg")
    Path("empty.tar").touch()
    Path("gone.zip").symlink_to("nowhere")
    assert [one.reason for one in given_at(["empty.tar", "gone.zip"])] == [
        "it is empty",
        "it can't be read: no such file or directory",
    ]


def test_an_archive_is_read_no_further_than_pictures_are_asked_for(home: Path) -> None:
    put("a.tar", data=tar_of({f"{number}.jpg": JPEG for number in range(10)})[:5000])
    first = next(given_at(["a.tar"]))
    assert first == Given("a.tar::0.jpg", data=JPEG)


def test_the_limit_on_bytes_holds_in_archives(home: Path) -> None:
    put("a.zip", data=zip_of({"x.jpg": JPEG}))
    (one,) = given_at(["a.zip"], limits=Limits(max_bytes=100))
    assert isinstance(one, TooLarge)


# Loading


def test_a_path_and_bytes_load_to_the_same_picture(home: Path) -> None:
    put("a.jpg")
    of_path, of_data = (load_given(one, (32, 24)) for one in (Given("a", path=Path("a.jpg")), Given("b", data=JPEG)))
    assert of_path.pixels.shape == (24, 32, 3)
    assert (of_path.pixels == of_data.pixels).all()


def test_errors_name_what_was_given(home: Path) -> None:
    with pytest.raises(NotAPicture, match=r"^a\.zip::x\.jpg: it is empty"):
        load_given(Given("a.zip::x.jpg", data=b""))


def test_a_share_that_vanishes_for_a_moment_costs_a_wait_and_no_picture(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a.jpg")
    waits: list[float] = []
    errors = [OSError(errno.ESTALE, "Stale file handle"), OSError(errno.EIO, "Input/output error")]
    real = os.open

    def flaky(path: object, *rest: int) -> int:
        if errors:
            raise errors.pop()
        return real(path, *rest)

    monkeypatch.setattr(module, "PATIENCE", Patience(sleep=waits.append))
    monkeypatch.setattr(os, "open", flaky)
    assert load_given(Given("a.jpg", path=Path("a.jpg"))).pixels.shape == (40, 60, 3)
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize("argument", ["f", "f/*.jpg"])
def test_a_folder_that_cannot_be_listed_for_a_moment_is_listed_again(
    argument: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("f/a.jpg")
    waits: list[float] = []
    errors = [OSError(errno.ENOTCONN, "Transport endpoint is not connected")]
    scandir = os.scandir

    def flaky(folder: Path) -> object:
        if errors:
            raise errors.pop()
        return scandir(folder)

    for each in (module, sources):
        monkeypatch.setattr(each, "PATIENCE", Patience(sleep=waits.append))
    monkeypatch.setattr(os, "scandir", flaky)
    assert names(argument) == ["f/a.jpg"]
    assert waits == [0.5]


def test_what_is_not_there_costs_no_wait(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(module, "PATIENCE", Patience(sleep=waits.append))
    with pytest.raises(Unreadable, match="no such file"):
        load_given(Given("gone.jpg", path=Path("gone.jpg")))
    assert waits == []


# Addresses, without a network: tests/test_remote.py has the servers


def test_a_file_address_is_its_path(home: Path) -> None:
    put("a b.jpg")
    assert names(f"file://{home}/a%20b.jpg") == [f"{home}/a b.jpg"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://a/b.jpg", "nosuch"),
        ("http://127.0.0.1/folder/", "does not say what lies there"),
        ("https://127.0.0.1/*.jpg", "does not say what lies there"),
        ("s3://bucket/list.csv", "from disk only"),
        ("simplecache://x.jpg", "cannot be opened"),
        ("https://127.0.0.1/m.parquet?x=1", "from disk only"),
    ],
)
def test_addresses_that_cannot_work_are_told_at_once(url: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        given_at([url])


@pytest.mark.parametrize(
    "url", ["http://[::1/x.jpg", "http://[x]/x.jpg", "http://:x/x.jpg", "http:///x.jpg", "http://a b/x"]
)
def test_an_address_that_makes_no_sense_is_refused_when_it_is_read(url: str) -> None:
    (one,) = given_at([url])
    with pytest.raises(Unreadable, match="can't be read"):
        load_given(one)


def test_without_the_extra_an_address_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    remote._file_system.cache_clear()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtra, match=r"pip install '\.\[cloud\]'"):
        given_at(["s3://bucket/x.jpg"])

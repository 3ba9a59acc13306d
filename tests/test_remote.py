"""Addresses: read from a real S3 server and from web servers that fail, on this machine."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

from bad_files import saved
from dermalert.errors import BrokenArchive, NotAPicture, RefusedFile, TooLarge, Unreadable
from dermalert.intake import remote
from dermalert.intake.decode import Limits
from dermalert.intake.given import Given, given_at, load_given
from dermalert.intake.patience import Patience
from packed import tar_of, zip_of

JPEG = saved("JPEG")
SHARD = tar_of({f"{number}.jpg": JPEG for number in range(3)} | {"0.cls": b"1"})


def names(*arguments: str) -> list[str]:
    return [one.path if isinstance(one, RefusedFile) else one.name for one in given_at(arguments)]


def only(*arguments: str) -> RefusedFile:
    (one,) = given_at(arguments)
    assert isinstance(one, RefusedFile)
    return one


# A store


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """A bucket called `skin` on an S3 server of our own."""
    with pytest.MonkeyPatch.context() as patch:
        server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        remote._file_system.cache_clear()
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        client = boto3.client("s3")
        client.create_bucket(Bucket="skin")
        files = {
            **dict.fromkeys(("new/b.jpg", "new/a.png", "new/deep/c.jpg", "new/masks/m.jpg", "new/notes.txt"), JPEG),
            "new/old.zip": b"",
            "shards/000.tar": SHARD,
            "shards/001.tar": SHARD[:3000],
            "packed.zip": zip_of({"x/1.jpg": JPEG, "x/2.jpg": JPEG}),
            "without-ending": JPEG,
            "empty.jpg": b"",
            "odd/a?b*[c]::ä ü.jpg": JPEG,
        }
        for key, body in files.items():
            client.put_object(Bucket="skin", Key=key, Body=body)
        yield client
        server.stop()
        remote._file_system.cache_clear()


@pytest.mark.usefixtures("bucket")
def test_an_object_is_read_where_it_is() -> None:
    (one,) = given_at(["s3://skin/new/b.jpg"])
    assert one == Given("s3://skin/new/b.jpg", url="s3://skin/new/b.jpg")
    assert load_given(one).pixels.shape == (40, 60, 3)


@pytest.mark.usefixtures("bucket")
def test_a_scheme_may_be_in_capitals() -> None:
    assert remote.read_url("S3://skin/new/b.jpg") == JPEG


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("prefix", ["s3://skin/new", "s3://skin/new/"])
def test_a_prefix_is_walked_like_a_folder(prefix: str) -> None:
    assert names(prefix) == [
        *("s3://skin/new/a.png", "s3://skin/new/b.jpg", "s3://skin/new/old.zip", "s3://skin/new/deep/c.jpg")
    ]


@pytest.mark.usefixtures("bucket")
def test_an_object_without_an_ending_is_an_object() -> None:
    assert names("s3://skin/without-ending") == ["s3://skin/without-ending"]


@pytest.mark.usefixtures("bucket")
def test_patterns_work_in_a_bucket() -> None:
    assert names("s3://skin/**/*.jpg") == [
        "s3://skin/empty.jpg",
        "s3://skin/new/b.jpg",
        "s3://skin/new/deep/c.jpg",
        "s3://skin/odd/a?b*[c]::ä ü.jpg",
    ]
    assert names("s3://skin/n*/*.png") == ["s3://skin/new/a.png"]
    assert only("s3://skin/*.gif").reason == "no picture, archive or folder fits it"


@pytest.mark.usefixtures("bucket")
def test_an_object_whose_name_looks_like_a_pattern_is_read_when_it_is_listed() -> None:
    (one,) = given_at(["s3://skin/odd/"])
    assert load_given(one).info.format == "JPEG"


@pytest.mark.usefixtures("bucket")
def test_a_prefix_of_more_objects_than_one_answer_tells_is_listed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    files, _ = remote._place("s3://skin/new")
    monkeypatch.setattr(files, "req_kw", {"MaxKeys": 2})
    assert len(names("s3://skin/new")) == 4
    assert names("s3://skin/**/*.png") == ["s3://skin/new/a.png"]


@pytest.mark.usefixtures("bucket")
def test_shards_are_streamed_and_a_truncated_one_is_told() -> None:
    found = list(given_at(["s3://skin/shards/{000..001}.tar"]))
    assert [one.name for one in found[:3]] == [f"s3://skin/shards/000.tar::{number}.jpg" for number in range(3)]
    assert found[0].data == JPEG
    assert isinstance(found[-1], BrokenArchive)
    assert found[-1].path == "s3://skin/shards/001.tar"


@pytest.mark.usefixtures("bucket")
def test_a_zip_in_a_bucket_is_read_in_parts() -> None:
    assert names("s3://skin/packed.zip") == ["s3://skin/packed.zip::x/1.jpg", "s3://skin/packed.zip::x/2.jpg"]


@pytest.mark.usefixtures("bucket")
def test_what_is_not_there_or_empty_is_refused_without_waiting() -> None:
    started = time.monotonic()
    for url in ("s3://skin/gone.jpg", "s3://nobucket/gone.jpg"):
        with pytest.raises(Unreadable, match="nothing at this address"):
            load_given(Given(url, url=url))
    assert "nothing at this address" in only("s3://skin/gone/").reason
    assert "nothing at this address" in only("s3://skin/gone.tar").reason
    with pytest.raises(NotAPicture, match="empty"):
        load_given(Given("x", url="s3://skin/empty.jpg"))
    assert time.monotonic() - started < 5


@pytest.mark.usefixtures("bucket")
def test_an_object_over_the_limit_is_not_read_to_its_end() -> None:
    with pytest.raises(TooLarge, match="more than the 100 bytes"):
        remote.read_url("s3://skin/new/b.jpg", Limits(max_bytes=100))


def test_a_store_that_is_busy_is_asked_again(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    waits: list[float] = []
    errors = [OSError(16, "Please reduce your request rate."), OSError(121, "We encountered an internal error.")]
    real = s3fs.S3FileSystem._cat_file

    async def busy(self: Any, path: str, **options: Any) -> bytes:
        if errors:
            raise errors.pop()
        return await real(self, path, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", busy)
    assert remote.read_url("s3://skin/new/b.jpg", patience=Patience(sleep=waits.append)) == JPEG
    assert waits == [0.5, 1.0]


@pytest.mark.usefixtures("bucket")
def test_without_credentials_the_store_denies_and_the_mend_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    remote._file_system.cache_clear()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(Unreadable, match=r"denies access\. .*credentials"):
        remote.read_url("s3://skin/new/b.jpg")
    remote._file_system.cache_clear()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_any_file_system_that_fsspec_knows_is_read() -> None:
    files = fsspec.filesystem("memory")
    files.pipe({"/given/a.jpg": JPEG, "/given/b/c.jpg": JPEG, "/given/s.tar": SHARD})
    assert names("memory://given") == ["memory://given/a.jpg", "memory://given/s.tar", "memory://given/b/c.jpg"]
    assert names("memory://given/*.tar")[0] == "memory://given/s.tar::0.jpg"
    (one,) = given_at(["memory://given/b/c.jpg"])
    assert load_given(one).info.format == "JPEG"
    files.rm("/given", recursive=True)


# Google's store, as far as its answers are needed here


class Google(BaseHTTPRequestHandler):
    """The three questions that reading and listing ask, over `files` of one bucket."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {"new/a.jpg": JPEG, "new/deep/b.jpg": JPEG, "s.tar": SHARD, "empty.jpg": b""}
    faults: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, dict(parse_qsl(urlsplit(self.path).query))
        name = unquote(path.partition("/o/")[2])
        if path.endswith("/o"):
            self._answer(200, self._listing(query.get("prefix", "")))
        elif name not in self.files:
            self._answer(404, b'{"error": {"code": 404, "message": "no such object"}}')
        elif query.get("alt") != "media":
            self._answer(200, json.dumps(self._entry(name)).encode())
        elif self.faults:
            self._answer(self.faults.pop(), b"sorry")
        else:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            part = self.files[name][int(first) : int(last) + 1]
            self._answer(206 if part else 416, part or b"Requested range not satisfiable")

    def _listing(self, prefix: str) -> bytes:
        below = [name for name in self.files if name.startswith(prefix)]
        folders = {prefix + name[len(prefix) :].partition("/")[0] + "/" for name in below if "/" in name[len(prefix) :]}
        items = [self._entry(name) for name in below if "/" not in name[len(prefix) :]]
        return json.dumps({"items": items, "prefixes": sorted(folders)}).encode()

    def _entry(self, name: str) -> dict[str, str]:
        return {"name": name, "bucket": "skin", "size": str(len(self.files[name]))}

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Google]]:
    from gcsfs.core import GCSFileSystem  # the usual one asks by gRPC what kind of bucket it is

    server = ThreadingHTTPServer(("127.0.0.1", 0), Google)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    fsspec.register_implementation("gs", GCSFileSystem, clobber=True)
    GCSFileSystem.clear_instance_cache()
    remote._file_system.cache_clear()
    yield Google
    remote._file_system.cache_clear()
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("google")
def test_googles_store_is_walked_searched_and_read() -> None:
    assert names("gs://skin/new") == ["gs://skin/new/a.jpg", "gs://skin/new/deep/b.jpg"]
    assert names("gs://skin/**/b.*") == ["gs://skin/new/deep/b.jpg"]
    assert names("gs://skin/s.tar")[0] == "gs://skin/s.tar::0.jpg"
    (one,) = given_at(["gs://skin/new/a.jpg"])
    assert load_given(one).info.format == "JPEG"


@pytest.mark.parametrize(("status", "reason"), [(403, "denies access"), (400, "answers 400")])
def test_what_googles_store_refuses_is_told(status: int, reason: str, google: type[Google]) -> None:
    for name, said in (("gone.jpg", "nothing at this address"), ("empty.jpg", "it is empty")):
        with pytest.raises(RefusedFile, match=said):
            load_given(Given(f"gs://skin/{name}", url=f"gs://skin/{name}"))
    google.faults.append(status)
    with pytest.raises(Unreadable, match=reason):
        remote.read_url("gs://skin/new/a.jpg")


# The web


class Web(BaseHTTPRequestHandler):
    """Serves the server's `files`; `faults` maps a path to a list of what to do first, one entry a request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.authorized.append(self.headers.get("Authorization"))
        faults = self.server.faults.get(self.path, [])
        fault = faults.pop(0) if faults else None
        data = self.server.files.get(self.path.partition("?")[0])
        if fault == "hang":
            self.server.let_go.wait(20)
            self.close_connection = True
        elif fault == "cut":
            self._answer(200, data[: len(data) // 2], length=len(data))
            self.close_connection = True
        elif fault:
            self._answer(fault, b"sorry")
        elif data is None:
            self._answer(404, b"no")
        elif self.server.parts and "Range" in self.headers:
            self._part(data)
        else:
            self._answer(200, data)

    def _part(self, data: bytes) -> None:
        start, _, end = self.headers["Range"].removeprefix("bytes=").partition("-")
        if int(start) >= len(data):
            self._answer(416, b"")
            return
        piece = data[int(start) : int(end) + 1]
        told = f"bytes {start}-{int(start) + len(piece) - 1}/{len(data)}"
        self._answer(206, piece, {"Content-Range": told})

    def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None, length: int = -1) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length < 0 else length))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.daemon_threads = True
    server.files = {"/a.jpg": JPEG, "/s.tar": SHARD, "/s.zip": zip_of({"x.jpg": JPEG}), "/empty.jpg": b""}
    server.faults, server.asked, server.authorized = {}, [], []
    server.parts, server.let_go = True, threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.let_go.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patience(waits: list[float]) -> Patience:
    return Patience(attempts=3, timeout_s=0.5, sleep=waits.append)


def test_a_picture_on_the_web_is_read_whatever_its_query(web: Any) -> None:
    (one,) = given_at([f"{web.url}/a.jpg?size=full&x=*"])
    assert one.name == f"{web.url}/a.jpg?size=full&x=*"
    assert load_given(one).info.format == "JPEG"
    assert web.asked == ["/a.jpg?size=full&x=*"]


@pytest.mark.parametrize("faults", [[500, 500], [503, 429], ["cut", 500], ["hang"]], ids=str)
def test_a_server_that_fails_and_then_answers_costs_waits_and_no_picture(
    faults: list[Any], web: Any, patience: Patience, waits: list[float]
) -> None:
    web.faults["/a.jpg"] = list(faults)
    assert remote.read_url(f"{web.url}/a.jpg", patience=patience) == JPEG
    assert waits == [0.5, 1.0][: len(faults)]


def test_a_server_that_hangs_is_given_up_in_time(web: Any, patience: Patience, waits: list[float]) -> None:
    web.faults["/a.jpg"] = ["hang"] * 9
    started = time.monotonic()
    with pytest.raises(Unreadable, match=r"no whole answer in 0\.5 s"):
        remote.read_url(f"{web.url}/a.jpg", patience=patience)
    assert time.monotonic() - started < 5
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("status", "asked", "reason"),
    [(500, 3, "answers 500"), (404, 1, "nothing at this"), (403, 1, "denies access"), (400, 1, "answers 400")],
)
def test_a_server_that_goes_on_failing_gives_one_clear_refusal(
    status: int, asked: int, reason: str, web: Any, patience: Patience
) -> None:
    web.faults["/a.jpg"] = [status] * 9
    with pytest.raises(Unreadable, match=reason):
        remote.read_url(f"{web.url}/a.jpg", patience=patience)
    assert len(web.asked) == asked


def test_nobody_at_the_address_is_told(patience: Patience) -> None:
    with pytest.raises(Unreadable, match="can't be read"):
        remote.read_url("http://127.0.0.1:9/a.jpg", patience=patience)


@pytest.mark.parametrize("parts", [True, False])
def test_no_more_than_the_limit_is_read_whatever_the_server_sends(parts: bool, web: Any) -> None:
    web.parts, web.files["/big.jpg"] = parts, bytes(3_000_000)
    with pytest.raises(TooLarge, match="more than the 1,000 bytes"):
        remote.read_url(f"{web.url}/big.jpg", Limits(max_bytes=1000))


def test_an_empty_file_on_the_web_is_told(web: Any) -> None:
    with pytest.raises(NotAPicture, match="empty"):
        load_given(Given("x", url=f"{web.url}/empty.jpg"))


@pytest.mark.parametrize("parts", [True, False])
@pytest.mark.parametrize(("file", "expected"), [("s.tar", ["0.jpg", "1.jpg", "2.jpg"]), ("s.zip", ["x.jpg"])])
def test_archives_on_the_web_are_read_with_and_without_parts(
    parts: bool, file: str, expected: list[str], web: Any
) -> None:
    web.parts = parts
    assert names(f"{web.url}/{file}") == [f"{web.url}/{file}::{name}" for name in expected]


def test_a_large_archive_that_comes_only_whole_is_refused(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    web.parts = False
    monkeypatch.setattr(remote, "_WHOLE", 1000)
    refusal = only(f"{web.url}/s.tar")
    assert isinstance(refusal, TooLarge)
    assert refusal.mend == "Download it and give the file."


def test_an_archive_whose_server_fails_in_the_middle_goes_on(
    web: Any, patience: Patience, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PIECE", 2048)
    file, size = remote.open_url(f"{web.url}/s.tar", patience=patience)
    web.faults["/s.tar"] = [500, "cut"]
    assert file.read() == SHARD
    assert size == len(SHARD)
    assert waits == [0.5, 1.0]


def test_an_archive_whose_server_goes_away_gives_what_came_before_and_one_refusal(
    web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PIECE", 2048)
    monkeypatch.setattr(remote.open_url, "__kwdefaults__", {"patience": Patience(attempts=1)})
    found = given_at([f"{web.url}/s.tar"])
    first = next(found)
    web.faults["/s.tar"] = [500] * 99
    *_, last = found
    assert first.name.endswith("s.tar::0.jpg")
    assert isinstance(last, Unreadable)
    assert last.path == f"{web.url}/s.tar"


def test_a_password_in_an_address_is_used_and_never_shown(web: Any) -> None:
    url = web.url.replace("//", "//user:secret@")
    (one,) = given_at([f"{url}/a.jpg"])
    assert one.name == f"{web.url}/a.jpg"
    load_given(one)
    assert web.authorized == [f"Basic {base64.b64encode(b'user:secret').decode()}"]
    web.faults["/a.jpg"] = [404]
    with pytest.raises(Unreadable) as refusal:
        load_given(one)
    assert "secret" not in str(refusal.value)


def test_many_threads_read_at_once(web: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    read: Callable[[int], bytes] = lambda _: remote.read_url(f"{web.url}/a.jpg")  # noqa: E731
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(64))) == {JPEG}

"""Archives: every picture in them comes out whole, and a hostile one harms nothing but itself."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bad_files import saved
from dermalert.errors import BrokenArchive, BrokenPicture, NotAPicture, RefusedFile, TooLarge, Unreadable
from dermalert.intake import archives
from dermalert.intake.archives import members
from dermalert.intake.decode import DEFAULT_LIMITS, Limits
from dermalert.intake.ranged import open_ranged
from packed import tar_of, zip_of

JPEG = saved("JPEG")
PNG = saved("PNG")
WEBDATASET = {"00.jpg": JPEG, "00.cls": b"3", "00.json": b"{}", "01.png": PNG, "01.cls": b"7"}


def tar_with(info: tarfile.TarInfo, data: bytes = b"") -> bytes:
    """A tar of one picture, then one odd member, then another picture."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for each, content in ((named("a.jpg", JPEG), JPEG), (info, data), (named("z.jpg", JPEG), JPEG)):
            archive.addfile(each, io.BytesIO(content))
    return buffer.getvalue()


def named(name: str, data: bytes = b"", **attributes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def fast_xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=0)


def fast_bzip2(data: bytes) -> bytes:
    return bz2.compress(data, compresslevel=1)  # in small blocks, too


def zstandard(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[tuple[str, bytes] | RefusedFile]]:
    """Reads bytes as an archive called `a`."""

    def read(data: bytes, limits: Limits = DEFAULT_LIMITS) -> list[tuple[str, bytes] | RefusedFile]:
        file = tmp_path / "a"
        file.write_bytes(data)
        opened, size = open_ranged(file)
        with opened:
            return list(members("a", opened, size, limits))

    return read


def names(found: Iterable[tuple[str, bytes] | RefusedFile]) -> list[str]:
    return [one.path if isinstance(one, RefusedFile) else one[0] for one in found]


def refusals(found: Iterable[tuple[str, bytes] | RefusedFile]) -> list[RefusedFile]:
    return [one for one in found if isinstance(one, RefusedFile)]


# What comes out

PACKED = {
    "zip": zip_of(WEBDATASET),
    "stored zip": zip_of(WEBDATASET, zipfile.ZIP_STORED),
    "tar": tar_of(WEBDATASET),
    "ustar": tar_of(WEBDATASET, tarfile.USTAR_FORMAT),
    "gnu tar": tar_of(WEBDATASET, tarfile.GNU_FORMAT),
    "gzip": gzip.compress(tar_of(WEBDATASET)),
    "bzip2": bz2.compress(tar_of(WEBDATASET)),
    "xz": lzma.compress(tar_of(WEBDATASET)),
    "xz in streams": lzma.compress(tar_of(WEBDATASET)[:700]) + b"\0" * 8 + lzma.compress(tar_of(WEBDATASET)[700:]),
    "gzip in streams": gzip.compress(tar_of(WEBDATASET)[:700]) + gzip.compress(tar_of(WEBDATASET)[700:]),
    "zstandard": zstandard(tar_of(WEBDATASET)),
}


@pytest.mark.parametrize("data", PACKED.values(), ids=PACKED)
def test_every_kind_of_archive_gives_its_pictures_in_order_and_nothing_else(data: bytes, read: Callable) -> None:
    assert read(data) == [("a::00.jpg", JPEG), ("a::01.png", PNG)]


def test_hidden_files_masks_and_notes_of_a_mac_are_left_out_as_in_a_folder(read: Callable) -> None:
    others = ("__MACOSX/._x.jpg", "._x.jpg", ".hidden/x.jpg", "masks/x.jpg", "a/Segmentation/x.jpg", "notes.txt", "x")
    assert names(read(tar_of({**dict.fromkeys(others, JPEG), "seen/x.JPG": JPEG}))) == ["a::seen/x.JPG"]


def test_members_of_one_name_are_told_apart(read: Callable) -> None:
    found = read(tar_of([("x.jpg", JPEG), ("./x.jpg", PNG), ("x.jpg", JPEG)]))
    assert found == [("a::x.jpg", JPEG), ("a::x.jpg#2", PNG), ("a::x.jpg#3", JPEG)]


def test_a_name_is_one_line_and_no_way_out_of_a_folder(read: Callable) -> None:
    hostile = ["../../etc/x.jpg", "/etc/x.jpg", "a\nb\x1b[31m.jpg", "./in/./y.jpg", "a//b.jpg", "stray\udcff.jpg"]
    assert names(read(tar_of([(name, JPEG) for name in hostile]))) == [
        *("a::%2E%2E/%2E%2E/etc/x.jpg", "a::etc/x.jpg", "a::a\\nb\\x1b[31m.jpg", "a::in/y.jpg", "a::a/b.jpg"),
        "a::stray\\udcff.jpg",
    ]


def test_a_zero_byte_in_a_name_is_shown(read: Callable) -> None:
    info = named("m.jpg", JPEG, pax_headers={"path": "zero\0byte.jpg"})
    assert names(read(tar_with(info, JPEG))) == ["a::a.jpg", "a::zero\\x00byte.jpg", "a::z.jpg"]


def test_names_in_a_zip_are_as_harmless(read: Callable) -> None:
    found = names(read(zip_of({"../x.jpg": JPEG, "a\nb.jpg": JPEG, "C:\\x.jpg": JPEG, "naïve.jpg": JPEG})))
    assert found == ["a::%2E%2E/x.jpg", "a::a\\nb.jpg", "a::C:\\x.jpg", "a::naïve.jpg"]


def test_a_name_of_thousands_of_characters_is_shown_shortened_and_still_told_apart(read: Callable) -> None:
    found = names(read(tar_of({f"{'d/' * 3000}{number}.jpg": JPEG for number in (1, 2)})))
    assert [len(name) for name in found] == [4100, 4102]
    assert len(set(found)) == 2


# What is refused, and the others go on


LINKS = {
    "symbolic link": named("m.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": named("m.jpg", type=tarfile.LNKTYPE, linkname="a.jpg"),
    "device": named("m.jpg", type=tarfile.CHRTYPE),
    "pipe": named("m.jpg", type=tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("info", LINKS.values(), ids=LINKS)
def test_links_and_devices_are_not_followed(info: tarfile.TarInfo, read: Callable) -> None:
    first, refusal, last = read(tar_with(info))
    assert (first[0], last[0]) == ("a::a.jpg", "a::z.jpg")
    assert isinstance(refusal, NotAPicture)
    assert (refusal.path, refusal.reason) == ("a::m.jpg", "it is a link or a device in an archive")


def test_a_link_in_a_zip_is_not_followed(read: Callable) -> None:
    info = zipfile.ZipInfo("m.jpg")
    info.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, "/etc/passwd")
        archive.writestr("z.jpg", JPEG)
    refusal, last = read(buffer.getvalue())
    assert "link" in refusal.reason
    assert last == ("a::z.jpg", JPEG)


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_an_archive_in_an_archive_is_refused(pack: Callable, read: Callable) -> None:
    (refusal, last) = read(pack({"inner.tar.gz": b"", "z.jpg": JPEG}))
    assert (refusal.path, refusal.reason) == ("a::inner.tar.gz", "it is an archive in an archive")
    assert last[0] == "a::z.jpg"


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_a_member_over_the_limit_is_refused_unread(pack: Callable, read: Callable) -> None:
    found = read(pack({"big.jpg": b"\0" * 5000, "z.jpg": JPEG}), Limits(max_bytes=4000))
    assert isinstance(found[0], TooLarge)
    assert found[1:] == [("a::z.jpg", JPEG)]


def test_a_member_whose_checksum_is_wrong_is_refused_alone(read: Callable) -> None:
    data = bytearray(zip_of({"m.jpg": JPEG, "z.jpg": PNG}, zipfile.ZIP_STORED))
    data[data.index(JPEG) + 300] ^= 0xFF
    refusal, last = read(bytes(data))
    assert isinstance(refusal, BrokenPicture)
    assert "CRC" in refusal.reason
    assert last == ("a::z.jpg", PNG)


def test_a_deflated_member_that_is_damaged_is_refused_alone(read: Callable) -> None:
    data = bytearray(zip_of({"m.jpg": JPEG, "z.jpg": PNG}))
    data[40:60] = b"\xff" * 20
    refusal, last = read(bytes(data))
    assert isinstance(refusal, BrokenPicture)
    assert last == ("a::z.jpg", PNG)


def test_an_encrypted_member_is_refused(read: Callable) -> None:
    data = bytearray(zip_of({"m.jpg": JPEG}))
    for header, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(header) + at] |= 1
    (refusal,) = read(bytes(data))
    assert refusal.reason == "it is encrypted"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_packed_by_what_python_unpacks_without_bounds_is_refused(method: int, read: Callable) -> None:
    (refusal,) = read(zip_of({"m.jpg": JPEG}, method))
    assert "method" in refusal.reason


def test_an_empty_member_is_passed_on_for_the_decoder_to_refuse(read: Callable) -> None:
    assert read(tar_of({"x.jpg": b""})) == [("a::x.jpg", b"")]


# Archives that end too early, or are none


@pytest.mark.parametrize("kind", ["tar", "gzip", "bzip2", "xz", "zstandard"])
def test_of_a_truncated_archive_the_pictures_before_come_and_one_refusal_tells(kind: str, read: Callable) -> None:
    noise = {f"{number:02}.jpg": JPEG + os.urandom(15_000) for number in range(40)}
    pack = {"tar": bytes, "gzip": gzip.compress, "bzip2": fast_bzip2, "xz": fast_xz, "zstandard": zstandard}
    data = pack[kind](tar_of(noise))
    *whole, refusal = read(data[: len(data) * 3 // 4])
    assert len(whole) > 5
    assert whole == [(f"a::{name}", content) for name, content in list(noise.items())[: len(whole)]]
    assert isinstance(refusal, BrokenArchive)
    assert refusal.path == "a"
    assert f"after {len(whole):,} pictures" in refusal.reason


@pytest.mark.parametrize("left", [512, 300, 1024])
def test_a_tar_that_ends_between_two_members_or_in_a_header_is_told_too(left: int, read: Callable) -> None:
    data = tar_of({"x.jpg": b"\0" * 512, "y.jpg": b"\0" * 512})
    found = read(data[: 1024 + left])
    assert names(found)[0] == "a::x.jpg"
    assert isinstance(found[-1], BrokenArchive)


def test_a_damaged_header_in_the_middle_is_told(read: Callable) -> None:
    data = bytearray(tar_of({"x.jpg": b"\0" * 512, "y.jpg": b"\0" * 512}))
    data[1024 + 150] ^= 0xFF
    found = read(bytes(data))
    assert names(found) == ["a::x.jpg", "a"]
    assert "damaged" in found[1].reason


def test_pictures_behind_the_end_of_a_tar_are_not_lost_in_silence(read: Callable) -> None:
    found = read(tar_of({"x.jpg": JPEG}) + tar_of({"y.jpg": JPEG}))
    assert names(found) == ["a::x.jpg", "a"]
    assert "behind its end" in found[1].reason


def test_a_wrong_checksum_at_the_end_of_a_gzip_is_told(read: Callable) -> None:
    data = bytearray(gzip.compress(tar_of({"x.jpg": JPEG})))
    data[-6] ^= 0xFF
    found = read(bytes(data))
    assert names(found) == ["a::x.jpg", "a"]


def test_a_zip_without_its_directory_is_told(read: Callable) -> None:
    (refusal,) = read(zip_of(WEBDATASET)[:-60])
    assert isinstance(refusal, BrokenArchive)


@pytest.mark.parametrize("data", [b"no archive at all " * 100, b"PK", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", JPEG])
def test_what_is_no_archive_gives_one_refusal(data: bytes, read: Callable) -> None:
    (refusal,) = read(data)
    assert isinstance(refusal, BrokenArchive)
    assert refusal.path == "a"


@pytest.mark.parametrize("data", [tar_of({}), zip_of({}), zip_of({"notes.txt": b"none"})])
def test_an_archive_without_pictures_says_so(data: bytes, read: Callable) -> None:
    (refusal,) = read(data)
    assert refusal.reason == "there is no picture in it"


def test_a_file_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="no such file"):
        open_ranged(tmp_path / "gone.tar")
    (tmp_path / "empty.tar").touch()
    with pytest.raises(NotAPicture, match="empty"):
        open_ranged(tmp_path / "empty.tar")


# Whatever else


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(PACKED)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.sampled_from([1, 1, 40, 600]))),
)
def test_damage_of_any_kind_ends_in_refusals(kind: str, damage: list[tuple[float, int, int]]) -> None:
    data = bytearray(PACKED[kind])
    for where, byte, length in damage:
        at = int(where * len(data))
        data[at : at + length] = bytes([byte]) * length
    found = list(members("a", io.BufferedReader(io.BytesIO(data)), len(data)))
    assert all(isinstance(one, RefusedFile) or isinstance(one[1], bytes) for one in found)
    assert refusals(found) or len(found) == 2 or "zip" in kind.split()  # whose directory has no checksum


# Bombs


@pytest.fixture
def _small_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_SLACK", 200_000)


@pytest.mark.usefixtures("_small_allowance")
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstandard])
def test_a_tar_that_unpacks_to_far_more_than_its_size_is_stopped(compress: Callable, read: Callable) -> None:
    data = compress(tar_of({"x.jpg": JPEG, "zeros.txt": bytes(5_000_000), "y.jpg": JPEG}))
    first, refusal = read(data)
    assert first == ("a::x.jpg", JPEG)
    assert isinstance(refusal, TooLarge)
    assert "unpack to more than" in refusal.reason


@pytest.mark.usefixtures("_small_allowance")
def test_a_zip_that_unpacks_to_far_more_than_its_size_is_stopped(read: Callable) -> None:
    found = read(zip_of({f"{number}.bmp": bytes(100_000) for number in range(50)}))
    assert 2 <= len(found) < 50
    assert isinstance(found[-1], TooLarge)


@pytest.mark.usefixtures("_small_allowance")
def test_members_of_a_zip_that_share_their_bytes_are_stopped(read: Callable) -> None:
    """Fifield's bomb: many entries of the directory that point at one member."""
    data = zip_of({"x.bmp": bytes(100_000)})
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[at:end]
    directory = b"".join(entry.replace(b"x.bmp", f"{n}.bmp".encode()) for n in range(10))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 10, 10, len(directory), at, 0)
    found = read(data[:at] + directory + tail)
    assert sum(len(one[1]) for one in found if isinstance(one, tuple)) <= 300_000
    assert refusals(found)


def test_a_zip_with_a_directory_of_gigabytes_is_refused_before_it_is_read(
    read: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_DIRECTORY", 1000)
    (refusal,) = read(zip_of({f"{number}.jpg": b"" for number in range(100)}))
    assert isinstance(refusal, TooLarge)
    assert "directory" in refusal.reason


def test_a_tar_header_larger_than_names_are_is_refused(read: Callable) -> None:
    info = named("m.jpg", JPEG, pax_headers={"comment": "x" * 20_000})
    first, refusal = read(tar_with(info, JPEG))
    assert first == ("a::a.jpg", JPEG)
    assert isinstance(refusal, TooLarge)
    assert "header" in refusal.reason


def test_an_xz_that_asks_for_gigabytes_of_memory_is_refused(read: Callable) -> None:
    data = bytearray(lzma.compress(tar_of({"x.jpg": JPEG})))
    assert data[14] == 0x21  # LZMA2, whose properties say how large the dictionary is
    data[16] = 36  # 1 GiB
    data[20:24] = zlib.crc32(data[12:20]).to_bytes(4, "little")
    (refusal,) = read(bytes(data))
    assert isinstance(refusal, BrokenArchive)
    assert "emory" in refusal.reason


def tar_header(info: tarfile.TarInfo, size: bytes, at: int = 124) -> bytes:
    """A header with a size of our own, and the checksum that goes with it."""
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[at : at + 12] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_a_header_of_nothing_but_digits_costs_no_quadratic_time(read: Callable) -> None:
    digits = b"1" * 16_000
    header = tar_header(named("x", type=tarfile.XHDTYPE), b"%011o\0" % len(digits))
    started = time.monotonic()
    found = read(header + digits + bytes(-len(digits) % 512) + tar_of({"z.jpg": JPEG}))
    assert isinstance(found[-1], BrokenArchive)
    assert time.monotonic() - started < 0.5


def test_a_sparse_member_is_refused(read: Callable) -> None:
    sparse = tar_header(named("m.jpg", type=tarfile.GNUTYPE_SPARSE), b"77777777777\0", at=483)
    found = read(sparse + tar_of({"z.jpg": JPEG}))
    assert isinstance(found[0], NotAPicture)
    assert found[1] == ("a::z.jpg", JPEG)


@pytest.mark.parametrize("size", [b"\xff" * 10 + b"\xff\x00", b"\xff" * 10 + b"\xf0\x00"])
def test_a_member_of_negative_size_does_not_loop(size: bytes, read: Callable) -> None:
    found = read(tar_header(named("m.jpg"), size) + tar_of({"z.jpg": JPEG}))
    assert isinstance(found[-1], BrokenArchive)


def test_a_tar_is_read_without_keeping_what_is_behind(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(tar_of({f"{number}.jpg": bytes(10_000) for number in range(800)}))
    opened, size = open_ranged(file)
    tracemalloc.start()
    for _ in members("a", opened, size):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000

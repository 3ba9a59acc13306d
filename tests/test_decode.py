"""Decoding: every picture upright and at the asked size; every other file a typed refusal, and never another error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile

from bad_files import BYTES, HEIGHT, HONEST, ON_DISK, WIDTH, jpeg_of_many_scans, picture, saved
from dermalert.errors import BrokenPicture, NotAPicture, RefusedFile, TooLarge
from dermalert.intake.decode import EXTENSIONS, Limits, Picture, decode, decode_at, load, read_bytes
from peak import PEAK

UPRIGHT = np.asarray(picture()).astype(int)


def test_the_corpus_holds_at_least_forty_bad_files() -> None:
    assert len(BYTES) + len(ON_DISK) >= 40


@pytest.mark.parametrize("name", BYTES)
def test_a_bad_file_is_refused_with_its_path_a_reason_and_a_mend(name: str) -> None:
    make, expected = BYTES[name]
    with pytest.raises(RefusedFile) as refusal:
        decode(make(), path="ward 3/lesion.jpg")
    assert type(refusal.value) is expected
    assert refusal.value.path == "ward 3/lesion.jpg"
    assert refusal.value.reason
    assert refusal.value.mend.endswith((".", "lfs pull"))


@pytest.mark.skipif(sys.platform == "win32", reason="pipes, sockets and links are of POSIX systems")
@pytest.mark.parametrize("name", ON_DISK)
def test_a_thing_that_only_looks_like_a_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    make, expected = ON_DISK[name]
    make(tmp_path / name)
    if name == "locked.jpg" and os.access(tmp_path / name, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(expected) as refusal:
        load(tmp_path / name)
    assert refusal.value.path == str(tmp_path / name)


def test_a_missing_file_and_a_name_with_a_zero_byte_are_refused(tmp_path: Path) -> None:
    for name in ("gone.jpg", "a\0b.jpg", "n" * 5000):
        with pytest.raises(RefusedFile):
            load(str(tmp_path / name))


@pytest.mark.parametrize("name", HONEST)
def test_an_unusual_but_honest_file_is_read(name: str) -> None:
    found = decode(HONEST[name]())
    assert found.pixels.dtype == np.uint8
    assert found.pixels.shape == (found.info.height, found.info.width, 3)


@pytest.mark.parametrize(
    ("name", "off_by"),
    [
        ("baseline jpeg", 6),
        ("progressive jpeg", 6),
        ("cmyk jpeg", 6),
        ("png", 0),
        ("alpha png", 0),
        ("bmp", 0),
        ("tiff", 0),
        ("lzw tiff", 0),
        ("cmyk tiff", 2),
        ("lossless alpha webp", 0),
        ("webp", 12),
    ],
)
def test_colours_survive_each_format(name: str, off_by: int) -> None:
    assert np.abs(decode(HONEST[name]()).pixels.astype(int) - UPRIGHT).mean() <= off_by / 2 + 0.01


def test_heic_gives_its_colours() -> None:
    found = decode(HONEST["heic"](), path="phone.heic")
    assert (found.info.format, found.info.width, found.info.height) == ("HEIF", 64, 32)
    assert np.abs(found.pixels.astype(int) - (200, 120, 90)).max() <= 8


def test_heic_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(NotAPicture, match=r"pip install '\.\[heic\]'"):
        decode(BYTES["heic header only"][0]())


def test_sixteen_bits_keep_their_upper_eight() -> None:
    assert (decode(HONEST["16-bit grey png"]()).pixels == 40_000 >> 8).all()
    assert (decode(HONEST["16-bit rgb png"]()).pixels == (0x80, 0x40, 0x20)).all()


def test_what_is_transparent_becomes_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([200, 0, 0])
    assert (decode(saved("PNG", image=clear)).pixels == 255).all()
    assert (decode(saved("PNG", image=palette, transparency=0)).pixels == 255).all()


def turned(orientation: int) -> tuple[Image.Image, Image.Exif]:
    """The picture as a camera held that way stores it."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # numbers of PIL.Image.Transpose that undo the viewer's turn
    image = picture()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return (image.transpose(Image.Transpose(undo[orientation])) if orientation in undo else image), exif


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [None, (30, 20)])
def test_pictures_stand_upright_however_the_camera_was_held(
    format_name: str, orientation: int, size: tuple[int, int] | None
) -> None:
    image, exif = turned(orientation)
    found = decode(saved(format_name, image=image, exif=exif), size=size)
    expected = np.asarray(picture().resize(size) if size else picture()).astype(int)
    assert (found.info.width, found.info.height) == (WIDTH, HEIGHT)
    assert found.pixels.shape == expected.shape
    assert np.abs(found.pixels.astype(int) - expected).mean() < 6


def test_broken_metadata_does_not_cost_a_whole_picture() -> None:
    data = saved("JPEG", exif=b"Exif\0\0" + b"MM\0*\xff\xff\xff\xff" + b"junk" * 9)
    assert decode(data).pixels.shape == (HEIGHT, WIDTH, 3)


def test_content_decides_and_not_the_extension(tmp_path: Path) -> None:
    (tmp_path / "really.jpg").write_bytes(saved("PNG"))
    assert load(tmp_path / "really.jpg").info.format == "PNG"


def test_names_may_hold_any_character(tmp_path: Path) -> None:
    for name in ("Läsion 1.jpg", "皮膚.jpg", "two\nlines.jpg", "tab\t.jpg", "‮gpj.jpg", "-rf.jpg"):
        (tmp_path / name).write_bytes(saved("JPEG"))
        assert load(tmp_path / name).info.width == WIDTH


def test_a_refusal_is_one_line_whatever_the_name() -> None:
    with pytest.raises(NotAPicture) as refusal:
        decode(b"text", path="two\nlines\x1b[31m.jpg")
    assert "\n" not in str(refusal.value)
    assert "\x1b" not in str(refusal.value)


# Scaled decoding.


def test_a_large_jpeg_is_decoded_at_a_scale_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    resized_from: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def noting(self: Image.Image, *args: Any, **options: Any) -> Image.Image:
        resized_from.append(self.size)
        return resize(self, *args, **options)

    large = saved("JPEG", image=picture(width=1600, height=1200), quality=95)
    monkeypatch.setattr(Image.Image, "resize", noting)
    found = decode(large, size=(100, 75))
    assert resized_from == [(200, 150)]
    assert (found.info.width, found.info.height) == (1600, 1200)


def test_scaled_decoding_gives_the_picture_that_full_decoding_gives() -> None:
    rng = np.random.default_rng(3)
    noisy = np.clip(np.asarray(picture(width=1600, height=1200)) + rng.normal(0, 12, (1200, 1600, 3)), 0, 255)
    data = saved("JPEG", image=Image.fromarray(noisy.astype(np.uint8)), quality=95)
    full = Image.fromarray(decode(data).pixels).resize((100, 75), Image.Resampling.BICUBIC)
    scaled = decode(data, size=(100, 75)).pixels
    assert np.abs(scaled.astype(int) - np.asarray(full).astype(int)).mean() < 1.5


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    shrunk = decode(saved("PNG", image=Image.fromarray(stripes)), size=(57, 57)).pixels
    assert shrunk.std() < 12


# Limits.


def test_limits_are_kept_on_bytes_pixels_frames_and_time(tmp_path: Path) -> None:
    data = saved("JPEG", image=picture(width=1200, height=900), quality=95)
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(TooLarge, match="bytes"):
        read_bytes(tmp_path / "a.jpg", Limits(max_bytes=len(data) - 1))
    with pytest.raises(TooLarge, match="bytes"):
        decode(data, limits=Limits(max_bytes=len(data) - 1))
    with pytest.raises(TooLarge, match="pixels"):
        decode(data, limits=Limits(max_pixels=1200 * 900 - 1))
    with pytest.raises(TooLarge, match="frames"):
        decode(HONEST["tiff of three pages"](), limits=Limits(max_frames=2))
    with pytest.raises(TooLarge, match="took more than"):
        decode(data, limits=Limits(max_seconds=0))
    assert decode(data, limits=Limits(max_bytes=len(data), max_pixels=1200 * 900)).info.width == 1200


def test_a_jpeg_of_a_few_more_scans_than_usual_is_read() -> None:
    assert decode(jpeg_of_many_scans(5)).info.width == WIDTH


BOMBS = (
    PEAK
    + """
import sys
sys.path.insert(0, sys.argv[1])
from bad_files import BYTES, saved
from dermalert.errors import TooLarge
from dermalert.intake.decode import decode
bombs = [make() for name, (make, _) in BYTES.items() if name.endswith("bomb")]
decode(saved("JPEG")), decode(saved("WEBP"))
before = peak()
for data in bombs:
    try:
        decode(data)
    except Exception as error:
        assert type(error).__module__ == "dermalert.errors", error
print(len(bombs), peak() - before)
"""
)


@pytest.mark.skipif(sys.platform == "win32", reason="needs the peak that Unix keeps")
def test_bombs_are_refused_before_memory_is_spent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    bombs, mebibytes = map(float, done.stdout.split())
    assert bombs >= 5
    assert mebibytes < 64


# Whatever comes.

_HONEST_BYTES = {name: make() for name, make in HONEST.items()}


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """An honest file with bytes changed, a part cut out, or a part of another put in."""
    data = bytearray(_HONEST_BYTES[draw(st.sampled_from(sorted(_HONEST_BYTES)))])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("flip", "cut", "drop", "insert")))
        if kind == "flip" and at < len(data):
            data[at] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            data = data[:at]
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 64))]
        else:
            data[at:at] = draw(st.binary(max_size=64))
    return bytes(data)


@settings(deadline=None, max_examples=400)
@given(mangled())
def test_a_mangled_picture_is_decoded_or_refused_and_nothing_else(data: bytes) -> None:
    try:
        found = decode(data, size=(16, 16), limits=Limits(max_pixels=1_000_000, max_seconds=5))
    except RefusedFile:
        return
    assert isinstance(found, Picture)
    assert found.pixels.shape == (16, 16, 3)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"RIFF"]))
def test_random_bytes_are_decoded_or_refused_and_nothing_else(data: bytes, magic: bytes) -> None:
    with pytest.raises(RefusedFile):
        decode(magic + data, limits=Limits(max_pixels=1_000_000))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["PNG", "BMP", "TIFF"]),
    st.one_of(st.none(), st.tuples(st.integers(1, 90), st.integers(1, 90))),
)
def test_lossless_formats_give_back_every_pixel(
    width: int, height: int, seed: int, format_name: str, size: tuple[int, int] | None
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = decode(saved(format_name, image=Image.fromarray(pixels)), size=size)
    assert (found.info.width, found.info.height, found.info.frames) == (width, height, 1)
    if size is None:
        np.testing.assert_array_equal(found.pixels, pixels)
    else:
        assert found.pixels.shape == (size[1], size[0], 3)


def test_threads_do_not_disturb_each_other() -> None:
    files = list(_HONEST_BYTES.values()) * 8
    alone = [decode(data).pixels for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data).pixels, files))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_pixels_can_not_be_changed_by_who_gets_them() -> None:
    with pytest.raises(ValueError, match="read-only"):
        decode(saved("PNG")).pixels[0, 0, 0] = 1


def test_every_extension_is_lower_case_and_of_a_format_that_is_read() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic"} <= EXTENSIONS
    assert all(extension == extension.lower() for extension in EXTENSIONS)


def test_real_pictures_decode_as_pillow_alone_does(shared_data: Path) -> None:
    files = sorted((shared_data / "isic9" / "Test").rglob("*.jpg"))[::6]
    assert files
    for file in files:
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            np.testing.assert_array_equal(load(file).pixels, np.asarray(image.convert("RGB")))


def test_no_real_picture_is_refused(shared_data: Path) -> None:
    refused = []
    for file in sorted(shared_data.rglob("*.jpg"))[::10]:
        try:
            load(file, size=(32, 32))
        except BrokenPicture as error:
            refused.append(error)
    assert refused == []


def test_half_a_picture_is_refused_whatever_another_library_asked_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as WeasyPrint does when it is imported
    make, expected = BYTES["jpeg cut in half"]
    with pytest.raises(expected):
        decode(make(), path="half.jpg")


@pytest.mark.parametrize("orientation", [1, 6])
def test_decoding_at_several_sizes_gives_what_decoding_at_each_gives(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved("JPEG", exif=exif)
    sizes = ((30, 20), None, (12, 16))
    for size, seen in zip(sizes, decode_at(data, sizes), strict=True):
        assert np.array_equal(seen.pixels, decode(data, size=size).pixels)
        assert seen.info == decode(data).info

"""From the bytes of a file to upright RGB pixels: the only place that opens a picture.

Comes in: bytes that anybody may have made, and limits. Goes out: a `Picture` at the asked size, or a `RefusedFile`
with the reason and the mend, and never another error. Judges nothing of what the picture shows.

Formats: JPEG, PNG, WebP, BMP, TIFF; HEIC with the extra [heic]. Content decides, not the file's name. EXIF rotation
is applied, alpha is laid on white, 16-bit samples keep their upper 8 bits, CMYK is converted without a profile, and
of several frames the first is read. Colour profiles are not applied.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from dermalert.errors import BrokenPicture, MissingExtra, NotAPicture, RefusedFile, TooLarge, Unreadable
from dermalert.intake.containers import HEIF, JPEG, format_of, hidden_payload, scans_and_end, what_else

EXTENSIONS: frozenset[str] = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".heic", ".heif"}
)


@dataclass(frozen=True)
class Limits:
    """What one file may cost. All are checked on headers, before memory is spent.

    Attributes:
        max_bytes: of the file.
        max_pixels: width times height of the picture as stored.
        max_frames: pages or frames in one file; only the first is read, but a stack or a film is no photograph.
        max_seconds: of decoding; looked at between blocks of input, so a little more may pass.
    """

    max_bytes: int = 100_000_000
    max_pixels: int = 80_000_000
    max_frames: int = 16
    max_seconds: float = 20.0


DEFAULT_LIMITS = Limits()

# A progressive JPEG is worked through once a scan, and a scan may cost few bytes: some hundred bytes a pass over
# 80 megapixels. Encoders write 10 or so.
_MAX_SCANS = 100
_MAX_SCANNED = 25  # passes over a picture of the largest size allowed

_PLUGINS = (BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)  # registered on import
_BLOCK = 8192  # bytes a step of a JPEG decoder, between which the clock is read
_ORIENTATION = 0x0112
_UPRIGHT: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = frozenset({5, 6, 7, 8})

# Pillow warns of odd metadata on stderr, from any thread. What matters for the pixels is an error here.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class PictureInfo:
    """What the file says of itself.

    Attributes:
        width: pixels, after EXIF rotation.
        height: likewise.
        format: "JPEG", "PNG", "WEBP", "BMP", "TIFF" or "HEIF".
        bytes: of the file.
        frames: in the file; the first was read.
    """

    width: int
    height: int
    format: str
    bytes: int
    frames: int


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded picture.

    Attributes:
        pixels: uint8 (H, W, 3), RGB, upright, read-only.
        info: of the file it came from.
    """

    pixels: NDArray[np.uint8]
    info: PictureInfo


def load(path: str | Path, *, size: tuple[int, int] | None = None, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """`decode` of the file at `path`.

    Raises:
        RefusedFile: as `read_bytes` and `decode`.
    """
    return decode(read_bytes(path, limits), path=path, size=size, limits=limits)


def read_bytes(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The content of a regular file that is not empty and not over `limits.max_bytes`.

    Raises:
        NotAPicture: a folder, a device, a pipe or an empty file.
        TooLarge: over the limit; nothing was read.
        Unreadable: the operating system refuses.
    """
    try:
        # Without O_NONBLOCK, opening a pipe called x.jpg would wait for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            check_file(path, status, limits)
            data = file.read(limits.max_bytes + 1)
    except RefusedFile:
        raise
    except ValueError as error:
        raise NotAPicture(path, "its name holds a zero byte", "Rename it.") from error
    except OSError as error:
        unreadable(path, error)
    if len(data) > limits.max_bytes:
        raise TooLarge(path, "it grew while it was read", "Give it again once it is written.")
    return data


def check_file(path: str | Path, status: os.stat_result, limits: Limits) -> None:
    """Refuses what is no regular file, is empty, or is over `limits.max_bytes`."""
    if stat.S_ISDIR(status.st_mode):
        raise NotAPicture(path, "it is a folder", "Give a picture file; a folder's name must not end like a picture's.")
    if not stat.S_ISREG(status.st_mode):
        raise NotAPicture(path, "it is a device, a pipe or a socket, not a file", "Give a picture file.")
    if status.st_size == 0:
        raise NotAPicture(path, "it is empty", "Copy it again from the camera.")
    if status.st_size > limits.max_bytes:
        raise TooLarge(
            path,
            f"it has {status.st_size:,} bytes, and {limits.max_bytes:,} are allowed",
            "Save it as JPEG, or at a lower resolution.",
        )


def unreadable(path: str | Path, error: OSError) -> NoReturn:
    """Raises what the operating system said as a refusal with its mend."""
    if error.errno == errno.EISDIR:
        raise NotAPicture(path, "it is a folder", "Give a picture file.") from error
    mends = {
        errno.ENOENT: "Check the path; if it is a link, what it points to is gone.",
        errno.EACCES: "Give yourself the right to read it.",
        errno.EPERM: "Give yourself the right to read it.",
        errno.ELOOP: "The link points back to itself: put the picture in its place.",
        errno.ENAMETOOLONG: "Shorten its name.",
    }
    mend = mends.get(error.errno or 0, "Check the disk or the network share, then try again.")
    raise Unreadable(path, f"it can't be read: {(error.strerror or str(error)).lower()}", mend) from error


def decode(
    data: bytes,
    *,
    path: str | Path = "<bytes>",
    size: tuple[int, int] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Picture:
    """The first frame of a picture file, upright, in RGB.

    Args:
        data: the file's content.
        path: named in errors; not opened.
        size: (width, height) to squash to, antialiased (bicubic); None leaves the picture as it is. A JPEG is
            decoded at the smallest of the decoder's own scales that has twice the asked size.

    Raises:
        NotAPicture: in no format read here, or something else besides a picture.
        BrokenPicture: cut off or corrupt.
        TooLarge: over a limit.
    """
    return decode_at(data, (size,), path=path, limits=limits)[0]


def decode_at(
    data: bytes,
    sizes: Sequence[tuple[int, int] | None],
    *,
    path: str | Path = "<bytes>",
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Picture, ...]:
    """`decode` at each of several sizes, for the cost of decoding once.

    A JPEG is decoded at the scale that the largest of the sizes asks for. Arguments and errors as `decode`.
    """
    try:
        return _decode(data, path, sizes, limits)
    except RefusedFile:
        raise
    except Image.DecompressionBombError as error:
        reason = f"its header claims far more than the {limits.max_pixels:,} pixels allowed"
        raise TooLarge(path, reason, "Save it at a lower resolution.") from error
    except MemoryError as error:
        raise TooLarge(path, "it needs more memory than there is", "Save it at a lower resolution.") from error
    except _OutOfTime as error:
        reason = f"decoding took more than {limits.max_seconds:g} s"
        raise TooLarge(path, reason, "Save it anew as a plain JPEG or PNG.") from error
    except Exception as error:  # Pillow's plugins raise whatever a malformed header makes them trip over
        reason = f"it is cut off or corrupt ({_in_one_line(error)})"
        raise BrokenPicture(path, reason, "Copy it again from the camera, or save it anew.") from error


def _decode(
    data: bytes, path: str | Path, sizes: Sequence[tuple[int, int] | None], limits: Limits
) -> tuple[Picture, ...]:
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # another library in this process may have asked for half pictures
    name, scans = _checked_format(data, path, limits)
    with Image.open(_Timed(data, limits.max_seconds), formats=(name,)) as image:
        frames = int(getattr(image, "n_frames", 1))
        _check_header(image, path, frames, limits)
        # PNG may keep its EXIF behind the pixels, and TIFF is turned by Pillow while it loads.
        turn = _orientation(image) if name == JPEG else 1
        stored = image.size
        if name == JPEG:
            _check_scans(scans, path, stored, limits)
            image.decodermaxblock = _BLOCK
            _draft(image, turn, sizes)
        image.load()
        if name != JPEG:
            turn, stored = _orientation(image), image.size
        rgb = _as_rgb(image, path)
        pixels = [_upright(rgb, turn, size) for size in sizes]
    width, height = stored[::-1] if turn in _QUARTER_TURNS else stored
    info = PictureInfo(width, height, name, len(data), frames)
    return tuple(Picture(each, info) for each in pixels)


def _draft(image: Image.Image, turn: int, sizes: Sequence[tuple[int, int] | None]) -> None:
    """Asks a JPEG's decoder for the smallest of its own scales that has twice the largest of the sizes."""
    asked = [size for size in sizes if size is not None]
    if len(asked) == len(sizes):
        width, height = (2 * max(sides) for sides in zip(*asked, strict=True))
        image.draft(None, (height, width) if turn in _QUARTER_TURNS else (width, height))


def _checked_format(data: bytes, path: str | Path, limits: Limits) -> tuple[str, int]:
    """The format, and how many passes a decoder needs."""
    if not data:
        raise NotAPicture(path, "it is empty", "Copy it again from the camera.")
    if len(data) > limits.max_bytes:
        reason = f"it has {len(data):,} bytes, and {limits.max_bytes:,} are allowed"
        raise TooLarge(path, reason, "Save it as JPEG, or at a lower resolution.")
    name = format_of(data)
    if name is None:
        raise NotAPicture(path, *what_else(data))
    scans, end = scans_and_end(data, name)
    if payload := hidden_payload(data, end):
        raise NotAPicture(path, f"it is a {name} and {payload} in one", "Save the picture anew and give that.")
    if name == HEIF:
        _register_heif(path)
    return name, scans


def _register_heif(path: str | Path) -> None:
    try:
        from pi_heif import register_heif_opener
    except ImportError as error:
        reason = "it is a HEIC picture, and the part that reads those is not installed"
        raise NotAPicture(path, reason, f"Save it as JPEG. {MissingExtra('Or: HEIC', 'heic')}") from error
    register_heif_opener(thumbnails=False)


def _check_header(image: Image.Image, path: str | Path, frames: int, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise TooLarge(
            path,
            f"it has {width:,} by {height:,} pixels, and {limits.max_pixels:,} are allowed",
            "Save it at a lower resolution.",
        )
    if frames > limits.max_frames:
        reason = f"it has {frames:,} frames, and {limits.max_frames:,} are allowed"
        raise TooLarge(path, reason, "Export the frame that shows the lesion.")


def _check_scans(scans: int, path: str | Path, size: tuple[int, int], limits: Limits) -> None:
    if scans > _MAX_SCANS or scans * size[0] * size[1] > _MAX_SCANNED * limits.max_pixels:
        reason = f"it is a JPEG of {scans:,} scans, which takes too long to decode"
        raise TooLarge(path, reason, "Save it anew as a plain JPEG.")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken metadata, whole picture: shown as stored, as viewers do
        return 1
    return value if value in _UPRIGHT else 1


def _as_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        reason = "its samples have 32 bits, which no photograph has"
        raise NotAPicture(path, reason, "Save it with 8 bits a channel.")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image, turn: int, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Scaled first, turned after: fewer pixels to turn."""
    if size is not None:
        wanted = size[::-1] if turn in _QUARTER_TURNS else size
        if image.size != wanted:
            image = image.resize(wanted, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if turn in _UPRIGHT:
        image = image.transpose(_UPRIGHT[turn])
    return np.asarray(image)


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return "its header makes no sense" if "cannot identify" in text else text[:120]


class _OutOfTime(Exception):
    pass


class _Timed(io.BytesIO):
    """Bytes that can't be read once the time is over. Shares `data`, copies nothing."""

    def __init__(self, data: bytes, seconds: float) -> None:
        super().__init__(data)
        self._deadline = time.monotonic() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._deadline:
            raise _OutOfTime
        return super().read(size)

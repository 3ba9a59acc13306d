"""What a file is by its bytes: its format, how many passes a decoder needs, and what hides behind the picture.

Comes in: the bytes of a file. Goes out: the name of the format and where the picture ends, or the reason why this is
no picture. Decodes nothing, and reads no more than headers and markers.

Formats by their magic numbers: ITU-T T.81 (JPEG), ISO/IEC 15948 (PNG), RFC 9649 (WebP), TIFF 6.0, ISO/IEC 23008-12
(HEIF). A polyglot is a file that is a valid picture and a valid something else, so that a filter for one lets the
other pass (Albertini, "Abusing file formats", PoC||GTFO 7, 2015).
"""

from __future__ import annotations

import re

JPEG, PNG, WEBP, BMP, TIFF, HEIF = "JPEG", "PNG", "WEBP", "BMP", "TIFF", "HEIF"

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})  # lengths of the header after the file header, by version
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

# What people send by mistake, and what to do about it.
_OTHERS: tuple[tuple[bytes, int, str, str], ...] = (
    (b"GIF8", 0, "it is a GIF", "Save the photograph as PNG or JPEG."),
    (b"%PDF-", 0, "it is a PDF document", "Export the picture from the document as PNG or JPEG."),
    (b"PK\x03\x04", 0, "it is a ZIP archive or an office document", "Unpack it and give the pictures inside."),
    (b"DICM", 128, "it is a DICOM file, which this version does not read", "Export it as PNG or JPEG."),
    (b"8BPS", 0, "it is a Photoshop file", "Export it as PNG or JPEG."),
    (b"\x00\x00\x00\x0cjP  ", 0, "it is a JPEG 2000 picture", "Save it as PNG or JPEG."),
    (b"ftypavif", 4, "it is an AVIF picture", "Save it as PNG or JPEG."),
    (b"Mac OS X        ", 8, "it holds a Mac's notes on a file, not the file", "Copy the picture itself."),
    (b"version https://git-lfs", 0, "it is a Git LFS pointer, not the picture", "Run: git lfs pull"),
)
_MARKUP = (b"<!doctype", b"<html", b"<svg", b"<?xml")

# The next marker in entropy-coded data: FF is escaped there by 00, and D0 to D7 only restart the decoder.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_ALONE = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})  # markers without a length

_SCRIPT = re.compile(rb"%PDF-|<script|<\?php|<html|__HALT_COMPILER", re.IGNORECASE)
_PROGRAM = (b"PK\x03\x04", b"\x7fELF", b"MZ", b"Rar!\x1a", b"7z\xbc\xaf\x27\x1c", b"\xca\xfe\xba\xbe", b"#!")
_HEAD = 1024  # a PDF reader looks for its header so far into a file


def format_of(data: bytes) -> str | None:
    """The picture format that `data` claims by its first bytes; None where it is none that we read."""
    if data.startswith(b"\xff\xd8\xff"):
        return JPEG
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WEBP
    if data.startswith(_TIFF_MAGIC):
        return TIFF
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return BMP
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return HEIF
    return None


def what_else(data: bytes) -> tuple[str, str]:
    """For a file in no format that we read: what it is instead, and the mend."""
    for magic, offset, reason, mend in _OTHERS:
        if data.startswith(magic, offset):
            return reason, mend
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(_MARKUP):
        return "it is a web page or a drawing in markup", "Download the picture itself, not the page around it."
    if not data.strip(b"\0"):
        return "it holds nothing but zero bytes", "Copy it again from the camera."
    return (
        "its first bytes belong to no picture format that is read here",
        "Save it as JPEG, PNG, WebP, BMP, TIFF or HEIC.",
    )


def scans_and_end(data: bytes, format_name: str) -> tuple[int, int]:
    """How many passes a decoder needs, and the offset behind the picture: the file's end where nothing says."""
    if format_name == JPEG:
        return _jpeg_scans_and_end(data)
    if format_name == PNG:
        last = data.rfind(b"IEND\xaeB`\x82")
        return 1, len(data) if last < 0 else last + 8
    if format_name == WEBP:
        size = 8 + int.from_bytes(data[4:8], "little")
        return 1, min(len(data), size + size % 2)
    return 1, len(data)


def _jpeg_scans_and_end(data: bytes) -> tuple[int, int]:
    scans, position = 0, 2
    while (found := _MARKER.search(data, position)) is not None:
        marker, position = data[found.end() - 1], found.end()
        if marker == _END_OF_IMAGE:
            return scans, position
        if marker in _ALONE:
            continue
        scans += marker == _SCAN
        position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return scans, len(data)


def hidden_payload(data: bytes, end: int) -> str | None:
    """What a file is besides a picture that ends at `end`, if it is a polyglot: a few words, or None.

    Bytes behind a picture are common and harmless: second frames, gain maps, makers' notes. Only what another
    program would open or run is told.
    """
    if _is_zip(data):
        return "a ZIP archive"
    tail = data[end:]
    if tail.lstrip(b"\0 \r\n\t").startswith(_PROGRAM):
        return "an archive or a program behind the picture"
    if _SCRIPT.search(data, 0, _HEAD) or _SCRIPT.search(tail):
        return "a document or a script"
    return None


def _is_zip(data: bytes) -> bool:
    """Whether a directory of a ZIP archive stands where the record at the end of the file says."""
    record = data.rfind(b"PK\x05\x06", max(0, len(data) - 65_557))
    if record < 0:
        return False
    size = int.from_bytes(data[record + 12 : record + 16], "little")
    return size <= record and data.startswith(b"PK\x01\x02", record - size)

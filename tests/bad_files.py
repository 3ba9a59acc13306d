"""A corpus of bad files, as generators: each makes the bytes, or the thing on disk, that somebody will give us.

`BYTES` maps a name to the content and the error it must end in; `ON_DISK` to a function that makes something at a
path. `HONEST` holds unusual files that must be read all the same.
"""

from __future__ import annotations

import base64
import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dermalert.errors import BrokenPicture, NotAPicture, RefusedFile, TooLarge, Unreadable

WIDTH, HEIGHT = 60, 40


def picture(mode: str = "RGB", width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A smooth picture whose left upper corner is reddest, so that every turn can be told from the others."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    red, green, blue = 230 - 120 * x - 90 * y, 60 + 120 * x, 40 + 150 * y
    return Image.fromarray(np.stack([red, green, blue], -1).astype(np.uint8)).convert(mode)


def saved(format_name: str, mode: str = "RGB", image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or picture(mode)).save(buffer, format_name, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, body: bytes, *, depth: int = 8, colour: int = 2, extra: bytes = b"") -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(saved("JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_of_many_scans(scans: int) -> bytes:
    data = saved("JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xda", first + 2)
    return data[:first] + data[first:second] * scans + data[second:]


def with_wild_segment_length(data: bytes) -> bytes:
    at = data.index(b"\xff\xdb") + 2
    return data[:at] + b"\xff\xff" + data[at + 2 :]


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("run-me.txt", "payload")
    return buffer.getvalue()


def pages(count: int, format_name: str, **options: object) -> bytes:
    others = [picture(width=8 + page % 5, height=8) for page in range(1, count)]
    if format_name != "TIFF":
        others = [Image.new("RGB", (8, 8), (page, 0, 255 - page)) for page in range(1, count)]
    first = Image.new("RGB", (8, 8), "red")
    return saved(format_name, image=first, save_all=True, append_images=others, **options)


def tiff_that_loops() -> bytes:
    data = bytearray(saved("TIFF"))
    directory = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, directory)[0]
    struct.pack_into("<I", data, directory + 2 + 12 * entries, directory)
    return bytes(data)


def bmp_claiming(width: int, height: int) -> bytes:
    data = bytearray(saved("BMP"))
    struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


def webp_claiming(width: int, height: int) -> bytes:
    data = saved("WEBP")
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas + data[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def heic_header() -> bytes:
    return struct.pack(">I", 24) + b"ftypheic" + b"\0\0\0\0" + b"mif1heic" + b"\0" * 64


def tiff_claiming(width: int) -> bytes:
    data = bytearray(saved("TIFF"))
    directory = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, directory)[0]):
        at = directory + 2 + 12 * entry
        if struct.unpack_from("<H", data, at)[0] == 256:
            struct.pack_into("<HII", data, at + 2, 4, 1, width)
    return bytes(data)


# 64 by 32 pixels of rgb(200, 120, 90), encoded by libheif with x265: no encoder comes with the package.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAABoAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt"
    "AAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA"
    "AAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5j"
    "bHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAIAAAAAEAAAAAAAAAAv///+AAAAACAAAAEHBp"
    "eGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAACJtZGF0AAAAFigBrxmA70mlvtN9Zf9aQv8QrWmPm4A="
)


Bad = tuple[Callable[[], bytes], type[RefusedFile]]

BYTES: dict[str, Bad] = {
    # Nothing, or nothing of ours.
    "empty": (lambda: b"", NotAPicture),
    "one byte": (lambda: b"\xff", NotAPicture),
    "zero bytes": (lambda: b"\0" * 4096, NotAPicture),
    "noise": (lambda: np.random.default_rng(7).bytes(4096), NotAPicture),
    "text": (lambda: b"Patient 17, left shoulder, see picture.\n", NotAPicture),
    "web page": (lambda: b"\n<!DOCTYPE html><html><body>404</body></html>", NotAPicture),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', NotAPicture),
    "xml with a byte order mark": (lambda: b"\xef\xbb\xbf<?xml version='1.0'?><svg/>", NotAPicture),
    "pdf": (lambda: b"%PDF-1.7\n1 0 obj\n", NotAPicture),
    "zip": (archive, NotAPicture),
    "gif": (lambda: saved("GIF"), NotAPicture),
    "jpeg 2000": (lambda: saved("JPEG2000"), NotAPicture),
    "avif": (lambda: saved("AVIF"), NotAPicture),
    "dicom": (lambda: b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL", NotAPicture),
    "photoshop": (lambda: b"8BPS\0\x01" + b"\0" * 40, NotAPicture),
    "resource fork": (lambda: b"\0\x05\x16\x07\0\x02\0\0Mac OS X        " + b"\0" * 60, NotAPicture),
    "git lfs pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", NotAPicture),
    "a BM that is no bitmap": (lambda: b"BMW owner's manual, page one of many", NotAPicture),
    # JPEG.
    "jpeg magic only": (lambda: b"\xff\xd8\xff", BrokenPicture),
    "jpeg header only": (lambda: saved("JPEG")[:200], BrokenPicture),
    "jpeg cut in half": (lambda: saved("JPEG", image=picture(width=600, height=400))[:3000], BrokenPicture),
    "jpeg whose middle is missing": (
        lambda: (lambda data: data[:250] + b"\xff\xd9")(saved("JPEG")),
        BrokenPicture,
    ),
    "jpeg segment past the end": (lambda: with_wild_segment_length(saved("JPEG")), BrokenPicture),
    "jpeg of no width": (lambda: jpeg_claiming(0, 40), BrokenPicture),
    "jpeg bomb": (lambda: jpeg_claiming(65_000, 65_000), TooLarge),
    "jpeg of ten thousand scans": (lambda: jpeg_of_many_scans(10_000), TooLarge),
    "jpeg and zip": (lambda: saved("JPEG") + archive(), NotAPicture),
    "jpeg and script": (lambda: saved("JPEG") + b"<script>alert(1)</script>", NotAPicture),
    "jpeg and php in a comment": (lambda: saved("JPEG", comment=b"<?php system($_GET[0]); ?>"), NotAPicture),
    "jpeg and program": (lambda: saved("JPEG") + b"\x7fELF\x02\x01\x01", NotAPicture),
    "jpeg and pdf": (lambda: saved("JPEG", comment=b"%PDF-1.4 1 0 obj"), NotAPicture),
    # PNG.
    "png magic only": (lambda: b"\x89PNG\r\n\x1a\n", BrokenPicture),
    "png cut off": (lambda: saved("PNG", image=picture(width=300, height=300))[:400], BrokenPicture),
    "png wrong checksum": (
        lambda: (lambda data: data.replace(data[29:33], b"\0\0\0\0", 1))(saved("PNG")),
        BrokenPicture,
    ),
    "png of no size": (lambda: png(0, 0, zlib.compress(b"")), BrokenPicture),
    "png bomb": (lambda: png(50_000, 50_000, zlib.compress(bytes(1_000_000))), TooLarge),
    "png body is no deflate stream": (lambda: png(60, 40, b"not deflated at all"), BrokenPicture),
    "png unknown colour type": (lambda: png(60, 40, zlib.compress(bytes(7240)), colour=5), BrokenPicture),
    "png text bomb": (
        lambda: png(
            6,
            4,
            zlib.compress(bytes(76)),
            extra=b"".join(png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(900_000))) for _ in range(200)),
        ),
        BrokenPicture,
    ),
    "png and zip": (lambda: saved("PNG") + archive(), NotAPicture),
    "png and html": (lambda: saved("PNG") + b"<html><body onload=alert(1)>", NotAPicture),
    "png film of hundreds": (lambda: pages(300, "PNG"), TooLarge),
    # WebP, BMP, TIFF, HEIC.
    "webp cut off": (lambda: saved("WEBP", image=picture(width=300, height=200))[:200], BrokenPicture),
    "webp header only": (lambda: b"RIFF\x10\0\0\0WEBPVP8 ", BrokenPicture),
    "webp bomb": (lambda: webp_claiming(16_000, 16_000), TooLarge),
    "webp film": (lambda: pages(40, "WEBP", lossless=True), TooLarge),
    "bmp cut off": (lambda: saved("BMP")[:500], BrokenPicture),
    "bmp bomb": (lambda: bmp_claiming(100_000, 100_000), TooLarge),
    "tiff header only": (lambda: b"II*\0\x08\0\0\0", BrokenPicture),
    "tiff cut off": (lambda: saved("TIFF", compression="tiff_lzw")[:60], BrokenPicture),
    "tiff directory past the end": (lambda: b"MM\0*\x7f\xff\xff\xff" + b"\0" * 50, BrokenPicture),
    "tiff bomb": (lambda: tiff_claiming(4_000_000_000), TooLarge),
    "tiff of hundreds of pages": (lambda: pages(300, "TIFF"), TooLarge),
    "tiff of floats": (lambda: saved("TIFF", "F"), NotAPicture),
    "heic header only": (heic_header, BrokenPicture),
    "heic cut off": (lambda: HEIC[:-40], BrokenPicture),
}


def folder(path: Path) -> None:
    path.mkdir()


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def link_to_nothing(path: Path) -> None:
    path.symlink_to("gone.jpg")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening_socket(path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path may hold about 100 bytes only
    try:
        server.bind(path.name)
    finally:
        os.chdir(here)
        server.close()


def locked(path: Path) -> None:
    path.write_bytes(saved("JPEG"))
    path.chmod(0)


ON_DISK: dict[str, tuple[Callable[[Path], None], type[RefusedFile]]] = {
    "folder.jpg": (folder, NotAPicture),
    "loop.jpg": (link_to_itself, Unreadable),
    "gone.png": (link_to_nothing, Unreadable),
    "pipe.jpg": (pipe, NotAPicture),
    "zeros.bmp": (device, NotAPicture),
    "socket.jpg": (listening_socket, RefusedFile),
    "locked.jpg": (locked, Unreadable),
}

HONEST: dict[str, Callable[[], bytes]] = {
    "baseline jpeg": lambda: saved("JPEG", quality=95),
    "progressive jpeg": lambda: saved("JPEG", quality=95, progressive=True),
    "grey jpeg": lambda: saved("JPEG", "L"),
    "cmyk jpeg": lambda: saved("JPEG", "CMYK", quality=95),
    "jpeg with a second frame behind": lambda: saved("JPEG") + saved("JPEG", image=picture(width=20, height=20)),
    "jpeg padded with zeros": lambda: saved("JPEG") + b"\0" * 512,
    "png": lambda: saved("PNG"),
    "png of bits": lambda: saved("PNG", "1"),
    "palette png": lambda: saved("PNG", "P"),
    "grey png": lambda: saved("PNG", "L"),
    "grey and alpha png": lambda: saved("PNG", "LA"),
    "alpha png": lambda: saved("PNG", "RGBA"),
    "16-bit grey png": lambda: saved("PNG", image=Image.fromarray(np.full((HEIGHT, WIDTH), 40_000, np.uint16))),
    "16-bit rgb png": lambda: png(
        60, 40, zlib.compress(b"".join(b"\0" + b"\x80\0\x40\0\x20\0" * 60 for _ in range(40))), depth=16
    ),
    "webp": lambda: saved("WEBP"),
    "lossless alpha webp": lambda: saved("WEBP", "RGBA", lossless=True),
    "bmp": lambda: saved("BMP"),
    "palette bmp": lambda: saved("BMP", "P"),
    "heic": lambda: HEIC,
    "tiff": lambda: saved("TIFF"),
    "lzw tiff": lambda: saved("TIFF", compression="tiff_lzw"),
    "jpeg tiff": lambda: saved("TIFF", compression="jpeg"),
    "cmyk tiff": lambda: saved("TIFF", "CMYK"),
    "tiff of three pages": lambda: pages(3, "TIFF"),
    "tiff whose directory points to itself": tiff_that_loops,
}

"""What is shown of a picture: made anew from its pixels, so that no EXIF, name or hidden payload of the file is in it.

Comes in: a stored picture, and how it is decoded: by a process of its own (`decoder`), for the file is still anybody's.
Goes out: JPEGs for looking at, and evidence maps as PNGs to lay over them. Each is made when first asked for and kept
in a folder that may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermalert.clinic.decoder import Decoder
from dermalert.clinic.files import Files
from dermalert.clinic.schema import Picture
from dermalert.errors import NotNow
from dermalert.page.overlay import evidence_layer
from dermalert.page.thumbnails import rendition
from dermalert.score.engine import Engine
from dermalert.score.explain import explain

EDGES = (160, 320, 2048)  # pixels of the longer side that pictures are shown at
MAP_EDGE = 512
_REFERENCE_EDGE = 320
_LOCKS = 32


class Renditions:
    """The renditions of one clinic; may be shared by threads."""

    def __init__(self, folder: Path, files: Files, decoder: Decoder) -> None:
        """
        Args:
            folder: where they are kept.
            files: the pictures.
        """
        self._folder, self._files, self._decoder = folder, files, decoder
        self._decoding = threading.Lock()  # a decoder is for one thread
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def picture(self, of: Picture, edge: int) -> bytes:
        """A JPEG, its longer side at most `edge` pixels, of `EDGES`.

        Raises:
            NotNow: no decoder has managed to open it yet.
            RefusedFile, DecoderLost: the decoder refuses it now, or dies on it.
            Damaged: its file is gone or altered.
        """
        size = _shown_at(of, edge)

        def make() -> bytes:
            return rendition(self._pixels(of, size), edge=edge)

        return self._kept(of.sha256, f"{edge}.jpg", make)

    def evidence(self, of: Picture, engine: Engine, digest: str, diagnosis: str) -> bytes:
        """Where the evidence for `diagnosis` lies, as a PNG with the picture's shape.

        Args:
            digest: of the engine's bundle.

        Raises:
            DataError: the model does not know the diagnosis.
            NotNow, RefusedFile, DecoderLost, Damaged: as `picture`.
        """
        size = _shown_at(of, MAP_EDGE)
        asked = hashlib.sha256(f"{digest}/{diagnosis}".encode()).hexdigest()[:24]

        def make() -> bytes:
            (found,) = explain(engine, self._pixels(of, engine.bundle.size)[None], diagnosis)
            return evidence_layer(found.speaking_for, size)

        return self._kept(of.sha256, f"{asked}.png", make)

    def reference(self, sha256: str, data: bytes) -> bytes:
        """A small JPEG of a reference picture.

        Raises:
            RefusedFile, DecoderLost: as `picture`.
        """

        def make() -> bytes:
            square = (_REFERENCE_EDGE, _REFERENCE_EDGE)
            with self._decoding:  # twice: its shape is known only after the first time
                info = self._decoder.decode(data, square, "the picture").picture.info
                size = _fitted(info.width, info.height, _REFERENCE_EDGE)
                pixels = self._decoder.decode(data, size, "the picture").picture.pixels
            return rendition(pixels, edge=_REFERENCE_EDGE)

        return self._kept(sha256, "reference.jpg", make)

    def _pixels(self, of: Picture, size: tuple[int, int]) -> NDArray[np.uint8]:
        data = self._files.read(of.sha256)
        with self._decoding:
            return self._decoder.decode(data, size, "the picture").picture.pixels

    def _kept(self, sha256: str, name: str, make: Callable[[], bytes]) -> bytes:
        file = self._folder / sha256[:2] / f"{sha256}-{name}"
        with self._locks[hash((sha256, name)) % _LOCKS]:  # two who ask at once have it made once
            try:
                return file.read_bytes()
            except FileNotFoundError:
                made = make()
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f"{file.name}.{secrets.token_hex(4)}.part")
            part.write_bytes(made)
            part.replace(file)
            return made


def _shown_at(of: Picture, edge: int) -> tuple[int, int]:
    if not of.width or not of.height:
        raise NotNow("This picture has not been opened yet, or could not be: there is nothing to show.")
    return _fitted(of.width, of.height, edge)


def _fitted(width: int, height: int, edge: int) -> tuple[int, int]:
    """(width, height) at which a picture fits into a square, never enlarged."""
    scale = min(1.0, edge / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))

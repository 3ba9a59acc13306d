"""Pictures, decoded once, served in batches.

Comes in: picture files and their content hashes. Goes out: a `DecodedCache`, pixels in one memory-mapped file
that later epochs and later runs read again, and `batches` of it prepared ahead of the training step.
It opens no picture itself (`intake.decode` does) and decides no order (`train` does).
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dermalert.errors import DataError, RefusedFile
from dermalert.intake import decode

# Raise when `decode` would give other pixels for the same file: old caches are then left alone and new ones made.
DECODE_VERSION = 1
_CHUNK = 256
Made = TypeVar("Made")
_STALE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class DecodedCache:
    """Decoded pictures on disk, one row a picture, in the order given to `build`.

    Attributes:
        pixels: uint8 (N, H, W, 3), memory-mapped read-only; a refused picture's row is black.
        usable: bool (N,), false where the picture was refused.
        refused: why, for each picture that was.
    """

    pixels: NDArray[np.uint8]
    usable: NDArray[np.bool_]
    refused: tuple[RefusedFile, ...]

    @classmethod
    def build(
        cls,
        paths: Sequence[Path],
        ids: Sequence[str],
        *,
        size: tuple[int, int],
        folder: Path,
        workers: int | None = None,
        progress: bool = True,
    ) -> DecodedCache:
        """The pictures decoded at `size`, from `folder` if an earlier call left them there.

        A cache is found by its pictures' content, their order and the size, never by file names or times. It is
        written aside and renamed when whole, so a build that is cut off is never taken for a cache. Refused
        pictures are tried again at each call, and the cache is made anew if one of them has become readable.

        Args:
            paths: (N,) the files.
            ids: (N,) the sha256 of each file's bytes, hex; trusted, not checked again.
            size: width and height in pixels.
            folder: where caches are kept; made if missing.
            workers: decoding threads; by default one a processor.
            progress: whether a bar is shown on stderr.

        Raises:
            DataError: no pictures, or `paths` and `ids` differ in length.
        """
        if not paths or len(paths) != len(ids):
            raise DataError(
                f"A cache needs one id a picture and a picture at least: {len(paths)} and {len(ids)} given."
            )
        home = folder / _key(ids, size)
        found = cls._open(home, paths)
        if found is not None and not any(_loads(error.path, size) for error in found.refused):
            return found
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        aside = Path(tempfile.mkdtemp(prefix=f"{home.name}.", suffix=".partial", dir=folder))
        try:
            _write(aside, paths, size, workers or os.cpu_count() or 1, progress)
            move_into_place(aside, home)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        made = cls._open(home, paths)
        if made is None:
            raise DataError(f"{home}: the cache just written is gone. Is another program cleaning this folder?")
        return made

    @classmethod
    def _open(cls, home: Path, paths: Sequence[Path]) -> DecodedCache | None:
        try:
            refusals = json.loads((home / "refused.json").read_text(encoding="utf-8"))
            pixels = np.load(home / "pixels.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):  # absent, or cut short by a full disk: make it again
            return None
        kinds: list[type[RefusedFile]] = [RefusedFile, *RefusedFile.__subclasses__()]
        by_code = {kind.code: kind for kind in kinds}
        usable = np.ones(len(paths), dtype=bool)
        usable[[int(row) for row in refusals]] = False
        refused = tuple(
            by_code.get(said["code"], RefusedFile)(paths[int(row)], said["reason"], said["mend"])
            for row, said in refusals.items()
        )
        return cls(pixels, usable, refused)


def batches(
    pixels: NDArray[np.uint8],
    order: NDArray[np.int64],
    batch_size: int,
    *,
    change: Callable[[NDArray[np.uint8], int], Made] | None = None,
    ahead: int = 2,
) -> Iterator[tuple[NDArray[np.int64], Made]]:
    """Batches in exactly this order, made by a thread that stays `ahead` batches in front.

    Args:
        change: what the thread makes of a batch's pixels and its number from 0; by default they stay as they are.

    Yields:
        The batch's rows (int64, B) and what `change` made of their pixels (uint8, (B, H, W, 3)); the last batch may
        be shorter.
    """
    ready: queue.Queue[tuple[NDArray[np.int64], Any] | BaseException | None] = queue.Queue(ahead)
    stop = threading.Event()

    def offer(item: tuple[NDArray[np.int64], Any] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for number, start in enumerate(range(0, len(order), batch_size)):
                if stop.is_set():
                    return
                rows = order[start : start + batch_size]
                offer((rows, change(pixels[rows], number) if change else pixels[rows]))
            offer(None)
        except BaseException as error:  # handed to the consumer, which raises it
            offer(error)

    reader = threading.Thread(target=read, name="batches", daemon=True)
    reader.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        reader.join()


def _key(ids: Sequence[str], size: tuple[int, int]) -> str:
    content = json.dumps({"decode": DECODE_VERSION, "size": list(size), "ids": list(ids)})
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _load(path: Path, size: tuple[int, int]) -> NDArray[np.uint8] | RefusedFile:
    try:
        pixels: NDArray[np.uint8] = decode.load(path, size=size).pixels
    except RefusedFile as error:
        return error
    return pixels


def _loads(path: str, size: tuple[int, int]) -> bool:
    return not isinstance(_load(Path(path), size), RefusedFile)


def _write(aside: Path, paths: Sequence[Path], size: tuple[int, int], workers: int, progress: bool) -> None:
    width, height = size
    black = np.zeros((height, width, 3), dtype=np.uint8)
    refusals: dict[int, dict[str, str]] = {}
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), height, width, 3)}
    with (
        (aside / "pixels.npy").open("wb") as file,
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(paths), desc="decoding", unit="picture", disable=not progress) as bar,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(paths), _CHUNK):  # in chunks, so that few pictures wait in memory
            chunk = paths[start : start + _CHUNK]
            for row, picture in enumerate(pool.map(lambda path: _load(path, size), chunk), start):
                if isinstance(picture, RefusedFile):
                    refusals[row] = {"code": picture.code, "reason": picture.reason, "mend": picture.mend}
                    picture = black
                file.write(np.ascontiguousarray(picture).tobytes())
            bar.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    (aside / "refused.json").write_text(json.dumps(refusals), encoding="utf-8")


def move_into_place(aside: Path, home: Path) -> None:
    """Makes `aside`, now whole, the folder `home`: nobody ever sees half of it under that name."""
    if home.exists():  # stale, or finished by another process meanwhile; either way ours is as good
        old = Path(tempfile.mkdtemp(suffix=".partial", dir=home.parent))
        home.replace(old / "old")
        shutil.rmtree(old, ignore_errors=True)
    aside.replace(home)


def sweep(folder: Path) -> None:
    """Removes what builds that were killed left behind, once nothing can still be writing to it."""
    for left in folder.glob("*.partial"):
        try:
            newest = max(item.stat().st_mtime for item in (left, *left.iterdir()))
        except OSError:  # another process is sweeping too
            continue
        if time.time() - newest > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)

"""The decoded cache: whole or absent, made once, and never served for other pictures."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dermalert.errors import DataError, NotAPicture
from dermalert.intake import decode
from dermalert.learn import pipeline
from dermalert.learn.pipeline import DecodedCache, batches

SIZE = (20, 16)


def pictures(folder: Path, count: int = 5, seed: int = 0) -> list[Path]:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.png" for number in range(count)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3)).astype(np.uint8)).save(file)
    return files


def ids_of(files: list[Path]) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def build(files: list[Path], folder: Path, **options: Any) -> DecodedCache:
    return DecodedCache.build(files, ids_of(files), folder=folder, progress=False, **{"size": SIZE, **options})


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were really decoded, in any order."""
    seen: list[Path] = []
    load: Callable[..., Any] = decode.load

    def noting(path: Path, **options: Any) -> Any:
        seen.append(path)
        return load(path, **options)

    monkeypatch.setattr(decode, "load", noting)
    return seen


def test_rows_are_the_pictures_in_the_order_given(tmp_path: Path) -> None:
    files = pictures(tmp_path / "in", count=300)
    cache = build(files, tmp_path / "cache", workers=4)
    assert cache.pixels.shape == (300, SIZE[1], SIZE[0], 3)
    assert cache.pixels.dtype == np.uint8
    for row, file in enumerate(files):
        assert np.array_equal(cache.pixels[row], np.asarray(Image.open(file)))


def test_a_second_run_decodes_nothing_even_when_the_pictures_have_moved(tmp_path: Path, decoded: list[Path]) -> None:
    first = build(pictures(tmp_path / "in"), tmp_path / "cache")
    decoded.clear()
    second = build(pictures(tmp_path / "elsewhere"), tmp_path / "cache")
    assert decoded == []
    assert np.array_equal(first.pixels, second.pixels)


def test_other_content_another_size_or_another_decoder_gets_a_cache_of_its_own(
    tmp_path: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pictures(tmp_path / "in")
    build(files, tmp_path / "cache")
    for change in ("content", "order", "size", "decoder"):
        decoded.clear()
        if change == "content":
            build(pictures(tmp_path / "in2", seed=1), tmp_path / "cache")
        elif change == "order":
            build(files[::-1], tmp_path / "cache")
        elif change == "size":
            build(files, tmp_path / "cache", size=(SIZE[1], SIZE[0]))
        else:
            monkeypatch.setattr(pipeline, "DECODE_VERSION", pipeline.DECODE_VERSION + 1)
            build(files, tmp_path / "cache")
        assert len(decoded) == len(files), change


def test_a_refused_picture_is_listed_and_the_others_go_on(tmp_path: Path) -> None:
    files = pictures(tmp_path / "in")
    files[2].write_bytes(b"no picture")
    for _ in range(2):  # made, then reused
        cache = build(files, tmp_path / "cache")
        assert cache.usable.tolist() == [True, True, False, True, True]
        assert [type(error) for error in cache.refused] == [NotAPicture]
        assert cache.refused[0].path == str(files[2])
        assert not cache.pixels[2].any()
        assert np.array_equal(cache.pixels[3], np.asarray(Image.open(files[3])))


def test_a_picture_that_has_become_readable_is_taken_in(tmp_path: Path) -> None:
    files = pictures(tmp_path / "in")
    ids, content = ids_of(files), files[2].read_bytes()
    files[2].unlink()
    options: dict[str, Any] = {"size": SIZE, "folder": tmp_path / "cache", "progress": False}
    assert not DecodedCache.build(files, ids, **options).usable[2]
    files[2].write_bytes(content)
    assert DecodedCache.build(files, ids, **options).usable.all()


class Death(BaseException):
    """Stands for a kill: nothing in the product catches it."""


def test_an_interrupted_build_never_passes_as_complete(
    tmp_path: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pictures(tmp_path / "in")
    with monkeypatch.context() as patch:

        def die(*_: object) -> None:
            raise Death

        patch.setattr(pipeline, "move_into_place", die)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a kill cleans nothing up
        with pytest.raises(Death):
            build(files, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.partial"))) == 1
    decoded.clear()
    assert build(files, tmp_path / "cache").usable.all()
    assert len(decoded) == len(files)


def test_what_a_killed_build_left_is_removed_in_time(tmp_path: Path) -> None:
    left = tmp_path / "cache" / "abc.partial"
    left.mkdir(parents=True)
    (left / "pixels.npy").write_bytes(b"half")
    files = pictures(tmp_path / "in")
    build(files[:1], tmp_path / "cache")
    assert left.exists()  # it may still be at work
    long_ago = time.time() - 7 * 24 * 3600
    for item in (left / "pixels.npy", left):
        os.utime(item, (long_ago, long_ago))
    build(files[:2], tmp_path / "cache")
    assert not left.exists()


def test_a_cache_cut_short_is_made_again(tmp_path: Path, decoded: list[Path]) -> None:
    files = pictures(tmp_path / "in")
    build(files, tmp_path / "cache")
    file = next((tmp_path / "cache").glob("*/pixels.npy"))
    file.write_bytes(file.read_bytes()[:-100])
    decoded.clear()
    cache = build(files, tmp_path / "cache")
    assert len(decoded) == len(files)
    assert np.array_equal(cache.pixels[-1], np.asarray(Image.open(files[-1])))


def test_no_pictures_or_ids_that_do_not_match_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        DecodedCache.build([], [], size=SIZE, folder=tmp_path)
    with pytest.raises(DataError):
        DecodedCache.build(pictures(tmp_path / "in"), ["one"], size=SIZE, folder=tmp_path)


@settings(deadline=None, max_examples=40)
@given(st.permutations(range(23)), st.integers(1, 30))
def test_batches_keep_the_order_and_lose_nothing(order: list[int], batch_size: int) -> None:
    pixels = np.arange(23, dtype=np.uint8).reshape(23, 1, 1, 1)
    served = list(batches(pixels, np.array(order), batch_size))
    assert np.concatenate([rows for rows, _ in served]).tolist() == order
    assert np.concatenate([part for _, part in served]).ravel().tolist() == order
    assert all(len(rows) == batch_size for rows, _ in served[:-1])


def test_leaving_batches_early_ends_their_reader() -> None:
    serving = batches(np.zeros((100, 1, 1, 1), np.uint8), np.arange(100), 1)
    next(serving)
    serving.close()  # type: ignore[attr-defined]
    assert not any(thread.name == "batches" for thread in threading.enumerate())


def test_a_failure_to_read_reaches_the_one_who_asked() -> None:
    with pytest.raises(IndexError):
        list(batches(np.zeros((3, 1, 1, 1), np.uint8), np.array([0, 7]), 1))

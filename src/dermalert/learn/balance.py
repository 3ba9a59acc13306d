"""What is done about rare classes: more pictures of them, more weight, or more turns.

Comes in: the class of each picture and the training rows. Goes out: drawn pictures, weights, an order, or a prior.
All of it looks at training rows alone and comes after the split: a changed copy of a training picture must never
stand in validation, where the public's notebooks put it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dermalert.errors import DataError, MissingExtra
from dermalert.learn.pipeline import move_into_place, sweep

# Raise when `_augmentor` would draw other pictures: old caches are then left alone and new ones made.
OPERATIONS_VERSION = 1
NO_CLASS = -1
_CHUNK = 256
_ROUNDS = 200  # of expectation maximization; every set here stands still to four digits after 50

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Filled:
    """Pictures, and more of the rare classes made of them.

    Attributes:
        pixels: uint8 (N + M, H, W, 3), the given pictures unchanged, then the drawn ones; memory-mapped read-only
            where M is not 0.
        origin: int64 (M,), the training row that each drawn picture was made from, and whose label it has.
    """

    pixels: NDArray[np.uint8]
    origin: Rows


def fill_up(
    pixels: NDArray[np.uint8],
    rows: Rows,
    classes: Rows,
    *,
    seed: int,
    folder: Path,
    key: str,
    more: int | None = None,
    progress: bool = True,
) -> Filled:
    """Every class filled up to the largest by the Augmentor library, from `folder` if an earlier call left it there.

    The pictures of a class take turns as origins. A cache is found by what it was made from; it is written aside and
    renamed when whole, so a build that is cut off is never taken for one.

    Augmentor: Bloice, Roth, Holzinger, Bioinformatics 35:4522 (2019).

    Args:
        pixels: uint8 (N, H, W, 3).
        rows: int64 (T,), the training rows: no other row is ever an origin.
        classes: int64 (N,), the class of each picture, `NO_CLASS` where it has not exactly one; those are not filled.
        seed: other seeds, other pictures.
        folder: where caches are kept; made if missing.
        key: names the content of `pixels`, such as a hash of their files' hashes.
        more: so many pictures more of every class, as notebooks do with the library's `sample`, in place of filling
            up to the largest.
        progress: whether a bar is shown on stderr.

    Raises:
        DataError: the arrays do not fit together, or `more` is below 0.
        MissingExtra: Augmentor is not installed.
    """
    _check(rows, classes)
    if len(classes) != len(pixels) or (more is not None and more < 0):
        raise DataError(f"{len(pixels)} pictures, {len(classes)} classes, to be filled up by {more}: they do not fit.")
    origin = _origins(rows, classes, seed, more)
    if not len(origin):
        return Filled(pixels, origin)
    home, shape = folder / _name(key, origin, seed), (len(pixels) + len(origin), *pixels.shape[1:])
    made = _open(home, shape)
    if made is None:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        aside = Path(tempfile.mkdtemp(prefix=f"{home.name}.", suffix=".partial", dir=folder))
        try:
            _write(aside / "pixels.npy", pixels, origin, seed, progress)
            move_into_place(aside, home)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        made = _open(home, shape)
    if made is None:
        raise DataError(f"{home}: the cache just written is gone. Is another program cleaning this folder?")
    return Filled(made, origin)


def class_weights(classes: Rows, rows: Rows) -> NDArray[np.float32]:
    """What each picture counts in the loss: pictures of a class together as much as those of any other.

    Args:
        classes: int64 (N,), `NO_CLASS` where a picture has not exactly one.
        rows: int64 (T,), the training rows.

    Returns:
        float32 (N,) with mean 1 over `rows`. Rows without a class count 1, and so does what is not in `rows`.
    """
    _check(rows, classes)
    weights = np.ones(len(classes), dtype=np.float32)
    known = rows[classes[rows] >= 0]
    present, inverse, counts = np.unique(classes[known], return_inverse=True, return_counts=True)
    weights[known] = len(known) / (max(len(present), 1) * counts[inverse])
    return weights


def balanced_order(rows: Rows, classes: Rows, rng: np.random.Generator) -> Rows:
    """An epoch of as many rows as there are, in which every class has equally many turns.

    Within a class all pictures have equally many turns too, but for one: of a frequent class some have none, of a
    rare one all have several. Rows without a class keep one turn each.

    Args:
        rows: int64 (T,), the training rows.
        classes: int64 (N,), `NO_CLASS` where a picture has not exactly one.
        rng: decides which pictures have one turn more, and the order.
    """
    _check(rows, classes)
    unknown, known = rows[classes[rows] < 0], rows[classes[rows] >= 0]
    present = np.unique(classes[known])
    turns = np.full(len(present), len(known) // max(len(present), 1))
    turns[rng.permutation(len(present))[: len(known) - turns.sum()]] += 1
    parts = [_in_turns(known[classes[known] == each], count, rng) for each, count in zip(present, turns, strict=True)]
    order: Rows = rng.permutation(np.concatenate([unknown, *parts]))
    return order


def tempered_order(rows: Rows, strata: Rows, rng: np.random.Generator) -> Rows:
    """An epoch of as many rows as there are, in which a stratum has turns as the square root of its pictures.

    Between each picture equally often, which leaves rare diagnoses and small sources to a few batches, and each stratum
    equally often, which shows the few pictures of the rarest hundreds of times.

    Args:
        rows: int64 (T,), the training rows.
        strata: int64 (N,), the stratum of each picture, such as its class within its data set.
        rng: decides which pictures have one turn more, and the order.
    """
    _check(rows, strata)
    present, counts = np.unique(strata[rows], return_counts=True)
    ideal = len(rows) * np.sqrt(counts) / np.sqrt(counts).sum()
    turns = np.floor(ideal).astype(np.int64)
    turns[np.argsort(turns - ideal, kind="stable")[: len(rows) - turns.sum()]] += 1
    parts = [_in_turns(rows[strata[rows] == each], count, rng) for each, count in zip(present, turns, strict=True)]
    order: Rows = rng.permutation(np.concatenate(parts))
    return order


def likeliest_shares(allowed: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Maximum-likelihood share of each class where some labels stand for several: float64 (C,), sum 1.

    Expectation maximization over how each coarse label divides among its classes (Dempster, Laird, Rubin 1977), from
    equal shares.

    Args:
        allowed: bool (N, C), true for each class that a label may stand for; one at least.
        weights: float64 (N,), how much each picture counts; by default alike.

    Raises:
        DataError: no pictures, or one whose label stands for no class.
    """
    if not len(allowed) or not allowed.any(axis=1).all():
        raise DataError(f"Shares of classes need labelled pictures: {int((~allowed.any(axis=1)).sum())} have no label.")
    kinds, inverse = np.unique(allowed, axis=0, return_inverse=True)
    mass = np.bincount(inverse, weights=weights, minlength=len(kinds))
    shares = np.full(allowed.shape[1], 1 / allowed.shape[1])
    for _ in range(_ROUNDS):
        parts = kinds * shares
        shares = mass @ (parts / np.maximum(parts.sum(axis=1, keepdims=True), 1e-300)) / mass.sum()
    return shares


def log_prior(classes: Rows, rows: Rows, count: int) -> NDArray[np.float32]:
    """How common each class is among the training rows, for logit adjustment (Menon et al., ICLR 2021).

    Args:
        classes: int64 (N,), `NO_CLASS` where a picture has not exactly one.
        rows: int64 (T,), the training rows.
        count: C, the number of classes.

    Returns:
        float32 (C,), the logarithm of each share, as if each class had one picture more, so that none is infinite.
    """
    _check(rows, classes)
    known = classes[rows][classes[rows] >= 0]
    if len(known) and known.max() >= count:
        raise DataError(f"A picture has class {known.max()}; there are {count} classes from 0.")
    seen = np.bincount(known, minlength=count) + 1
    prior: NDArray[np.float32] = np.log(seen / seen.sum()).astype(np.float32)
    return prior


def _check(rows: Rows, classes: Rows) -> None:
    if classes.ndim != 1 or (len(rows) and (rows.min() < 0 or rows.max() >= len(classes))):
        raise DataError(f"Training rows and classes of shape {classes.shape} do not fit together.")


def _in_turns(members: Rows, count: int, rng: np.random.Generator) -> Rows:
    """`count` of the members, each as often as any other or once more."""
    rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    chosen: Rows = np.concatenate([members[:0], *rounds])[:count]
    return chosen


def _origins(rows: Rows, classes: Rows, seed: int, more: int | None) -> Rows:
    known = rows[classes[rows] >= 0]
    present, counts = np.unique(classes[known], return_counts=True)
    wanting = counts.max(initial=0) - counts if more is None else np.full(len(counts), more)
    parts = [
        _in_turns(known[classes[known] == each], want, np.random.default_rng((seed, each)))
        for each, want in zip(present, wanting, strict=True)
    ]
    origins: Rows = np.concatenate([rows[:0], *parts]).astype(np.int64)
    return origins


def _name(key: str, origin: Rows, seed: int) -> str:
    try:
        version = metadata.version("Augmentor")
    except metadata.PackageNotFoundError:
        raise MissingExtra("Filling up rare classes", "train") from None
    about = {"operations": OPERATIONS_VERSION, "augmentor": version, "key": key, "seed": seed}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    digest.update(origin.tobytes())
    return f"filled-{digest.hexdigest()[:32]}"


def _open(home: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    try:
        pixels: NDArray[np.uint8] = np.load(home / "pixels.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):  # absent, or cut short by a full disk: make it again
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _write(file: Path, pixels: NDArray[np.uint8], origin: Rows, seed: int, progress: bool) -> None:
    count, height, width, _ = pixels.shape
    header = {"descr": "|u1", "fortran_order": False, "shape": (count + len(origin), height, width, 3)}
    with (
        file.open("wb") as out,
        tqdm(total=len(origin), desc="filling up", unit="picture", disable=not progress) as bar,
    ):
        np.lib.format.write_array_header_1_0(out, header)
        for start in range(0, count, _CHUNK):
            out.write(np.ascontiguousarray(pixels[start : start + _CHUNK]).data)
        for number, row in enumerate(origin):
            out.write(np.ascontiguousarray(_drawn(pixels[row], f"{seed}/{number}")).data)
            bar.update()
        out.flush()
        os.fsync(out.fileno())


def examples(picture: NDArray[np.uint8], *, count: int, seed: int) -> list[NDArray[np.uint8]]:
    """A picture, uint8 (H, W, 3), and `count` that filling up may make of it, for people to look at."""
    return [picture, *(_drawn(picture, f"{seed}/{number}") for number in range(count))]


def _drawn(picture: NDArray[np.uint8], seed: str) -> NDArray[np.uint8]:
    with _chance(seed):
        changed: NDArray[np.uint8] = _augmentor(picture)()
    return changed


def _augmentor(picture: NDArray[np.uint8]) -> Callable[[], NDArray[np.uint8]]:
    """The library's pipeline on one picture, with the operations that public notebooks on these pictures use."""
    from Augmentor import DataPipeline

    short = min(picture.shape[:2])
    pipeline = DataPipeline([[picture]])
    pipeline.rotate(probability=0.7, max_left_rotation=10, max_right_rotation=10)
    pipeline.flip_left_right(probability=0.5)
    pipeline.flip_top_bottom(probability=0.5)
    pipeline.zoom(probability=0.5, min_factor=1.05, max_factor=1.2)
    pipeline.random_distortion(probability=0.5, grid_width=4, grid_height=4, magnitude=max(short // 30, 1))
    return lambda: pipeline.sample(1)[0][0]


@contextlib.contextmanager
def _chance(seed: str) -> Iterator[None]:
    """The library draws from the process's own generators: seeded here, and afterwards as they were."""
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "little"))  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)  # noqa: NPY002

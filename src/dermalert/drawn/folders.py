"""Drawn data sets on disk, with faults planted on purpose and listed.

Comes in: how many pictures of each diagnosis. Goes out: JPEGs without metadata in the layout of the nine-class ISIC
folder or of HAM10000, and a list of every planted fault.
Does not look for faults: that is the audit's task, which tests check against this list.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dermalert.drawn.lesion import draw_lesion
from dermalert.errors import DataError
from dermalert.taxonomy import NAMES

Pair = tuple[str, str]
QUALITY = 90
PICTURES_PER_FAULT = 40  # one fault of each kind to so many pictures in Train
KINDS = 6  # faults that need a picture of their own: all but the refused files

# Keeps the generators of the three kinds of set apart.
_FOLDERS, _TABLE, _MANY = range(3)


@dataclass(frozen=True)
class Planted:
    """Every fault planted, as POSIX paths below the set's root. No picture takes part in two faults.

    Attributes:
        duplicates: byte-identical, in Train, under one label.
        conflicts: byte-identical, in Train, under two labels.
        leaks: byte-identical, one in Train and one in Test, under one label.
        copies: an original and its byte-identical copy, named as browsers and file managers name copies: "X (1).jpg".
        near_duplicates: a picture and the same one re-encoded, made smaller or squashed. In pictures of 180 pixels and
            more their difference hashes lie within 16 bits; in smaller ones JPEG's rounding may take one farther.
        same_lesion: two photographs of one lesion.
        refused: files that are no picture: empty, cut off, or text.
    """

    duplicates: tuple[Pair, ...] = ()
    conflicts: tuple[Pair, ...] = ()
    leaks: tuple[Pair, ...] = ()
    copies: tuple[Pair, ...] = ()
    near_duplicates: tuple[Pair, ...] = ()
    same_lesion: tuple[Pair, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class DrawnSet:
    """A set on disk: its root, how many pictures it holds (copies too, refused files not) and what was planted."""

    root: Path
    pictures: int
    planted: Planted


@dataclass(frozen=True)
class _Drawn:
    """A picture in Train: the path below the root, the class and the seed that drew it."""

    path: str
    name: str
    seed: tuple[int, ...]


def draw_class_folders(
    root: Path,
    *,
    per_class: int | Mapping[str, int] = 20,
    test_per_class: int = 4,
    size: tuple[int, int] = (180, 180),
    seed: int = 0,
    faults: bool = True,
    classes: Sequence[str] = NAMES,
) -> DrawnSet:
    """Draws `root/Train/<class>/*.jpg` and `root/Test/<class>/*.jpg`.

    With `faults`, one of each kind for every 40 pictures in Train (at least one) comes on top of the pictures asked
    for, and refused files at least three: one of each sort. Conflicts need two classes and leaks a Test folder.

    Args:
        root: where to; must hold no drawn set yet.
        per_class: pictures of each class in Train; a mapping may leave classes out.
        test_per_class: pictures of each class in Test; 0 writes no Test folder.
        size: width and height, pixels.
        seed: equal seeds give equal files.
        faults: whether to plant faults.
        classes: the diagnoses to draw.

    Raises:
        DataError: unknown diagnosis, the folder is in use, or too few pictures to plant faults among.
    """
    asked = per_class if isinstance(per_class, Mapping) else dict.fromkeys(classes, per_class)
    unknown = sorted({*asked, *classes} - set(NAMES))
    if unknown:
        raise DataError(f"Cannot draw {', '.join(unknown)}. It must be one of: {', '.join(NAMES)}.")
    counts = {name: asked[name] for name in classes if asked.get(name, 0) > 0}
    total = sum(counts.values())
    if faults and total < KINDS:
        raise DataError(f"To plant faults, Train needs at least {KINDS} pictures, got {total}. Draw without faults.")
    _must_be_free(root, "Train", "Test")
    writer = _Writer(root, size, seed, room=2 * total + 2 * test_per_class * len(counts) + 100)
    train = [writer.new("Train", name) for name in counts for _ in range(counts[name])]
    for name in counts:
        for _ in range(test_per_class):
            writer.new("Test", name)
    planted = _plant(writer, train, tuple(counts), leaks=test_per_class > 0) if faults else Planted()
    return DrawnSet(root, writer.pictures, planted)


class _Writer:
    """Writes pictures under numbers that tell nothing of their class."""

    def __init__(self, root: Path, size: tuple[int, int], seed: int, room: int) -> None:
        self.root, self.size, self.seed = root, size, seed
        self.rng = np.random.default_rng([seed, _FOLDERS])
        self.numbers: Iterator[int] = iter(self.rng.permutation(room).tolist())
        self.pictures = self.drawn = 0

    def path(self, part: str, name: str) -> str:
        return f"{part}/{name}/DRAWN_{next(self.numbers):06d}.jpg"

    def write(self, path: str, content: bytes) -> str:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return path

    def copy(self, source: str, path: str) -> Pair:
        self.pictures += 1
        return source, self.write(path, (self.root / source).read_bytes())

    def new(self, part: str, name: str) -> _Drawn:
        seed = (self.seed, _FOLDERS, self.drawn)
        self.drawn += 1
        self.pictures += 1
        return _Drawn(self.write(self.path(part, name), _jpeg(name, seed, self.size)), name, seed)


def _plant(writer: _Writer, train: Sequence[_Drawn], classes: tuple[str, ...], *, leaks: bool) -> Planted:
    count = max(1, len(train) // PICTURES_PER_FAULT)
    chosen = writer.rng.permutation(len(train))[: count * KINDS].reshape(KINDS, count)
    duplicate, conflict, leak, copied, near, again = ([train[i] for i in row] for row in chosen)
    return Planted(
        duplicates=tuple(writer.copy(one.path, writer.path("Train", one.name)) for one in duplicate),
        conflicts=tuple(
            writer.copy(one.path, writer.path("Train", classes[(classes.index(one.name) + 1) % len(classes)]))
            for one in conflict
            if len(classes) > 1
        ),
        leaks=tuple(writer.copy(one.path, writer.path("Test", one.name)) for one in leak if leaks),
        copies=tuple(writer.copy(one.path, one.path.removesuffix(".jpg") + " (1).jpg") for one in copied),
        near_duplicates=tuple(_near_duplicate(writer, one, sort) for sort, one in enumerate(near)),
        same_lesion=tuple(_other_view(writer, one) for one in again),
        refused=tuple(_refused(writer, classes[sort % len(classes)], sort) for sort in range(max(3, count))),
    )


def _near_duplicate(writer: _Writer, one: _Drawn, sort: int) -> Pair:
    """Recompressed, made smaller or squashed: gently enough that the difference hash changes by 16 bits at most."""
    width, height = writer.size
    sorts = ((80, (width, height)), (90, (width * 2 // 3, height * 2 // 3)), (90, (width, height * 3 // 4)))
    quality, size = sorts[sort % 3]
    with Image.open(writer.root / one.path) as picture:
        altered = picture.resize(size, Image.Resampling.BICUBIC)
    writer.pictures += 1
    return one.path, writer.write(writer.path("Train", one.name), _encoded(altered, quality))


def _other_view(writer: _Writer, one: _Drawn) -> Pair:
    writer.pictures += 1
    return one.path, writer.write(writer.path("Train", one.name), _jpeg(one.name, one.seed, writer.size, view=1))


def _refused(writer: _Writer, name: str, sort: int) -> str:
    whole = _jpeg(name, (writer.seed, _FOLDERS, writer.drawn), writer.size)
    writer.drawn += 1
    text = b"The download of this picture failed.\n"
    return writer.write(writer.path("Train", name), (b"", whole[: len(whole) // 2], text)[sort % 3])


# The codes of HAM10000 with their share of lesions and what to draw for each.
_CODES: dict[str, tuple[float, tuple[str, ...]]] = {
    "akiec": (0.06, ("actinic keratosis", "squamous cell carcinoma")),
    "bcc": (0.08, ("basal cell carcinoma",)),
    "bkl": (0.14, ("pigmented benign keratosis", "seborrheic keratosis")),
    "df": (0.04, ("dermatofibroma",)),
    "mel": (0.16, ("melanoma",)),
    "nv": (0.48, ("nevus",)),
    "vasc": (0.04, ("vascular lesion",)),
}
_SITES = ("abdomen", "back", "chest", "face", "foot", "lower extremity", "neck", "scalp", "trunk", "upper extremity")
_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")


def draw_table(root: Path, *, lesions: int, seed: int = 0, size: tuple[int, int] = (200, 150)) -> DrawnSet:
    """Draws a set laid out as HAM10000: `root/images/*.jpg` and `root/metadata.csv`.

    Three lesions in ten have two or three pictures; those pairs are the only thing listed as planted. From fourteen
    lesions on, every code of HAM10000 occurs at least twice. Some ages are missing, as in HAM10000.

    Args:
        root: where to; must hold no drawn set yet.
        lesions: how many, at least 1.
        seed: equal seeds give equal files.
        size: width and height, pixels.

    Raises:
        DataError: no lesions asked for, or the folder is in use.
    """
    if lesions < 1:
        raise DataError(f"A table needs at least one lesion, got {lesions}.")
    _must_be_free(root, "images", "metadata.csv")
    rng = np.random.default_rng([seed, _TABLE])
    codes = (
        list(_CODES) * 2 + rng.choice(list(_CODES), size=lesions, p=[share for share, _ in _CODES.values()]).tolist()
    )[:lesions]
    numbers: Iterator[int] = iter(rng.permutation(3 * lesions).tolist())
    rows: list[tuple[str, ...]] = []
    pairs: list[Pair] = []
    (root / "images").mkdir(parents=True)
    for number, code in enumerate(rng.permutation(codes).tolist()):
        name = str(rng.choice(_CODES[code][1]))
        known = (f"DRAWN_L{number:06d}", code, *_patient(rng, code))
        ids = [f"DRAWN_{next(numbers):06d}" for _ in range(int(rng.choice(3, p=(0.7, 0.2, 0.1))) + 1)]
        for view, image in enumerate(ids):
            content = _jpeg(name, (seed, _TABLE, number), size, view=view)
            (root / "images" / f"{image}.jpg").write_bytes(content)
            rows.append((known[0], image, *known[1:]))
        pairs += [(f"images/{ids[0]}.jpg", f"images/{other}.jpg") for other in ids[1:]]
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([_COLUMNS, *rows])
    return DrawnSet(root, len(rows), Planted(same_lesion=tuple(pairs)))


def _patient(rng: np.random.Generator, code: str) -> tuple[str, str, str, str]:
    """How the diagnosis was made, age, sex and site."""
    how = "histo" if code in ("akiec", "bcc", "mel") else str(rng.choice(("histo", "follow_up", "consensus")))
    age = "" if rng.random() < 0.03 else str(5 * int(np.clip(rng.normal(10 if code == "nv" else 13, 3), 1, 17)))
    sex = str(rng.choice(("male", "female", "unknown"), p=(0.53, 0.45, 0.02)))
    return how, age, sex, str(rng.choice(_SITES))


def draw_many(folder: Path, *, count: int, size: tuple[int, int], seed: int = 0) -> list[Path]:
    """Draws `count` JPEGs, the diagnoses in turns, straight into `folder`; returns their paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"DRAWN_{number:06d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(_jpeg(NAMES[number % len(NAMES)], (seed, _MANY, number), size))
    return paths


def _jpeg(name: str, seed: tuple[int, ...], size: tuple[int, int], view: int = 0) -> bytes:
    width, height = size
    pixels = draw_lesion(name, np.random.default_rng(seed), width=width, height=height, view=view)
    return _encoded(Image.fromarray(pixels), QUALITY)


def _encoded(picture: Image.Image, quality: int) -> bytes:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality)
    return content.getvalue()


def _must_be_free(root: Path, *names: str) -> None:
    taken = [name for name in names if (root / name).exists()]
    if taken:
        raise DataError(f"{root} already holds {' and '.join(taken)}. Give a new folder, or remove them first.")

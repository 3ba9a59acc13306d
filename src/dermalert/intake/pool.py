"""Pools: several data sets as one, so that a model can learn from all of them and no lesion stands on both sides.

Comes in: audited Manifests, the first of them the one that is studied. Goes out: one Manifest over all their pictures,
split: its groups found across the sets, the first set's parts carried over to its lesions elsewhere.
It opens no picture and changes no label.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.intake.duplicates import edges_of, find, rows_sharing
from dermalert.intake.manifest import SCHEMA, Manifest
from dermalert.intake.neighbours import groups_of
from dermalert.intake.split import divide, group_numbers, keep_groups_whole, split, usable

# The ISIC Archive gives each photograph a number and file names carry it: two sets that name it hold one photograph,
# also where it was cut or recoloured too much for the difference hash.
_ARCHIVE_NUMBER = re.compile(r"ISIC_\d{7}")


def concatenated(manifests: Sequence[Manifest]) -> Manifest:
    """All rows of all sets below one root, groups and splits as they were.

    Image ids of the first set stay; those of the others, and all lesion and patient ids, get their set's name in
    front: two sets may use one word for different things.

    Raises:
        DataError: two sets of one name, or sets without a common root.
    """
    names = [manifest.column("source")[0] for manifest in manifests]
    if len(set(names)) < len(names):
        raise DataError(f"Pooled sets need different names; got {', '.join(names)}. Rename a folder.")
    try:
        root = Path(os.path.commonpath([manifest.root for manifest in manifests]))
    except ValueError:
        raise DataError("Pooled sets must lie on one drive, so that one folder holds them all.") from None
    tables = [
        _below(manifest, root, name, first=not i)
        for i, (manifest, name) in enumerate(zip(manifests, names, strict=True))
    ]
    return Manifest(root, pa.concat_tables(tables).combine_chunks())


def _below(manifest: Manifest, root: Path, name: str, *, first: bool) -> pa.Table:
    prefix = manifest.root.relative_to(root).as_posix()
    paths = [path if prefix == "." else f"{prefix}/{path}" for path in manifest.column("path")]
    ids = manifest.column("image_id")
    columns = {
        "path": paths,
        "image_id": ids if first else [f"{name}:{image_id}" for image_id in ids],
        **{
            key: [None if word is None else f"{name}:{word}" for word in manifest.column(key)]
            for key in ("lesion_id", "patient_id")
        },
    }
    return manifest.with_columns(**columns).table.cast(SCHEMA)


def pool(manifests: Sequence[Manifest], *, validation: float = 0.2, seed: int = 0) -> Manifest:
    """One split manifest of several audited ones.

    The first set is split as `split` does, by groups that know the other sets' lesions, unless it comes split. A lesion
    of the others that it holds too follows it to its part, and is left out where that is the test part or no part; the
    rest is divided into training and validation.

    Args:
        manifests: the studied set first; of the others only pictures that their audits keep are used.
        validation: share that validates, of each set and diagnosis.
        seed: of the divisions.

    Raises:
        DataError: as `concatenated` and `split`.
    """
    pooled = concatenated(manifests)
    groups = _groups(pooled, manifests)
    pooled = pooled.with_columns(group=groups)
    ours = np.arange(len(pooled)) < len(manifests[0])
    first = pooled.where(ours)
    is_split = any(first.column("split"))
    first = keep_groups_whole(first) if is_split else split(first, validation=validation, seed=seed)
    parts = np.array([*first.column("split"), *[None] * int((~ours).sum())], dtype=object)
    free = usable(pooled) & ~ours
    for part in ("train", "validation", None, "test"):  # a lesion in several parts follows the last one named here
        parts[free & np.isin(groups, groups[ours & (parts == part)])] = None if part == "test" else part
    free &= ~np.isin(groups, groups[ours])
    shares = {"train": 1 - validation, "validation": validation}
    parts[free] = divide(groups[free], _strata(pooled)[free], shares, seed=seed)
    return pooled.with_columns(split=parts.tolist())


def _strata(pooled: Manifest) -> NDArray[np.int64]:
    pairs = zip(pooled.column("source"), pooled.column("diagnosis"), strict=True)
    words = [f"{source}: {diagnosis}" for source, diagnosis in pairs]
    return np.unique(words, return_inverse=True)[1].astype(np.int64)


def _groups(pooled: Manifest, manifests: Sequence[Manifest]) -> NDArray[np.int64]:
    """int64 (N,): the groups of each set, joined where two sets show one picture."""
    of_one_set = [(i, int(group)) for i, manifest in enumerate(manifests) for group in group_numbers(manifest)]
    keys = (find(pooled).lesion_group.tolist(), of_one_set, _archive_numbers(pooled))
    edges = [edges_of(rows_sharing(key)) for key in keys]
    return groups_of(len(pooled), *(np.concatenate(ends) for ends in zip(*edges, strict=True)))


def _archive_numbers(pooled: Manifest) -> list[str | None]:
    found = [_ARCHIVE_NUMBER.search(path.rsplit("/", 1)[-1]) for path in pooled.column("path")]
    return [match.group() if match else None for match in found]


HAM10000 = "ham10000"
_HAM_NUMBERS = range(24306, 34321)  # of the ISIC Archive: the training part of its 2018 challenge


def collections(manifest: Manifest) -> NDArray[np.object_]:
    """str (N,): the collection that each photograph was made for, whatever set holds it now.

    Cameras and clinics change with it, so it is what a left-out source must be left out by. Photographs of the ISIC
    Archive belong to HAM10000, or to what the archive held before or since, by their number; others to their own set.
    """
    names = []
    for source, number in zip(manifest.column("source"), _archive_numbers(manifest), strict=True):
        if number is None:
            names.append(source)
        else:
            names.append(_collection(int(number.removeprefix("ISIC_"))))
    return np.array(names, dtype=object)


def _collection(number: int) -> str:
    if number in _HAM_NUMBERS:
        return HAM10000
    return "older ISIC" if number < _HAM_NUMBERS.start else "newer ISIC"


def photographs(pooled: Manifest, believed: Sequence[frozenset[str]]) -> tuple[Manifest, list[frozenset[str]]]:
    """Each photograph once, with what all sets that hold it say together.

    A photograph that stands in several sets is kept from the first of the pool's sets after the studied one, and from
    that one where no other has it: what is added to a studied set is usually its better source. Its label may then
    stand for what every set's label allows: `akiec` here and `actinic keratosis` there leave the latter.

    Args:
        pooled: labelled pictures of a pool.
        believed: (N,), the diagnoses that each label may stand for.

    Returns:
        M photographs, in row order, and (M,) what each may be.

    Raises:
        DataError: two sets contradict each other on a photograph.
    """
    order = list(dict.fromkeys(pooled.column("source")))
    rank = {source: place for place, source in enumerate([*order[1:], order[0]])}
    ids, sources = pooled.column("image_id"), pooled.column("source")
    numbers = [number or f"{ids[row]}" for row, number in enumerate(_archive_numbers(pooled))]
    kept: dict[str, int] = {}
    allowed: dict[str, frozenset[str]] = {}
    for row, number in enumerate(numbers):
        if number not in kept or rank[sources[row]] < rank[sources[kept[number]]]:
            kept[number] = row
        allowed[number] = allowed.get(number, believed[row]) & believed[row]
        if not allowed[number]:
            paths = pooled.column("path")
            raise DataError(
                f"{paths[row]} and {paths[kept[number]]} are one photograph with labels that exclude each other."
            )
    rows = sorted(kept.values())
    mask = np.zeros(len(pooled), dtype=np.bool_)
    mask[rows] = True
    return pooled.where(mask), [allowed[numbers[row]] for row in rows]

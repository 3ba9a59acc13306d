"""Duplicates: which rows of a set are one picture, or pictures of one lesion.

Comes in: an indexed Manifest, and perhaps another set that may hold the same pictures. Goes out: `Duplicates`,
groups of rows by ever weaker evidence. Opens no picture and judges no label: that is `resolve`'s part.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermalert.intake.fingerprint import hashes_to_array
from dermalert.intake.manifest import Manifest
from dermalert.intake.neighbours import (
    NEAR_RADIUS,
    Pairs,
    altered_pairs,
    groups_of,
    near_pairs,
    near_pairs_between,
    united,
)
from dermalert.intake.samelesion import SameLesion

# "name(1).jpg", "name (2).jpg", "name - Copy.jpg": what file managers and browsers write.
_COPY_NAME = re.compile(r"(\s?\(\d+\)|[ _-]+copy(\s?\(?\d+\)?)?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Duplicates:
    """Rows that belong together.

    Attributes:
        exact: groups of byte-identical rows, each sorted, largest evidence first.
        near: pairs of rows with nearly the same picture, upright or altered, and the distance of their hashes;
            identical ones left out.
        matches: rows of this set and of the other that show the same picture; `first` is ours.
        picture_group: int64 (N,), rows that are one picture share a number.
        known_group: int64 (N,), rows of one lesion or patient by copies, tables or the other set.
        suspected: pairs that seem to show one lesion and are not in one known group.
        lesion_group: int64 (N,), the known groups joined by the suspected pairs: what a split must not part.
        copy_names: rows whose file name says that they are a copy.
    """

    exact: tuple[tuple[int, ...], ...]
    near: Pairs
    matches: Pairs
    picture_group: NDArray[np.int64]
    known_group: NDArray[np.int64]
    suspected: SameLesion
    lesion_group: NDArray[np.int64]
    copy_names: tuple[int, ...]


def find(
    manifest: Manifest,
    against: Manifest | None = None,
    *,
    altered: NDArray[np.uint64] | None = None,
    suspected: SameLesion | None = None,
    radius: int = NEAR_RADIUS,
) -> Duplicates:
    """All duplicates of `manifest` within itself, and the lesions that `against` knows of it.

    A lesion of the other set that two of our pictures match joins them: that is how several photographs of
    one lesion are found for sure in a set that has no lesion numbers. `suspected` pairs join groups too, and so do
    copies that were turned, mirrored or trimmed where the hashes `altered` are known, as `Index` has them.
    """
    n = len(manifest)
    hashes = hashes_to_array(manifest.column("dhash"))
    pairs = near_pairs(hashes, radius=radius)
    if altered is not None:
        pairs = united(pairs, altered_pairs(hashes, altered))
    sha = manifest.column("sha256")
    exact = rows_sharing(sha)
    differ = np.array([sha[i] != sha[j] for i, j in zip(pairs.first, pairs.second, strict=True)], dtype=bool)
    near = Pairs(pairs.first[differ], pairs.second[differ], pairs.distance[differ])
    picture_edges = [(pairs.first, pairs.second), edges_of(exact)]
    matches = _matches(hashes, against, radius)
    lesion_edges = [*picture_edges]
    for name in ("lesion_id", "patient_id"):
        lesion_edges.append(edges_of(rows_sharing(manifest.column(name))))
    if against is not None:
        lesion_edges.append(edges_of(_known_lesions(matches, against)))
    known = _joined(n, lesion_edges)
    suspected = _unknown(suspected, known)
    return Duplicates(
        exact=exact,
        near=near,
        matches=matches,
        picture_group=_joined(n, picture_edges),
        known_group=known,
        suspected=suspected,
        lesion_group=_joined(n, [*lesion_edges, (suspected.first, suspected.second)]),
        copy_names=tuple(i for i, path in enumerate(manifest.column("path")) if _is_copy_name(path)),
    )


def _unknown(suspected: SameLesion | None, known: NDArray[np.int64]) -> SameLesion:
    """The suspected pairs that are not of one known group."""
    if suspected is None:
        return SameLesion(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    new = known[suspected.first] != known[suspected.second]
    return SameLesion(suspected.first[new], suspected.second[new], suspected.score[new])


def _is_copy_name(path: str) -> bool:
    stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return _COPY_NAME.search(stem) is not None


def rows_sharing(keys: Sequence[Hashable]) -> tuple[tuple[int, ...], ...]:
    """Rows that share a key, for keys that stand more than once; None is no key."""
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        if key is not None:
            rows[key].append(row)
    return tuple(tuple(group) for group in rows.values() if len(group) > 1)


def edges_of(groups: Iterable[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """int64 (E,) twice: pairs that join each group, from its first row to each other one."""
    pairs = [(group[0], other) for group in groups for other in group[1:]]
    first, second = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)


def _joined(n: int, edges: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> NDArray[np.int64]:
    return groups_of(n, np.concatenate([first for first, _ in edges]), np.concatenate([second for _, second in edges]))


def _matches(hashes: NDArray[np.uint64], against: Manifest | None, radius: int) -> Pairs:
    if against is None:
        none = np.empty(0, dtype=np.int64)
        return Pairs(none, none, np.empty(0, dtype=np.uint16))
    return near_pairs_between(hashes, hashes_to_array(against.column("dhash")), radius=radius)


def _known_lesions(matches: Pairs, against: Manifest) -> list[list[int]]:
    """Our rows by the other set's lesion (or picture, where it names none), for those with several."""
    lesions, patients = against.column("lesion_id"), against.column("patient_id")
    rows: dict[str, list[int]] = defaultdict(list)
    for ours, theirs in zip(matches.first.tolist(), matches.second.tolist(), strict=True):
        rows[f"lesion {lesions[theirs]}" if lesions[theirs] else f"picture {theirs}"].append(ours)
        if patients[theirs]:
            rows[f"patient {patients[theirs]}"].append(ours)
    return [group for group in rows.values() if len(group) > 1]

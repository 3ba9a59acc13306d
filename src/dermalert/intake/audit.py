"""The audit: what is wrong with a data set, before a model is trained on it.

Comes in: an `Index`, and perhaps the Manifest of another set. Goes out: an `AuditReport` and the manifest with groups
and a proposed resolution a row. It changes no file, and it opens none: `audit_page` shows the pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermalert.errors import RefusedFile
from dermalert.intake.duplicates import Duplicates, find
from dermalert.intake.index import Index
from dermalert.intake.manifest import Manifest
from dermalert.intake.resolve import resolve
from dermalert.intake.samelesion import SameLesion
from dermalert.intake.shift import Shift, tell_apart
from dermalert.intake.statistics import STATISTICS

UNLABELLED = "(no diagnosis)"


@dataclass(frozen=True)
class Group:
    """Rows that show one picture or one lesion.

    Attributes:
        rows: row numbers in the manifest.
        labels: the different diagnoses they stand under.
        parts: the different parts (train, test) they stand in.
        contradictory: two of the labels cannot both be right.
    """

    rows: tuple[int, ...]
    labels: tuple[str, ...]
    parts: tuple[str, ...]
    contradictory: bool

    @property
    def leaks(self) -> bool:
        """Whether it stands in more than one part."""
        return len(self.parts) > 1


@dataclass(frozen=True)
class Balance:
    """How unequal the classes are.

    Attributes:
        counts: pictures of each diagnosis, largest first.
        ratio: largest over smallest.
        majority: the largest diagnosis.
        majority_accuracy: what a model reaches that calls every picture so.
    """

    counts: dict[str, int]
    ratio: float
    majority: str
    majority_accuracy: float


@dataclass(frozen=True)
class AuditReport:
    """Everything the audit found. Row numbers are those of `manifest`.

    Attributes:
        manifest: with groups, resolutions and reasons filled.
        statistics: as the index has them.
        duplicates: the evidence behind the groups.
        identical: byte-identical groups.
        similar: groups of one picture that are not all byte-identical.
        lesions: groups of several pictures known to be of one lesion or patient, beyond one picture.
        suspected: pairs that seem to show one lesion, the surest first, as `duplicates.suspected`.
        leaked: test rows whose picture, lesion or patient is known to stand in training or validation too.
        perhaps_leaked: further test rows that are suspected of it.
        balance: of the labelled pictures.
        shift: Train against Test, where the set has both.
    """

    manifest: Manifest
    against: Manifest | None
    kind: str
    statistics: np.ndarray[Any, Any]
    duplicates: Duplicates
    identical: tuple[Group, ...]
    similar: tuple[Group, ...]
    lesions: tuple[Group, ...]
    suspected: tuple[Group, ...]
    leaked: tuple[int, ...]
    perhaps_leaked: tuple[int, ...]
    balance: Balance | None
    shift: Shift | None
    refused: tuple[RefusedFile, ...]
    notes: tuple[str, ...]


def audit(
    index: Index,
    *,
    kind: str,
    against: Manifest | None = None,
    suspected: SameLesion | None = None,
    seed: int = 0,
) -> AuditReport:
    """Audits an indexed set.

    Args:
        kind: what kind of source it is, as `Listing.kind`.
        against: another set that may hold the same pictures or lesions.
        suspected: pairs of rows that look like one lesion.
        seed: of the folds of the shift check.
    """
    duplicates = find(index.manifest, against, altered=index.altered, suspected=suspected)
    resolutions = resolve(index.manifest, duplicates, against)
    manifest = index.manifest.with_columns(
        duplicate_group=_shared_only(duplicates.picture_group),
        group=duplicates.lesion_group,
        diagnosis=[r.label.name if r.label else None for r in resolutions],
        resolution=[r.action for r in resolutions],
        reason=[r.reason for r in resolutions],
    )
    describe = _Describer(index.manifest)
    sha = index.manifest.column("sha256")
    pictures = [describe(rows) for rows in _members(duplicates.picture_group)]
    lesions = [describe(rows) for rows in _members(duplicates.known_group)]
    pairs = zip(duplicates.suspected.first.tolist(), duplicates.suspected.second.tolist(), strict=True)
    leaked = _leaked(index.manifest, duplicates.known_group)
    return AuditReport(
        manifest=manifest,
        against=against,
        kind=kind,
        statistics=index.statistics,
        duplicates=duplicates,
        identical=tuple(describe(rows) for rows in duplicates.exact),
        similar=tuple(group for group in pictures if len({sha[row] for row in group.rows}) > 1),
        lesions=tuple(g for g in lesions if len({duplicates.picture_group[row] for row in g.rows}) > 1),
        suspected=tuple(describe(pair) for pair in pairs),
        leaked=leaked,
        perhaps_leaked=tuple(sorted(set(_leaked(index.manifest, duplicates.lesion_group)) - set(leaked))),
        balance=_balance(index.manifest),
        shift=_shift(index, duplicates, seed),
        refused=index.refused,
        notes=index.notes,
    )


class _Describer:
    """Makes a `Group` of rows."""

    def __init__(self, manifest: Manifest) -> None:
        self._labels = manifest.labels()
        self._parts = manifest.column("given_split")

    def __call__(self, rows: Sequence[int]) -> Group:
        labels = {label for row in rows if (label := self._labels[row]) is not None}
        return Group(
            tuple(int(row) for row in rows),
            tuple(sorted(label.name for label in labels)),
            tuple(sorted({part for row in rows if (part := self._parts[row])})),
            any(a.contradicts(b) for a in labels for b in labels),
        )


def _members(groups: np.ndarray[Any, Any]) -> list[tuple[int, ...]]:
    """Rows of each group that has several."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return [tuple(rows.tolist()) for rows in np.split(order, starts[1:]) if len(rows) > 1]


def _shared_only(groups: np.ndarray[Any, Any]) -> list[int | None]:
    sizes = np.bincount(groups)
    return [int(group) if sizes[group] > 1 else None for group in groups]


def _leaked(manifest: Manifest, groups: np.ndarray[Any, Any]) -> tuple[int, ...]:
    parts = np.array([part or "" for part in manifest.column("given_split")])
    known = np.isin(groups, groups[(parts == "train") | (parts == "validation")])
    return tuple(np.flatnonzero((parts == "test") & known).tolist())


def _balance(manifest: Manifest) -> Balance | None:
    counts = Counter(word for word in manifest.column("diagnosis") if word is not None)
    if len(counts) < 2:
        return None
    ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    (majority, most), fewest = next(iter(ordered.items())), min(ordered.values())
    return Balance(ordered, most / fewest, majority, most / sum(ordered.values()))


def _shift(index: Index, duplicates: Duplicates, seed: int) -> Shift | None:
    parts = np.array([part or "" for part in index.manifest.column("given_split")])
    if not ((parts == "test").any() and (parts == "train").any()):
        return None
    words = [word or UNLABELLED for word in index.manifest.column("diagnosis")]
    rows = np.isin(parts, ("train", "test"))
    classes = np.unique(words, return_inverse=True)[1].astype(np.int64)
    groups = duplicates.lesion_group
    return tell_apart(
        index.statistics[rows], parts[rows] == "test", classes[rows], groups[rows], names=("Train", "Test"), seed=seed
    )


def medians_by_class(report: AuditReport) -> dict[str, dict[str, float]]:
    """The median of each picture statistic, for each diagnosis."""
    words = np.array([word or UNLABELLED for word in report.manifest.column("diagnosis")])
    return {
        word: dict(zip(STATISTICS, map(float, np.median(report.statistics[words == word], axis=0)), strict=True))
        for word in sorted(set(words.tolist()))
    }

"""Resolutions: what to do with each picture whose label or place in the set is in doubt.

Comes in: a Manifest and its `Duplicates`. Goes out: a `Resolution` a row: keep, drop or relabel, with the reason.
A label is changed only where the pictures' own source decides it; two labels that contradict each other with
nothing to decide between them are both dropped. Nothing is deleted: the manifest carries the proposal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dermalert.intake.duplicates import Duplicates
from dermalert.intake.manifest import Manifest
from dermalert.taxonomy import NAMES, Label

KEEP, DROP, RELABEL = "keep", "drop", "relabel"


@dataclass(frozen=True)
class Resolution:
    """A proposal for one row. `label` is the one to train on; `reason` is None where there is nothing to say."""

    action: str
    label: Label | None
    reason: str | None = None


@dataclass(frozen=True)
class _Files:
    """What decides which of several copies is kept, one entry a row."""

    part: Sequence[str | None]
    path: Sequence[str]
    pixels: Sequence[int]
    copies: frozenset[int]

    @classmethod
    def of(cls, manifest: Manifest, duplicates: Duplicates) -> _Files:
        sides = zip(manifest.column("width"), manifest.column("height"), strict=True)
        pixels = [width * height for width, height in sides]
        names = frozenset(duplicates.copy_names)
        return cls(manifest.column("given_split"), manifest.column("path"), pixels, names)


def resolve(manifest: Manifest, duplicates: Duplicates, against: Manifest | None = None) -> list[Resolution]:
    """One resolution a row, in row order."""
    labels = manifest.labels()
    evidence = _evidence(duplicates, against)
    files = _Files.of(manifest, duplicates)
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(duplicates.picture_group.tolist()):
        members[group].append(row)
    resolutions: dict[int, Resolution] = {}
    for rows in members.values():
        resolutions |= _resolve_picture(rows, files, labels, evidence)
    return [resolutions[row] for row in range(len(manifest))]


Evidence = tuple[Label, str]  # another set's label of the same picture, and that set's name


def _evidence(duplicates: Duplicates, against: Manifest | None) -> dict[int, list[Evidence]]:
    """For each row of ours that the other set shows too: its labels there."""
    found: dict[int, list[Evidence]] = defaultdict(list)
    if against is None:
        return found
    labels, sources = against.labels(), against.column("source")
    for ours, theirs in zip(duplicates.matches.first.tolist(), duplicates.matches.second.tolist(), strict=True):
        label = labels[theirs]
        if label is not None:
            found[ours].append((label, str(sources[theirs])))
    return found


def _proof(found: Sequence[Evidence]) -> Evidence | None:
    """The most exact of the other set's labels; None where they contradict each other and so prove nothing."""
    labels = {label for label, _ in found}
    if not found or any(a.contradicts(b) for a in labels for b in labels):
        return None
    return min(found, key=lambda one: len(one[0].stands_for))


def _resolve_picture(
    rows: Sequence[int],
    files: _Files,
    labels: Sequence[Label | None],
    evidence: Mapping[int, Sequence[Evidence]],
) -> dict[int, Resolution]:
    """The rows that are one picture."""
    said = [label for row in rows if (label := labels[row]) is not None]
    proof = _proof([one for row in rows for one in evidence.get(row, ())])
    disputed = any(a.contradicts(b) for a in said for b in said) or (
        proof is not None and any(label.contradicts(proof[0]) for label in said)
    )
    if not disputed:
        return _keep_one_a_part(rows, files, labels)
    words = " and ".join(sorted({label.name for label in said}))
    decided = _decided(said, proof)
    if decided is None:
        told = f"; {proof[1]} says {proof[0].name}, which none of them fits" if proof else ", and nothing decides"
        return {row: Resolution(DROP, labels[row], f"One picture labelled {words}{told}.") for row in rows}
    why = f"One picture labelled {words}; {proof[1]} says {proof[0].name}, so {decided.name}." if proof else ""
    right = [row for row in rows if labels[row] == decided]
    kept = _keep_one_a_part(right or rows, files, labels)
    kept = {row: _decided_row(resolution, decided, labels[row], why) for row, resolution in kept.items()}
    return {
        row: kept.get(row) or Resolution(DROP, labels[row], why + " This copy has the other label.") for row in rows
    }


def _decided_row(resolution: Resolution, decided: Label, given: Label | None, why: str) -> Resolution:
    if resolution.action == DROP or given is None:
        return resolution
    return Resolution(KEEP if given == decided else RELABEL, decided, why)


def _decided(said: Sequence[Label], proof: Evidence | None) -> Label | None:
    """The one label that the evidence leaves: the source's own if it is exact, else the only one that fits it."""
    if proof is None:
        return None
    if proof[0].is_exact and proof[0].name in NAMES:
        return proof[0]
    fitting = {label for label in said if not label.contradicts(proof[0])}
    return fitting.pop() if len(fitting) == 1 else None


def _keep_one_a_part(rows: Sequence[int], files: _Files, labels: Sequence[Label | None]) -> dict[int, Resolution]:
    """Of the copies within one part (Train, Test) the best is kept; copies across parts stay, and are told of.

    The best has the most exact label, which its copies would take with them, then an original's name, then size.
    """
    parts: dict[str | None, list[int]] = defaultdict(list)
    for row in rows:
        parts[files.part[row]].append(row)
    paths = files.path
    resolutions = {}
    for part, same in parts.items():
        best = min(same, key=lambda row: (_vagueness(labels[row]), row in files.copies, -files.pixels[row], paths[row]))
        elsewhere = [paths[other[0]] for name, other in parts.items() if name != part]
        reason = f"The same picture stands in another part too: {', '.join(elsewhere)}." if elsewhere else None
        resolutions[best] = Resolution(KEEP, labels[best], reason)
        for row in same:
            if row != best:
                resolutions[row] = Resolution(DROP, labels[row], f"A copy of {paths[best]}.")
    return resolutions


def _vagueness(label: Label | None) -> int:
    return len(label.stands_for) if label is not None else len(NAMES)

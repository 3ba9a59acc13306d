"""`audit.html`: what the audit found, with the pictures side by side, for a reader who is no engineer.

Comes in: an `AuditReport`. Goes out: one self-contained page. It finds nothing: every number stands in `audit.json`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert import page
from dermalert.errors import RefusedFile
from dermalert.intake.audit import AuditReport, Group
from dermalert.intake.audit_json import as_json
from dermalert.intake.showing import pixels_by_id
from dermalert.intake.statistics import STATISTICS
from dermalert.page.page import count, decimal, percent

SHOWN_GROUPS = 24
SHOWN_ROWS = 200
IN_A_ROW = 6
THUMBNAIL = 128

# What a statistic tells a reader, and how it is written.
_MEANINGS = {
    "sharpness": "fine detail; low is blurred",
    "exposure": "mean brightness, 0 to 255",
    "contrast": "spread of brightness",
    "underexposed": "share of pixels nearly black",
    "overexposed": "share of pixels burnt out",
    "vignette": "share of dark corners",
    "border": "share taken by a black frame",
    "hair": "share of pixels on thin dark lines",
    "ruler": "evenly spaced tick marks, 0 to 1",
    "saturation": "strength of colour, 0 to 1",
}


@dataclass(frozen=True)
class _Shown:
    """A group as the page shows it."""

    heading: str
    pictures: list[page.Picture]
    more: int


def write_page(report: AuditReport, file: Path, *, command: str, made: datetime) -> None:
    """Writes the page; `command` and `made` stand in its footer."""
    show = _Shower(report)
    found = as_json(report)
    html = page.render(
        "intake/audit.html.j2",
        title=f"Audit of {found['data']['source']}",
        command=command,
        made=made,
        found=found,
        tiles=_tiles(found),
        conflicting=show.groups([g for g in report.identical if g.contradictory]),
        identical=show.groups([g for g in report.identical if not g.contradictory]),
        similar=show.groups(sorted(report.similar, key=lambda g: (not g.contradictory, not g.leaks))),
        lesions=show.groups(sorted(report.lesions, key=lambda g: not g.leaks)),
        suspected=show.groups(sorted(report.suspected, key=lambda g: (not g.leaks, not g.contradictory))),
        leaked=show.rows(report.leaked),
        matches=show.matches(),
        most_shown=SHOWN_GROUPS,
        distribution=_distribution(report),
        legend=[page.Legend(n, part, filled=True) for n, part in enumerate(_parts(report), start=1)],
        class_rows=_class_rows(report),
        statistics=_statistics_rows(report),
        shift=_shift(report),
        refused=[[one.path, one.reason, one.mend] for one in report.refused[:SHOWN_ROWS]],
        resolutions=_resolutions(found),
        resolutions_left=max(0, len(found["resolutions"]["rows"]) - SHOWN_ROWS),
    )
    page.write(file, html)


class _Shower:
    """Makes captioned thumbnails of rows."""

    def __init__(self, report: AuditReport) -> None:
        manifest = report.manifest
        self._report = report
        self._paths = manifest.column("path")
        self._given = manifest.column("given_label")
        self._parts = manifest.column("given_split")
        self._actions = manifest.column("resolution")
        self._pixels = pixels_by_id(manifest)

    def groups(self, groups: Sequence[Group]) -> list[_Shown]:
        shown = []
        for group in groups[:SHOWN_GROUPS]:
            heading = " / ".join(group.labels) or "no label"
            if group.leaks:
                heading += f", in {' and '.join(part.capitalize() for part in group.parts)}"
            rows = group.rows[:IN_A_ROW]
            shown.append(_Shown(heading, [self.row(row) for row in rows], len(group.rows) - len(rows)))
        return shown

    def rows(self, rows: Sequence[int]) -> list[_Shown]:
        """Test pictures, each beside what Train holds of its group."""
        groups = self._report.duplicates.known_group
        shown = []
        for row in rows[:SHOWN_GROUPS]:
            mates = [int(i) for i in np.flatnonzero(groups == groups[row]) if i != row and self._parts[i] != "test"]
            pictures = [self.row(i) for i in (row, *mates[: IN_A_ROW - 1])]
            heading = f"{self._given[row] or 'no label'}: {1 + len(mates)} pictures of one lesion"
            shown.append(_Shown(heading, pictures, max(0, len(mates) - IN_A_ROW + 1)))
        return shown

    def matches(self) -> list[_Shown]:
        """Our pictures beside the other set's, where the labels differ first."""
        report = self._report
        if report.against is None:
            return []
        matches, labels, theirs = report.duplicates.matches, report.manifest.labels(), report.against.labels()
        pixels = pixels_by_id(report.against)
        paths, words = report.against.column("path"), report.against.column("diagnosis")
        pairs = list(zip(matches.first.tolist(), matches.second.tolist(), strict=True))

        def agrees(pair: tuple[int, int]) -> bool:
            ours, other = labels[pair[0]], theirs[pair[1]]
            return ours is None or other is None or not ours.contradicts(other)

        shown = []
        for i, j in sorted(pairs, key=agrees)[:SHOWN_GROUPS]:
            other = _picture(pixels, paths[j], f"Other set: {words[j] or 'no label'}", "")
            heading = f"{self._given[i] or 'no label'} / {words[j] or 'no label'}"
            shown.append(_Shown(heading, [self.row(i), other], 0))
        return shown

    def row(self, row: int) -> page.Picture:
        part = (self._parts[row] or "").capitalize()
        caption = self._given[row] or "no label"
        note = f"proposed: {self._actions[row]}"
        return _picture(self._pixels, self._paths[row], f"{part}: {caption}" if part else caption, note)


def _picture(pixels: Callable[[str], NDArray[np.uint8]], image_id: str, caption: str, note: str) -> page.Picture:
    try:
        shown = pixels(image_id)
    except RefusedFile as error:
        return page.Picture("", f"Picture not shown: {error.reason}", caption, note, THUMBNAIL, THUMBNAIL, image_id)
    alt = f"Dermoscopic picture, {caption}"
    return page.picture(shown, alt=alt, caption=caption, note=note, name=image_id, edge=THUMBNAIL)


def _tiles(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    data, identical = found["data"], found["identical"]
    tiles = [
        ("Pictures", count(data["pictures"]), f"{count(data['refused'])} files refused"),
        (
            "Groups of identical files",
            count(identical["groups"]),
            f"{identical['contradictory']} contradictory",
        ),
    ]
    if leak := found["leak"]:
        more = f"; {count(leak['suspected'])} more suspected" if leak["suspected"] else ""
        tiles.append(
            ("Test pictures that Train knows", count(leak["leaked"]), f"of {count(leak['test_pictures'])}{more}")
        )
    if (shift := found["shift"]) and shift["auc"]["value"] is not None:
        auc = shift["auc"]
        tiles.append(
            ("Train told from Test (AUC)", decimal(auc["value"]), f"{auc['low']:.2f} to {auc['high']:.2f}; 0.5 is best")
        )
    return tiles


def _parts(report: AuditReport) -> list[str]:
    found = {part or "all" for part in report.manifest.column("given_split")}
    return [part for part in ("all", "train", "validation", "test") if part in found]


def _counts(report: AuditReport) -> dict[str, dict[str, int]]:
    parts = [part or "all" for part in report.manifest.column("given_split")]
    words = [str(given or "no label") for given in report.manifest.column("given_label")]
    counted = Counter(zip(words, parts, strict=True))
    return {word: {part: counted[word, part] for part in _parts(report)} for word in sorted(set(words))}


def _distribution(report: AuditReport) -> str:
    return page.class_distribution(_counts(report))


def _class_rows(report: AuditReport) -> list[list[str]]:
    counts = _counts(report)
    total = sum(sum(parts.values()) for parts in counts.values())
    return [
        [word, *(count(number) for number in parts.values()), percent(sum(parts.values()) / total, 1)]
        for word, parts in counts.items()
    ]


def _statistics_rows(report: AuditReport) -> list[list[str]]:
    quartiles = np.percentile(report.statistics, [25, 50, 75], axis=0).T
    rows = []
    for name, (low, middle, high) in zip(STATISTICS, quartiles.tolist(), strict=True):
        digits = 3 if high < 2 else 0
        rows.append([name, _MEANINGS.get(name, ""), *(f"{value:.{digits}f}" for value in (low, middle, high))])
    return rows


@dataclass(frozen=True)
class _ShiftShown:
    verdict: str
    rows: list[list[str]]


def _shift(report: AuditReport) -> _ShiftShown | None:
    shift = report.shift
    if shift is None:
        return None
    if math.isnan(shift.auc.value):
        return _ShiftShown(f"Cannot be computed. {shift.auc.why or ''}", [])
    if shift.auc.low <= 0.55:
        verdict = "Train and Test are hard to tell apart: no sign that they come from other sources."
    elif shift.auc.value < 0.75:
        verdict = "Train and Test differ somewhat: a test score may be lower for reasons that are not the lesions."
    else:
        verdict = "Train and Test are plainly different collections: expect a test score far from validation."
    rows = [
        [one.statistic, decimal(one.auc), f"{one.first_median:.3g}", f"{one.second_median:.3g}"]
        for one in shift.telling[:6]
    ]
    return _ShiftShown(verdict, rows)


def _resolutions(found: dict[str, Any]) -> list[list[str]]:
    return [
        [row["path"], row["action"], row["given"] or "", row["diagnosis"] or "", row["reason"]]
        for row in found["resolutions"]["rows"][:SHOWN_ROWS]
    ]

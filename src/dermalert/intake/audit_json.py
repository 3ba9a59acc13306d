"""The stable JSON form of an audit: docs/formats.md describes it field by field.

Comes in: an `AuditReport`. Goes out: a plain dict, row numbers turned into paths. It finds nothing new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

import dermalert
from dermalert.errors import in_utf8
from dermalert.intake.audit import AuditReport, Group
from dermalert.intake.neighbours import NEAR_RADIUS
from dermalert.intake.samelesion import SUSPECTED
from dermalert.intake.statistics import STATISTICS

FORMAT_VERSION = 1
QUARTILES = ("least", "lower_quartile", "median", "upper_quartile", "most")


def as_json(report: AuditReport) -> dict[str, Any]:
    """`audit.json`, format 1."""
    manifest = report.manifest
    paths = manifest.column("path")
    resolved = [manifest.column(name) for name in ("resolution", "given_label", "diagnosis", "reason")]
    return {
        "format": FORMAT_VERSION,
        "dermalert": dermalert.__version__,
        "data": {
            "source": manifest.column("source")[0],
            "kind": report.kind,
            "pictures": len(manifest),
            "refused": len(report.refused),
            "parts": _counted(part or "none" for part in manifest.column("given_split")),
            "formats": _counted(manifest.column("format")),
            "notes": list(report.notes),
        },
        "refused": [
            {"path": in_utf8(one.path), "code": one.code, "reason": one.reason, "mend": one.mend}
            for one in report.refused
        ],
        "balance": vars(report.balance) if report.balance else None,
        "identical": _groups(report.identical, paths),
        "similar": {"radius_bits": NEAR_RADIUS, **_groups(report.similar, paths)},
        "lesions": _groups(report.lesions, paths),
        "suspected": _suspected(report, paths),
        "copy_names": [paths[row] for row in report.duplicates.copy_names],
        "leak": _leak(report, paths),
        "against": _against(report, paths),
        "statistics": _statistics(report),
        "shift": report.shift.to_json() if report.shift else None,
        "resolutions": {
            "counts": _counted(manifest.column("resolution")),
            "rows": [
                {"path": path, "action": action, "given": given, "diagnosis": diagnosis, "reason": reason}
                for path, action, given, diagnosis, reason in zip(paths, *resolved, strict=True)
                if reason is not None
            ],
        },
    }


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def _groups(groups: tuple[Group, ...], paths: list[str]) -> dict[str, Any]:
    return {
        "groups": len(groups),
        "pictures": sum(len(group.rows) for group in groups),
        "contradictory": sum(group.contradictory for group in groups),
        "across_parts": sum(group.leaks for group in groups),
        "list": [
            {
                "paths": [paths[row] for row in group.rows],
                "labels": list(group.labels),
                "parts": list(group.parts),
                "contradictory": group.contradictory,
            }
            for group in groups
        ],
    }


def _leak(report: AuditReport, paths: list[str]) -> dict[str, Any] | None:
    tested = sum(part == "test" for part in report.manifest.column("given_split"))
    if not tested:
        return None
    return {
        "test_pictures": tested,
        "leaked": len(report.leaked),
        "list": [paths[row] for row in report.leaked],
        "suspected": len(report.perhaps_leaked),
        "suspected_list": [paths[row] for row in report.perhaps_leaked],
    }


def _suspected(report: AuditReport, paths: list[str]) -> dict[str, Any]:
    found = _groups(report.suspected, paths)
    for pair, score in zip(found["list"], report.duplicates.suspected.score.tolist(), strict=True):
        pair["log_odds"] = round(score, 3)
    return {"log_odds_from": SUSPECTED, **found}


def _against(report: AuditReport, paths: list[str]) -> dict[str, Any] | None:
    if report.against is None:
        return None
    matches, theirs = report.duplicates.matches, report.against.column("path")
    labels, other_labels = report.manifest.column("given_label"), report.against.column("diagnosis")
    lesions = report.against.column("lesion_id")
    pairs = zip(matches.first.tolist(), matches.second.tolist(), matches.distance.tolist(), strict=True)
    return {
        "source": report.against.column("source")[0],
        "pictures": len(report.against),
        "matched": len(np.unique(matches.first)),
        "list": [
            {
                "path": paths[i],
                "theirs": theirs[j],
                "bits": bits,
                "label": labels[i],
                "their_label": other_labels[j],
                "their_lesion": lesions[j],
            }
            for i, j, bits in pairs
        ],
    }


def _statistics(report: AuditReport) -> dict[str, Any]:
    quartiles = np.percentile(report.statistics, [0, 25, 50, 75, 100], axis=0)
    return {
        name: dict(zip(QUARTILES, map(float, column), strict=True))
        for name, column in zip(STATISTICS, quartiles.T, strict=True)
    }

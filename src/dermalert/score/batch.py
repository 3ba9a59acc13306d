"""Scoring many pictures: decoded on threads, scored in batches, findings in the order of the pictures.

Comes in: paths and a bundle. Goes out: a stream of `Finding`, one a path, whatever the file was.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dermalert.bundle.format import Bundle
from dermalert.errors import RefusedFile, in_utf8
from dermalert.intake.decode import DEFAULT_LIMITS, Limits, Picture, load
from dermalert.intake.manifest import Manifest
from dermalert.intake.overlap import in_order
from dermalert.intake.sources import walk
from dermalert.judge.calibration import at_prevalence
from dermalert.judge.operating import OperatingPoint
from dermalert.score import gate
from dermalert.score.engine import Engine
from dermalert.taxonomy import MALIGNANT, MELANOMA

BATCH = 32

Loaded: TypeAlias = tuple[str, Picture | RefusedFile]


@dataclass(frozen=True)
class Finding:
    """What the model says of one picture.

    Attributes:
        path: the file, as given.
        status: "scored", "rejected" where the gate refused it, or "error" where the file could not be used.
        probabilities: (C,) calibrated, in the order of the bundle's classes, and adjusted to the prevalence where one
            was given; empty where not scored.
        melanoma: calibrated probability of melanoma; None where not scored.
        malignant: summed over the malignant diagnoses.
        alert: "refer", or "none" below the operating point; None where not scored or no point could be chosen. A
            prevalence changes no alert: the threshold is one on the probability as calibrated.
        diagnosis: the likeliest class.
        message: why it was not scored; of a scored picture, what the gate warns of.
        possible: the conformal set, likeliest first: the categories that cannot be ruled out; no prevalence changes it.
            Empty where not scored, or where the bundle has none.
        ood: how unlike dermoscopic pictures it is, rejected from 1.0; None where the bundle has no gate.
        quality: 0, rejected, to 1, nothing to complain of; likewise.
    """

    path: str
    status: str
    probabilities: tuple[float, ...] = ()
    melanoma: float | None = None
    malignant: float | None = None
    alert: str | None = None
    diagnosis: str | None = None
    message: str = ""
    possible: tuple[str, ...] = ()
    ood: float | None = None
    quality: float | None = None


def pictures_at(paths: Iterable[Path]) -> Iterator[Path | RefusedFile]:
    """The picture files that the arguments mean: pictures, folders (walked) and manifests (*.parquet)."""
    for path in paths:
        if path.is_dir():
            for found in walk(path):
                yield path / found if isinstance(found, str) else found
        elif path.suffix.lower() == ".parquet":
            yield from Manifest.read(path).paths()
        else:
            yield path


def score(
    pictures: Iterable[Path | RefusedFile],
    bundle: Bundle,
    *,
    workers: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    point: str | None = None,
    prevalence: float | None = None,
) -> Iterator[Finding]:
    """One finding a picture, in order. A file that cannot be used gives an error finding and costs nothing else.

    Args:
        point: the name of the bundle's operating point that decides on alerts; by default its first.
        prevalence: the share of melanomas among the lesions there; by default the probabilities are as calibrated.

    Raises:
        BundleError: the bundle's graph cannot be used, or it has no such point.
        DataError: the probabilities cannot be adjusted to the prevalence.
    """
    judge = Judge(bundle, bundle.operating_point if point is None else bundle.point(point), prevalence)
    engine = Engine(bundle)
    loaded = in_order(partial(_load, size=bundle.size, limits=limits), pictures, workers)
    return _findings(engine, judge, loaded)


def _findings(engine: Engine, judge: Judge, loaded: Iterator[Loaded]) -> Iterator[Finding]:
    while batch := list(islice(loaded, BATCH)):
        yield from findings_of(engine, judge, batch)


def _load(path: Path | RefusedFile, size: tuple[int, int], limits: Limits) -> Loaded:
    if isinstance(path, RefusedFile):
        return path.path, path
    try:
        return str(path), load(path, size=size, limits=limits)
    except RefusedFile as refusal:
        return str(path), refusal


def findings_of(engine: Engine, judge: Judge, loaded: Sequence[Loaded]) -> list[Finding]:
    """A finding for each of a batch, in order: what every way of scoring many pictures runs, here or on a cluster.

    Args:
        loaded: the name of each, and its picture at the bundle's size or why there is none.

    Raises:
        BundleError: the graph gives what is no number, or the gate is another model's.
    """
    judgements = iter(_judged(engine, judge, [picture for _, picture in loaded if isinstance(picture, Picture)]))
    return [
        Finding(name, "error", message=f"{picture.reason}. {picture.mend}")
        if isinstance(picture, RefusedFile)
        else replace(next(judgements), path=name)
        for name, picture in loaded
    ]


def _judged(engine: Engine, judge: Judge, pictures: list[Picture]) -> list[Finding]:
    """A finding for each picture, without its path: the graph is run once for the network and the gate."""
    if not pictures:
        return []
    wanted = gate.FEATURES if engine.bundle.gate else ()
    found = engine.run(np.stack([picture.pixels for picture in pictures]), "logits", *wanted)
    measured = pictures if wanted else []
    return judged(judge, found, [gate.measure_quality(p.pixels, p.info.width, p.info.height) for p in measured])


def judged(judge: Judge, found: Mapping[str, NDArray[np.float32]], qualities: Sequence[gate.Quality]) -> list[Finding]:
    """A finding for each row of a graph's outputs, without its path.

    Args:
        found: of `Engine.run`: the logits and, of a bundle with a gate, `gate.FEATURES`.
        qualities: of the same pictures; not looked at where the bundle has no gate.

    Raises:
        BundleError: the gate is another model's.
    """
    findings = judge.judge(found["logits"])
    if judge.bundle.gate is None:
        return findings
    return list(map(_gated, findings, gate.judge(judge.bundle.gate, found, qualities)))


def _gated(finding: Finding, verdict: gate.Verdict) -> Finding:
    if verdict.accepted:
        return replace(finding, ood=verdict.ood, quality=verdict.quality, message=verdict.flag)
    return Finding("", "rejected", message=verdict.reason, ood=verdict.ood, quality=verdict.quality)


@dataclass(frozen=True)
class Judge:
    """What is made of a network's logits: everything that a finding says of a picture that was scored.

    Attributes:
        point: decides on alerts; None: none is given.
        prevalence: of melanoma, that probabilities are adjusted to; None: as calibrated.
    """

    bundle: Bundle
    point: OperatingPoint | None
    prevalence: float | None = None

    def judge(self, logits: NDArray[np.float32]) -> list[Finding]:
        """A finding for each row of float32 (N, C), without its path."""
        bundle = self.bundle
        calibrated = bundle.calibration.apply(logits)
        shown = calibrated
        if self.prevalence is not None:
            shown = at_prevalence(calibrated, bundle.classes, melanoma=self.prevalence, reference=bundle.prevalence)
        sets = bundle.conformal.sets(calibrated, bundle.classes) if bundle.conformal else [()] * len(logits)
        return [self._finding(*each) for each in zip(calibrated, shown, sets, strict=True)]

    def _finding(
        self, calibrated: NDArray[np.float64], shown: NDArray[np.float64], possible: tuple[str, ...]
    ) -> Finding:
        named = dict(zip(self.bundle.classes, map(float, shown), strict=True))
        return Finding(
            "",
            "scored",
            tuple(named.values()),
            named.get(MELANOMA),
            sum(value for name, value in named.items() if name in MALIGNANT),
            self._alert(calibrated),
            max(named, key=named.__getitem__),
            possible=possible,
        )

    def _alert(self, calibrated: NDArray[np.float64]) -> str | None:
        if self.point is None:
            return None
        return "refer" if calibrated[self.bundle.classes.index(MELANOMA)] >= self.point.threshold else "none"


COLUMNS_BEFORE = ("path", "status", "melanoma", "malignant", "alert", "diagnosis")
COLUMNS_AFTER = ("ood", "quality", "message", "set")


def row_of(finding: Finding, classes: tuple[str, ...]) -> dict[str, str | float | None]:
    """The columns of the command-line contract, in order, then `set`; `ood` and `quality` are None without a gate."""
    values = finding.probabilities or (None,) * len(classes)
    scores = {f"p_{name.replace(' ', '_')}": value for name, value in zip(classes, values, strict=True)}
    before = {name: getattr(finding, name) for name in COLUMNS_BEFORE} | {"path": in_utf8(finding.path)}
    after = (finding.ood, finding.quality, in_utf8(finding.message), "; ".join(finding.possible))
    return {**before, **scores, **dict(zip(COLUMNS_AFTER, after, strict=True))}


class RowWriter:
    """CSV in UTF-8 that every reader splits alike: a value that holds a carriage return is quoted too.

    Python quotes only the line end that it writes, while other readers end a row at a lone carriage return: a file
    of that name could put a row of its own into the table.
    """

    def __init__(self, stream: TextIO) -> None:
        self._usual = csv.writer(stream, lineterminator="\n")
        self._quoting = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(self, values: Iterable[str | None]) -> None:
        """Writes one row; None is an empty cell."""
        row = [in_utf8(value or "") for value in values]
        writer = self._quoting if any("\r" in value for value in row) else self._usual
        writer.writerow(row)


def write_csv(findings: Iterable[Finding], classes: tuple[str, ...], stream: TextIO) -> Counter[str]:
    """Writes findings as they come, a row each.

    Returns:
        how many pictures there were of each status, and under "refer" how many alerts.
    """
    writer = RowWriter(stream)
    writer.write(row_of(Finding("", ""), classes))
    return _written(findings, lambda finding: writer.write(map(_rounded, row_of(finding, classes).values())))


def write_json(findings: Iterable[Finding], classes: tuple[str, ...], stream: TextIO) -> Counter[str]:
    """As `write_csv`, a JSON object a line."""
    return _written(findings, lambda f: stream.write(json.dumps(row_of(f, classes), ensure_ascii=False) + "\n"))


def _written(findings: Iterable[Finding], write: Callable[[Finding], object]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for finding in findings:
        write(finding)
        counts[finding.status] += 1
        counts["refer"] += finding.alert == "refer"
    return counts


def _rounded(value: str | float | None) -> str | None:
    return f"{value:.6f}" if isinstance(value, float) else value

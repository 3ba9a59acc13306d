"""Scoring many pictures: decoded on threads, scored in batches, findings in the order of the pictures.

Comes in: paths and a bundle. Goes out: a stream of `Finding`, one a path, whatever the file was.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from dermalert.bundle.format import Bundle
from dermalert.errors import RefusedFile, in_utf8
from dermalert.intake.decode import DEFAULT_LIMITS, Limits, Picture, load
from dermalert.intake.index import in_order
from dermalert.intake.manifest import Manifest
from dermalert.intake.sources import walk
from dermalert.score.engine import Engine
from dermalert.taxonomy import MALIGNANT, MELANOMA

BATCH = 32


@dataclass(frozen=True)
class Finding:
    """What the model says of one picture.

    Attributes:
        path: the file, as given.
        status: "scored", or "error" where the file could not be used.
        probabilities: (C,) calibrated, in the order of the bundle's classes; empty where not scored.
        melanoma: calibrated probability of melanoma; None where not scored.
        malignant: summed over the malignant diagnoses.
        alert: "refer", or "none" below the operating point; None where not scored or no point could be chosen.
        diagnosis: the likeliest class.
        message: why it was not scored.
    """

    path: str
    status: str
    probabilities: tuple[float, ...] = ()
    melanoma: float | None = None
    malignant: float | None = None
    alert: str | None = None
    diagnosis: str | None = None
    message: str = ""


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
) -> Iterator[Finding]:
    """One finding a picture, in order. A file that cannot be used gives an error finding and costs nothing else."""
    engine = Engine(bundle)
    loaded = in_order(partial(_load, size=bundle.size, limits=limits), pictures, workers)
    while batch := list(islice(loaded, BATCH)):
        yield from _score_batch(engine, batch)


def _load(path: Path | RefusedFile, size: tuple[int, int], limits: Limits) -> tuple[str, Picture | RefusedFile]:
    if isinstance(path, RefusedFile):
        return path.path, path
    try:
        return str(path), load(path, size=size, limits=limits)
    except RefusedFile as refusal:
        return str(path), refusal


def _score_batch(engine: Engine, batch: list[tuple[str, Picture | RefusedFile]]) -> Iterator[Finding]:
    pixels = [picture.pixels for _, picture in batch if isinstance(picture, Picture)]
    probabilities = iter(engine.probabilities(np.stack(pixels)) if pixels else ())
    for path, picture in batch:
        if isinstance(picture, RefusedFile):
            yield Finding(path, "error", message=f"{picture.reason}. {picture.mend}")
        else:
            yield _finding(path, engine.bundle, next(probabilities))


def _finding(path: str, bundle: Bundle, probabilities: np.ndarray) -> Finding:
    named = dict(zip(bundle.classes, map(float, probabilities), strict=True))
    melanoma = named.get(MELANOMA)
    point = bundle.operating_point
    return Finding(
        path,
        "scored",
        tuple(named.values()),
        melanoma,
        sum(value for name, value in named.items() if name in MALIGNANT),
        None if point is None or melanoma is None else ("refer" if melanoma >= point.threshold else "none"),
        max(named, key=named.__getitem__),
    )


COLUMNS_BEFORE = ("path", "status", "melanoma", "malignant", "alert", "diagnosis")
COLUMNS_AFTER = ("ood", "quality", "message")


def row_of(finding: Finding, classes: tuple[str, ...]) -> dict[str, str | float | None]:
    """The columns of the command-line contract, in order; `ood` and `quality` are None until a bundle has a gate."""
    values = finding.probabilities or (None,) * len(classes)
    scores = {f"p_{name.replace(' ', '_')}": value for name, value in zip(classes, values, strict=True)}
    before = {name: getattr(finding, name) for name in COLUMNS_BEFORE} | {"path": in_utf8(finding.path)}
    return {**before, **scores, "ood": None, "quality": None, "message": in_utf8(finding.message)}


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

"""Findings as rows: the formats that `dermalert score` writes.

Comes in: findings and the classes of the model that made them. Goes out: lines of text or a table, the same for the
same findings. It knows no files: `score.durable` writes them.

`csv`, `jsonl` and `parquet` have the same columns. The ISIC formats are the submissions of the challenges of 2018 to
2020 (https://challenge.isic-archive.com), as their scorer reads them; a picture that was not scored has no line there.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, TextIO

from dermalert.errors import DataError, in_utf8
from dermalert.score.batch import Finding
from dermalert.taxonomy import MELANOMA

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS_BEFORE = ("path", "status", "melanoma", "malignant", "alert", "diagnosis")
COLUMNS_AFTER = ("ood", "quality", "message", "set")
_NUMBERS = frozenset({"melanoma", "malignant", "ood", "quality"})

# The challenges' columns, and the diagnoses whose probabilities each sums. 2018's AKIEC holds squamous cell carcinoma
# in situ, and BKL all benign keratoses. UNK is none of 2019's eight: to that, this model gives nothing.
_2018: Mapping[str, tuple[str, ...]] = {
    "MEL": (MELANOMA,),
    "NV": ("nevus",),
    "BCC": ("basal cell carcinoma",),
    "AKIEC": ("actinic keratosis", "squamous cell carcinoma"),
    "BKL": ("pigmented benign keratosis", "seborrheic keratosis"),
    "DF": ("dermatofibroma",),
    "VASC": ("vascular lesion",),
}
_2019: Mapping[str, tuple[str, ...]] = {
    "MEL": (MELANOMA,),
    "NV": ("nevus",),
    "BCC": ("basal cell carcinoma",),
    "AK": ("actinic keratosis",),
    "BKL": ("pigmented benign keratosis", "seborrheic keratosis"),
    "DF": ("dermatofibroma",),
    "VASC": ("vascular lesion",),
    "SCC": ("squamous cell carcinoma",),
    "UNK": (),
}
CHALLENGES = {"isic2018": _2018, "isic2019": _2019, "isic2020": {"target": (MELANOMA,)}}
PARQUET = "parquet"
FORMATS = ("csv", "jsonl", PARQUET, *CHALLENGES)
_BY_SUFFIX = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": PARQUET}


def format_for(out: PurePath | None) -> str:
    """The format that a file's name asks for; CSV where it asks for none."""
    return _BY_SUFFIX.get(out.suffix.lower(), "csv") if out else "csv"


def row_of(finding: Finding, classes: tuple[str, ...]) -> dict[str, str | float | None]:
    """The columns of the command-line contract, in order, then `set`; `ood` and `quality` are None without a gate."""
    values = finding.probabilities or (None,) * len(classes)
    scores = {f"p_{name.replace(' ', '_')}": value for name, value in zip(classes, values, strict=True)}
    before = {name: getattr(finding, name) for name in COLUMNS_BEFORE} | {"path": in_utf8(finding.path)}
    after = (finding.ood, finding.quality, in_utf8(finding.message), "; ".join(finding.possible))
    return {**before, **scores, **dict(zip(COLUMNS_AFTER, after, strict=True))}


def table_of(findings: Iterable[Finding], classes: tuple[str, ...]) -> pa.Table:
    """The same columns as an Arrow table: strings, and float64 for numbers."""
    import pyarrow as pa

    columns = row_of(Finding("", ""), classes)
    kinds = [(name, pa.float64() if name in _NUMBERS or name[:2] == "p_" else pa.string()) for name in columns]
    return pa.Table.from_pylist([row_of(finding, classes) for finding in findings], pa.schema(kinds))


@dataclass(frozen=True)
class Lines:
    """A format of lines.

    Attributes:
        head: what stands once at the top; may be empty.
        line: of a finding, with its line end; empty where the format has none for it.
    """

    head: str
    line: Callable[[Finding], str]


def lines_of(name: str, classes: tuple[str, ...]) -> Lines:
    """The format `name`, any but Parquet.

    Raises:
        DataError: it asks for a diagnosis that the model does not know.
    """
    if name in CHALLENGES:
        return _challenge(name, classes)
    if name == "jsonl":
        return Lines("", lambda finding: json.dumps(row_of(finding, classes), ensure_ascii=False) + "\n")
    return Lines(
        csv_line(row_of(Finding("", ""), classes)),
        lambda finding: csv_line(map(_rounded, row_of(finding, classes).values())),
    )


def _challenge(name: str, classes: tuple[str, ...]) -> Lines:
    columns = CHALLENGES[name]
    unknown = [diagnosis for members in columns.values() for diagnosis in members if diagnosis not in classes]
    if unknown:
        raise DataError(f"{name} asks for {unknown[0]}, which is none of the model's classes.")
    places = [[classes.index(diagnosis) for diagnosis in members] for members in columns.values()]
    return Lines(csv_line(("image", *columns)), partial(_submitted, places=places))


def _submitted(finding: Finding, places: list[list[int]]) -> str:
    if finding.status != "scored":
        return ""
    values = (sum((finding.probabilities[place] for place in members), 0.0) for members in places)
    image = PurePath(finding.path.rpartition("::")[2]).stem
    return csv_line((image, *(f"{min(value, 1.0):.6f}" for value in values)))  # a sum may round to a hair over 1


def csv_line(values: Iterable[str | None]) -> str:
    """One line of a CSV, None being an empty cell, that every reader splits alike.

    Python quotes only the line end that it writes, while other readers end a row at a lone carriage return: a file
    of that name could put a row of its own into the table. So a row that holds one is quoted.
    """
    row = [in_utf8(value or "") for value in values]
    stream = io.StringIO()
    is_odd = any("\r" in value for value in row)
    csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL if is_odd else csv.QUOTE_MINIMAL).writerow(row)
    return stream.getvalue()


class RowWriter:
    """Writes the rows of a CSV to a stream, each as `csv_line` makes it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, values: Iterable[str | None]) -> None:
        """Writes one row; None is an empty cell."""
        self._stream.write(csv_line(values))


def _rounded(value: str | float | None) -> str | None:
    return f"{value:.6f}" if isinstance(value, float) else value

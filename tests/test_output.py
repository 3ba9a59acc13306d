"""Formats: the same figures in each, and submissions that the challenges' own scorer accepts."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from dermalert.errors import DataError
from dermalert.score.batch import Finding
from dermalert.score.output import CHALLENGES, format_for, lines_of, row_of, table_of
from dermalert.stages.scoring import run_score
from dermalert.taxonomy import NAMES
from graphs import CLASSES, bundle, graph, paint

RED, GREEN = (220, 40, 40), (40, 220, 40)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the nine classes, without a gate, a picture for each that it is surest of, and a black one."""
    home = tmp_path_factory.mktemp("home")
    corners = np.array([[r, g, b] for r in (0, 1, 2) for g in (0, 1, 2) for b in (0, 1, 2)])[1:28:3]
    weights = (corners / np.linalg.norm(corners, axis=1, keepdims=True)).T / 4
    bundle(classes=NAMES, model=graph(weights)).save(home / "bundle")
    for number, colour in enumerate([*corners * 120, corners[0] * 0]):
        paint(home / "set" / f"ISIC_{number:07}.png", tuple(colour.tolist()))
    return home


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.csv", "csv"),
        ("a.CSV", "csv"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.parquet", "parquet"),
        ("a.txt", "csv"),
        ("alerts", "csv"),
    ],
)
def test_the_name_tells_the_format(name: str, form: str) -> None:
    assert format_for(Path(name)) == form
    assert format_for(None) == "csv"


def told(value: str | float | None) -> str:
    return f"{value:.6f}" if isinstance(value, float) else value or ""


def test_all_formats_hold_the_same_rows(home: Path, tmp_path: Path) -> None:
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        run_score([home / "set"], home / "bundle", tmp_path / name)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as stream:
        comma = list(csv.DictReader(stream))
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert table == lines
    assert list(table[0]) == list(comma[0])
    assert [{name: told(value) for name, value in row.items()} for row in table] == comma


def test_a_parquet_folder_has_one_schema_whatever_its_rows_are(home: Path) -> None:
    error = Finding("x", "error", message="empty")
    good = Finding("y", "scored", (0.2, 0.3, 0.5), 0.2, 0.2, "none", "nevus")
    schemas = {table_of(rows, CLASSES).schema for rows in ([], [error], [good], [error, good])}
    assert len(schemas) == 1
    (schema,) = schemas
    assert schema.names == list(row_of(error, CLASSES))
    assert {field.type for field in schema} == {pa.string(), pa.float64()}


def test_a_parquet_folder_is_read_as_one_table_and_filtered(home: Path, tmp_path: Path) -> None:
    counts = run_score([home / "set"], home / "bundle", tmp_path / "a.parquet")
    data = ds.dataset(tmp_path / "a.parquet")
    assert data.count_rows() == 10
    assert data.count_rows(filter=ds.field("alert") == "refer") == counts["refer"]


def test_parquet_is_not_for_stdout(home: Path) -> None:
    with pytest.raises(DataError, match="Name one with --out"):
        run_score([home / "set"], home / "bundle", None, form="parquet")


# Submissions

# pandas 3 has the scorer's `applymap` by another name only.
SCORER = """
import pandas
if not hasattr(pandas.DataFrame, "applymap"):
    pandas.DataFrame.applymap = pandas.DataFrame.map
from isic_challenge_scoring.__main__ import cli
cli()
"""


def scored(truth: Path, submission: Path, metric: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCORER, "--output", "json", "classification", str(truth), str(submission)]
    return subprocess.run([*command, "--metric", metric], capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("form", sorted(CHALLENGES))
def test_the_challenges_own_scorer_accepts_a_submission(home: Path, tmp_path: Path, form: str) -> None:
    pytest.importorskip("isic_challenge_scoring")
    run_score([home / "set"], home / "bundle", tmp_path / "submission.csv", form=form)
    columns = CHALLENGES[form]
    truth = [["image", *columns]]
    for number, name in enumerate([*NAMES, None if "UNK" in columns else "nevus"]):
        shown = (name in members if name else not members for members in columns.values())
        truth.append([f"ISIC_{number:07}", *(str(float(one)) for one in shown)])
    (tmp_path / "truth.csv").write_text("".join(",".join(row) + "\n" for row in truth))
    ran = scored(tmp_path / "truth.csv", tmp_path / "submission.csv", "auc")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["per_category"]["auc"]["target" if form == "isic2020" else "MEL"] == 1.0
    assert found["aggregate"]["balanced_accuracy"] >= 0.8 or form == "isic2020"


@pytest.mark.parametrize("form", sorted(CHALLENGES))
def test_a_submission_sums_the_classes_that_the_challenge_does_not_tell_apart(form: str) -> None:
    probabilities = tuple(np.arange(1, 10) / 45)
    finding = Finding("archive.tar::train/ISIC_0000001.jpg", "scored", probabilities)
    lines = lines_of(form, NAMES)
    row = dict(zip(lines.head.strip().split(","), lines.line(finding).strip().split(","), strict=True))
    named = dict(zip(NAMES, probabilities, strict=True))
    assert row.pop("image") == "ISIC_0000001"
    for column, members in CHALLENGES[form].items():
        assert float(row[column]) == pytest.approx(sum(named[name] for name in members), abs=1e-6)
    if form != "isic2020":
        assert sum(map(float, row.values())) == pytest.approx(1, abs=1e-5)


def test_a_submission_has_a_line_for_every_picture_that_can_be_read_gate_or_not(home: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"")
    counts = run_score(
        [tmp_path / "broken.png", home / "set"], home / "bundle", tmp_path / "submission.csv", form="isic2018"
    )
    assert counts == {"scored": 10, "error": 1, "refer": counts["refer"]}
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 1 + 10


def test_a_model_that_lacks_a_diagnosis_makes_no_submission() -> None:
    with pytest.raises(DataError, match="isic2018 asks for basal cell carcinoma, which is none of the model's classes"):
        lines_of("isic2018", CLASSES)
    assert lines_of("isic2020", CLASSES).head == "image,target\n"

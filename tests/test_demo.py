"""The demo: the whole way on drawn pictures, each result where it says, and nothing of the user's touched."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dermalert import demo
from dermalert.bundle.format import Bundle
from dermalert.demo import run_demo
from dermalert.errors import DataError
from dermalert.intake.manifest import Manifest
from dermalert.taxonomy import NAMES
from reading import read

MADE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A demo run to its end, on fewer pictures and epochs than the real one: the folder, and what it told."""
    out = tmp_path_factory.mktemp("demo") / "new" / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "PER_CLASS", {"melanoma": 120, "nevus": 40})
        patch.setattr(demo, "OTHERS", 9)
        patch.setattr(demo, "EPOCHS", 2)
        return out, list(run_demo(out, seed=3, made=MADE))


@pytest.mark.slow
def test_it_goes_the_whole_way_and_tells_each_step(shown: tuple[Path, list[str]]) -> None:
    steps = [line for line in shown[1] if line[:1].isdigit()]
    told = ["Drew", "Audited", "Trained", "Evaluated", "Scored", "Scored", "Filled"]
    assert [line.split()[1] for line in steps] == told
    lines = "\n".join(shown[1])
    assert "byte-identical" in lines
    assert "at the alert threshold: sensitivity" in lines
    assert "cartoons" in shown[1][-1]


@pytest.mark.slow
def test_every_file_it_names_is_there_and_every_page_whole(shown: tuple[Path, list[str]]) -> None:
    out, lines = shown
    named = {line.split()[0]: Path(line.split()[-1]) for line in lines if line.startswith("   ") and str(out) in line}
    assert set(named) == {"audit", "report", "evaluation", "alerts", "shipped", "worklist"}
    for name in ("audit", "report", "evaluation"):
        assert read(named[name].read_text(encoding="utf-8")).problems == []
    with named["alerts"].open(newline="", encoding="utf-8") as stream:
        alerts = list(csv.DictReader(stream))
    test = [part == "test" for part in Manifest.read(out / "run" / "manifest.parquet").column("given_split")]
    assert len(alerts) == sum(test)
    assert {row["status"] for row in alerts} == {"scored"}
    with named["shipped"].open(newline="", encoding="utf-8") as stream:
        assert [row["path"] for row in csv.DictReader(stream)] == [row["path"] for row in alerts]
    assert {row["alert"] for row in alerts} <= {"refer", "none"}


@pytest.mark.slow
def test_its_model_alerts_and_knows_all_nine_diagnoses(shown: tuple[Path, list[str]]) -> None:
    bundle = Bundle.load(shown[0] / "run" / "bundle")
    assert bundle.classes == NAMES
    assert bundle.operating_point is not None
    metrics = json.loads((shown[0] / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics["evaluations"]) == ["validation", "test, raw", "test, clean"]


def test_it_can_be_shown_again_in_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PER_CLASS", {})
    monkeypatch.setattr(demo, "OTHERS", 1)
    next(run_demo(tmp_path, seed=0, made=MADE))
    (tmp_path / "run").mkdir()
    (tmp_path / "alerts.csv").touch()
    assert next(run_demo(tmp_path, seed=4, made=MADE)).startswith("1. Drew")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["drawn", "elsewhere", "audit", "run", "evaluation", "clinic", "alerts.csv"])
def test_what_a_user_keeps_under_the_same_name_is_never_touched(tmp_path: Path, name: str) -> None:
    mine = tmp_path / name if name.endswith(".csv") else tmp_path / name / "mine.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("years of work")
    with pytest.raises(DataError, match=rf"already holds {name}, and no demo made it"):
        next(run_demo(tmp_path, seed=0, made=MADE))
    assert mine.read_text() == "years of work"
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [mine]


def test_a_folder_with_other_things_in_it_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(demo, "PER_CLASS", {})
    monkeypatch.setattr(demo, "OTHERS", 1)
    assert next(run_demo(tmp_path, seed=0, made=MADE)).startswith("1. Drew")
    assert (tmp_path / "notes.txt").read_text() == "mine"

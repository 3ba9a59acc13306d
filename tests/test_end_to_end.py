"""The main job on the real nine-class set, through the installed command, as the README gives it: what is known about
the set is found, and every result lies where it was asked for."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dermalert.bundle.format import Bundle
from dermalert.intake.manifest import Manifest
from dermalert.taxonomy import NAMES
from reading import read

pytestmark = pytest.mark.slow

PICTURES, TRAIN, TEST = 2359, 2241, 118


@dataclass(frozen=True)
class Job:
    """The folder that everything was written to, and what the commands printed."""

    out: Path
    told: dict[str, str]

    def json(self, name: str) -> dict[str, Any]:
        def refuse(word: str) -> None:
            raise AssertionError(f"{word} in {name}")

        found: dict[str, Any] = json.loads((self.out / name).read_text(encoding="utf-8"), parse_constant=refuse)
        return found

    def rows(self, name: str) -> list[dict[str, str]]:
        with (self.out / name).open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream, strict=True))


@pytest.fixture(scope="module")
def job(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    out = tmp_path_factory.mktemp("job")
    command = Path(sys.executable).with_name("dermalert")
    data, told = shared_data / "isic9", {}
    for name, *arguments in (
        ("audit", data, "--against", shared_data / "ham10000", "--out", out / "audit"),
        ("train", out / "audit" / "manifest.parquet", "--recipe", "plain", "--epochs", "3", "--out", out / "run"),
        ("evaluate", out / "run" / "bundle", out / "run" / "manifest.parquet", "--out", out / "evaluation"),
        ("score", data, "--bundle", out / "run" / "bundle", "--out", out / "alerts.csv"),
    ):
        options = ["--resamples", "200"] if name in {"train", "evaluate"} else []
        ran = subprocess.run(
            [command, name, *map(str, arguments), *options], capture_output=True, text=True, timeout=500
        )
        assert ran.returncode == 0, ran.stderr
        assert "Traceback" not in ran.stderr
        told[name] = ran.stdout
    return Job(out, told)


def test_the_audit_finds_what_is_known_about_the_set(job: Job) -> None:
    found = job.json("audit/audit.json")
    assert (found["data"]["pictures"], found["data"]["parts"]) == (PICTURES, {"test": TEST, "train": TRAIN})
    assert found["refused"] == []
    identical = found["identical"]
    assert (identical["groups"], identical["contradictory"]) == (159, 155)
    pairs = Counter(tuple(group["labels"]) for group in identical["list"] if group["contradictory"])
    assert pairs["melanoma", "seborrheic keratosis"] >= 75
    assert pairs["actinic keratosis", "nevus"] >= 62
    assert sorted(Path(path).name for path in found["copy_names"]) == ["ISIC_0025509(1).jpg", "ISIC_0025601(1).jpg"]


def test_the_audit_finds_squashed_copies_of_ham10000_and_the_lesions_that_it_knows(job: Job) -> None:
    found = job.json("audit/audit.json")
    against = found["against"]
    assert (against["source"], against["pictures"]) == ("ham10000", 8595)
    assert against["matched"] > 1500
    same_number = [Path(row["path"]).stem[:12] == Path(row["theirs"]).stem for row in against["list"]]
    assert sum(same_number) / len(same_number) > 0.98
    assert found["lesions"]["groups"] > 250
    assert 40 <= found["leak"]["leaked"] < 60
    assert found["leak"]["test_pictures"] == TEST


def test_the_audits_page_and_manifest_hold_what_the_json_does(job: Job) -> None:
    reading = read((job.out / "audit" / "audit.html").read_text(encoding="utf-8"))
    assert reading.problems == []
    assert "159 groups of 318 files. 155 groups stand under labels that contradict each other" in reading.text
    manifest = Manifest.read(job.out / "audit" / "manifest.parquet")
    assert len(manifest) == PICTURES
    assert Counter(manifest.column("resolution")) == job.json("audit/audit.json")["resolutions"]["counts"]
    assert "159 groups of byte-identical files (155 under contradictory labels" in job.told["audit"]


def test_no_lesion_stands_on_both_sides_of_the_split(job: Job) -> None:
    manifest = Manifest.read(job.out / "run" / "manifest.parquet")
    sides: dict[int, set[str]] = {}
    for group, part in zip(manifest.column("group"), manifest.column("split"), strict=True):
        if part in {"train", "validation"}:
            sides.setdefault(group, set()).add(part)
    assert {len(parts) for parts in sides.values()} == {1}
    parts = Counter(manifest.column("split"))
    assert parts["test"] == TEST
    assert 0.17 < parts["validation"] / (parts["train"] + parts["validation"]) < 0.23


def test_the_bundle_knows_nine_diagnoses_and_its_report_is_whole(job: Job) -> None:
    bundle = Bundle.load(job.out / "run" / "bundle")
    assert bundle.classes == NAMES
    assert bundle.operating_point is not None
    assert len(job.json("run/history.json")["epochs"]) == 3
    reading = read((job.out / "run" / "report.html").read_text(encoding="utf-8"))
    assert reading.problems == []
    assert "test, clean" in reading.text


def test_raw_and_clean_test_figures_are_finite_each_with_its_interval(job: Job) -> None:
    evaluations = job.json("run/metrics.json")["evaluations"]
    assert list(evaluations) == ["validation", "test, raw", "test, clean"]
    assert evaluations["test, raw"]["pictures"] == TEST
    leaked = job.json("audit/audit.json")["leak"]["leaked"]
    assert TEST - leaked <= evaluations["test, clean"]["pictures"] < TEST - 20
    for name, evaluation in evaluations.items():
        assert evaluation["classes"] == list(NAMES)
        assert evaluation["resamples"] == 200
        for figure, told in evaluation["figures"].items():
            assert all(math.isfinite(told[end]) for end in ("value", "low", "high")), (name, figure)
            assert told["low"] <= told["value"] <= told["high"], (name, figure)
        assert math.isfinite(evaluation["operating_point"]["sensitivity"]["value"])
    assert evaluations["validation"]["figures"]["melanoma_auc"]["value"] > 0.7  # it learnt something


def test_clean_pictures_are_those_that_no_training_or_validation_picture_is_known_to_show(job: Job) -> None:
    manifest = Manifest.read(job.out / "run" / "manifest.parquet")
    split, group = manifest.column("split"), manifest.column("group")
    known = {number for number, part in zip(group, split, strict=True) if part in {"train", "validation"}}
    rows = zip(split, group, manifest.column("resolution"), strict=True)
    clean = sum(part == "test" and number not in known and action != "drop" for part, number, action in rows)
    assert job.json("run/metrics.json")["evaluations"]["test, clean"]["pictures"] == clean


def test_evaluating_the_bundle_on_its_own_test_pictures_gives_the_raw_figures_again(job: Job) -> None:
    again = job.json("evaluation/metrics.json")["evaluations"]["as given"]
    before = job.json("run/metrics.json")["evaluations"]["test, raw"]
    assert again["pictures"] == before["pictures"] == TEST
    for name, figure in before["figures"].items():
        assert again["figures"][name]["value"] == pytest.approx(figure["value"], abs=1e-6), name
    assert again["confusion_matrix"] == before["confusion_matrix"]
    assert len(job.rows("evaluation/predictions.csv")) == TEST


def test_every_picture_has_one_row_of_alerts_and_what_scores_is_what_was_judged(job: Job) -> None:
    alerts = job.rows("alerts.csv")
    assert len(alerts) == len({row["path"] for row in alerts}) == PICTURES
    assert {row["status"] for row in alerts} == {"scored"}
    assert {row["alert"] for row in alerts} == {"refer", "none"}
    columns = [f"p_{name.replace(' ', '_')}" for name in NAMES]
    assert list(alerts[0]) == [
        *("path", "status", "melanoma", "malignant", "alert", "diagnosis"),
        *columns,
        *("ood", "quality", "message", "set"),
    ]
    scored = {"/".join(Path(row["path"]).parts[-3:]): row for row in alerts}
    for row in job.rows("run/predictions.csv"):
        for name in columns:
            assert float(scored[row["image_id"]][name]) == pytest.approx(float(row[name]), abs=2e-5)
    assert job.told["score"] == ""

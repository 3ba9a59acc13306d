"""Training a run from a data set: whole, resumable through the command line, and blind to the test pictures."""

from __future__ import annotations

import csv
import hashlib
import json
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermalert.bundle.format import Bundle
from dermalert.drawn import DrawnSet, draw_class_folders, draw_many
from dermalert.errors import DataError, RunError
from dermalert.intake.manifest import Manifest
from dermalert.intake.split import clean_test
from dermalert.judge.evaluation import Evaluation
from dermalert.learn.recipes import recipe_named
from dermalert.score.engine import Engine
from dermalert.stages import training
from dermalert.stages.auditing import run_audit
from dermalert.stages.scoring import run_score
from dermalert.stages.training import run_train
from reading import read

pytestmark = pytest.mark.slow

MADE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RECIPE = replace(recipe_named("plain"), size=(32, 32), epochs=2, batch_size=16, precision="float32", seed=5)
CLASSES = ("melanoma", "nevus", "vascular lesion")
# A fifth of these melanomas is enough to show a sensitivity of 95 %.
PER_CLASS = {"melanoma": 120, "nevus": 40, "vascular lesion": 12}


def train(data: Path, run: Path, **options: Any) -> dict[str, Evaluation]:
    options = {"recipe": RECIPE, "resamples": 100, "command": "dermalert train", "made": MADE, **options}
    return run_train(data, options.pop("recipe"), run, **options)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, strict=True))


def strictly(file: Path) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in {file.name}")

    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    return found


@dataclass(frozen=True)
class Run:
    """A finished run, and the set that it learnt from."""

    set: DrawnSet
    path: Path
    evaluations: dict[str, Evaluation]

    @property
    def manifest(self) -> Manifest:
        return Manifest.read(self.path / "manifest.parquet")

    @property
    def bundle(self) -> Bundle:
        return Bundle.load(self.path / "bundle")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on a set with four faults of each kind."""
    root = tmp_path_factory.mktemp("faulty")
    made = draw_class_folders(root / "set", per_class=PER_CLASS, test_per_class=4, size=(64, 64), seed=3)
    return Run(made, root / "run", train(made.root, root / "run"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> DrawnSet:
    """A set without faults and with too few melanomas for a threshold."""
    root = tmp_path_factory.mktemp("small")
    return draw_class_folders(
        root / "set",
        per_class={"melanoma": 16, "nevus": 16, "vascular lesion": 8},
        test_per_class=6,
        size=(40, 40),
        faults=False,
        seed=1,
    )


# What a run leaves


def test_a_run_folder_holds_everything(faulty: Run) -> None:
    names = {file.name for file in faulty.path.iterdir()}
    assert names >= {
        *("manifest.parquet", "recipe.json", "training.json", "history.json", "checkpoint.npz"),
        *("bundle", "predictions.csv", "metrics.json", "report.html"),
    }
    assert sorted(file.name for file in (faulty.path / "bundle").iterdir()) == ["bundle.json", "card.md", "model.onnx"]
    assert not [file for file in faulty.path.rglob("*") if file.suffix in {".part", ".partial"}]
    assert strictly(faulty.path / "recipe.json")["name"] == "plain"
    assert len(strictly(faulty.path / "history.json")["epochs"]) == 2


def test_lesions_and_copies_stand_on_one_side_and_doubtful_pictures_on_none(faulty: Run) -> None:
    manifest = faulty.manifest
    split = dict(zip(manifest.column("path"), manifest.column("split"), strict=True))
    sides: dict[int, set[str]] = {}
    for group, part in zip(manifest.column("group"), manifest.column("split"), strict=True):
        if part in {"train", "validation"}:
            sides.setdefault(group, set()).add(part)
    assert all(len(parts) == 1 for parts in sides.values())
    for first, second in faulty.set.planted.conflicts:
        assert split[first] is split[second] is None
    for path, part in split.items():
        assert (part == "test") == path.startswith("Test/")


def test_the_bundle_says_what_it_learnt_from(faulty: Run) -> None:
    bundle, manifest = faulty.bundle, faulty.manifest
    parts = Counter(manifest.column("split"))
    assert bundle.classes == CLASSES
    assert bundle.size == (32, 32)
    assert bundle.data == {
        "source": "set",
        "fingerprint": manifest.fingerprint(),
        "content": manifest.content(),
        **{f"{part}_pictures": parts[part] for part in ("train", "validation", "test")},
    }
    assert {"dermalert", "keras", "numpy", "onnx", "python"} <= set(bundle.versions)
    assert "# Model card: plain" in bundle.card
    assert "test, clean (n=" in bundle.card


def test_the_threshold_finds_the_melanomas_that_it_promises_on_validation(faulty: Run) -> None:
    point = faulty.bundle.operating_point
    assert point is not None
    melanomas = [
        float(row["p_melanoma"])
        for row in rows(faulty.path / "predictions.csv")
        if (row["split"], row["diagnosis"]) == ("validation", "melanoma")
    ]
    assert point.positives == len(melanomas)
    assert np.mean(np.array(melanomas) >= point.threshold) >= 0.95


def test_predictions_are_of_validation_and_test_pictures_and_are_what_the_bundle_scores(
    faulty: Run, tmp_path: Path
) -> None:
    table = {row["image_id"]: row for row in rows(faulty.path / "predictions.csv")}
    manifest = faulty.manifest
    expected = {
        path: part
        for path, part in zip(manifest.column("path"), manifest.column("split"), strict=True)
        if part in {"validation", "test"}
    }
    assert {name: row["split"] for name, row in table.items()} == expected
    run_score([faulty.set.root / "Test"], faulty.path / "bundle", tmp_path / "alerts.csv")
    scored = rows(tmp_path / "alerts.csv")
    assert len(scored) == 3 * 4 + len(faulty.set.planted.leaks)
    for row in scored:
        judged = table[Path(row["path"]).relative_to(faulty.set.root).as_posix()]
        for name in ("p_melanoma", "p_nevus", "p_vascular_lesion"):
            assert float(row[name]) == pytest.approx(float(judged[name]), abs=2e-5)


def test_raw_and_clean_test_figures_stand_beside_validation_and_clean_knows_no_training_picture(faulty: Run) -> None:
    found = strictly(faulty.path / "metrics.json")["evaluations"]
    assert list(found) == list(faulty.evaluations) == ["validation", "test, raw", "test, clean"]
    manifest = faulty.manifest
    split, group = manifest.column("split"), manifest.column("group")
    known = {number for number, part in zip(group, split, strict=True) if part in {"train", "validation"}}
    clean = [
        part == "test" and number not in known and action != "drop"
        for part, number, action in zip(split, group, manifest.column("resolution"), strict=True)
    ]
    assert clean == clean_test(manifest).tolist()
    assert found["test, raw"]["pictures"] == split.count("test") == 16
    assert found["test, clean"]["pictures"] == sum(clean) <= 16 - len(faulty.set.planted.leaks)
    assert found["validation"]["pictures"] == split.count("validation")


def test_every_figure_is_a_number_with_an_interval_or_says_why_not(faulty: Run) -> None:
    metrics = strictly(faulty.path / "metrics.json")
    assert (metrics["recipe"], metrics["seed"]) == ("plain", 5)
    for evaluation in metrics["evaluations"].values():
        for figure in evaluation["figures"].values():
            assert figure["value"] is not None or figure["why"]
        assert evaluation["operating_point"]["threshold"] == faulty.bundle.operating_point.threshold  # type: ignore[union-attr]


def test_the_report_is_one_page_that_can_be_read_aloud(faulty: Run) -> None:
    html = (faulty.path / "report.html").read_text(encoding="utf-8")
    reading = read(html)
    assert reading.problems == []
    assert "https:" not in html
    for word in ("validation", "test, raw", "test, clean", "Too short to tell", "Missed melanomas"):
        assert word.lower() in reading.text.lower()
    for path in faulty.set.planted.refused:
        assert Path(path).name in reading.text


def test_a_run_is_not_overwritten_and_a_finished_one_resumes_to_the_same_result(faulty: Run) -> None:
    kept = ("bundle/model.onnx", "bundle/bundle.json", "predictions.csv", "manifest.parquet")
    before = {name: (faulty.path / name).read_bytes() for name in kept}
    with pytest.raises(RunError, match="--resume"):
        train(faulty.set.root, faulty.path)
    assert {name: (faulty.path / name).read_bytes() for name in kept} == before
    again = train(faulty.set.root, faulty.path, resume=True)
    assert {name: (faulty.path / name).read_bytes() for name in kept} == before
    assert {name: one.to_json() for name, one in again.items()} == {
        name: one.to_json() for name, one in faulty.evaluations.items()
    }


# Test pictures choose nothing


def test_other_labels_on_test_pictures_change_neither_model_nor_temperature_nor_threshold(
    small: DrawnSet, tmp_path: Path
) -> None:
    chosen, losses = [], []
    for name in ("right", "wrong"):
        root = tmp_path / name / "set"
        for picture in small.root.rglob("*.jpg"):
            part, word, file = picture.relative_to(small.root).parts
            if part == "Test" and name == "wrong":
                word = CLASSES[(CLASSES.index(word) + 1) % 3]
            target = root / part / word / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(picture.read_bytes())
        # A lower target, so that this small set has a threshold to choose.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "SENSITIVITY", 0.5)
            evaluations = train(root, tmp_path / name / "run", cache=tmp_path / "decoded")
        bundle = Bundle.load(tmp_path / name / "run" / "bundle")
        assert bundle.operating_point is not None
        chosen.append(
            (
                bundle.model,
                bundle.calibration,
                bundle.prevalence,
                bundle.operating_points,
                bundle.conformal,
                bundle.classes,
            )
        )
        losses.append(evaluations["test, raw"].figures["log_loss"].value)
        assert evaluations["test, raw"].pictures == 18
    assert chosen[0] == chosen[1]
    assert losses[0] != losses[1]


# Sets that lack something


def test_too_few_melanomas_give_a_model_without_a_threshold_that_says_so(small: DrawnSet, tmp_path: Path) -> None:
    evaluations = train(small.root, tmp_path / "run", epochs=1)
    bundle = Bundle.load(tmp_path / "run" / "bundle")
    assert bundle.operating_point is None
    assert all(one.operating_point is None for one in evaluations.values())
    assert "No alert threshold was chosen." in read((tmp_path / "run" / "report.html").read_text(encoding="utf-8")).text
    run_score([small.root / "Test"], tmp_path / "run" / "bundle", tmp_path / "alerts.csv")
    assert {row["alert"] for row in rows(tmp_path / "alerts.csv")} == {""}


def test_what_cannot_be_learnt_from_is_an_error_before_anything_is_trained(tmp_path: Path) -> None:
    draw_many(tmp_path / "plain", count=3, size=(40, 40))
    draw_class_folders(
        tmp_path / "benign",
        per_class=9,
        test_per_class=0,
        size=(40, 40),
        faults=False,
        classes=("nevus", "vascular lesion"),
    )
    draw_class_folders(
        tmp_path / "one", per_class=9, test_per_class=0, size=(40, 40), faults=False, classes=("melanoma",)
    )
    for name, message in (
        ("plain", "No picture is left for train"),
        ("benign", "melanoma and another are needed"),
        ("one", "melanoma and another are needed"),
        ("none", "no such file or folder"),
    ):
        with pytest.raises(DataError, match=message):
            train(tmp_path / name, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_diagnosis_that_only_the_test_folder_has_is_left_out_and_told_of(small: DrawnSet, tmp_path: Path) -> None:
    manifest = run_audit(small.root, tmp_path / "audit", command="c", made=MADE).manifest
    learnt = [
        not (part == "train" and word == "vascular lesion")
        for part, word in zip(manifest.column("given_split"), manifest.column("diagnosis"), strict=True)
    ]
    manifest.where(learnt).write(tmp_path / "m.parquet")
    evaluations = train(tmp_path / "m.parquet", tmp_path / "run", epochs=1)
    assert Bundle.load(tmp_path / "run" / "bundle").classes == ("melanoma", "nevus")
    assert evaluations["test, raw"].pictures == 12
    text = read((tmp_path / "run" / "report.html").read_text(encoding="utf-8")).text
    assert "6 pictures of vascular lesion were left out: no training picture shows it." in text


def test_a_split_that_the_manifest_has_is_kept_and_a_picture_that_is_gone_since_is_told_of(
    small: DrawnSet, tmp_path: Path
) -> None:
    for picture in small.root.rglob("*.jpg"):
        target = tmp_path / "set" / picture.relative_to(small.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture.read_bytes())
    manifest = run_audit(tmp_path / "set", tmp_path / "audit", command="c", made=MADE).manifest
    parts = ["test" if row % 3 == 0 else "validation" if row % 3 == 1 else "train" for row in range(len(manifest))]
    manifest.with_columns(split=parts).write(tmp_path / "m.parquet")
    manifest.paths()[4].unlink()
    train(tmp_path / "m.parquet", tmp_path / "run", epochs=1)
    parts[4] = None  # type: ignore[call-overload]
    assert Manifest.read(tmp_path / "run" / "manifest.parquet").column("split") == parts
    assert manifest.paths()[4].name in read((tmp_path / "run" / "report.html").read_text(encoding="utf-8")).text


# Through the command line

# Runs the command in a process that gets a signal at a given step of training.
DYING = """
    import os, sys
    from dermalert.learn import step

    at, death = map(int, sys.argv[1:3])
    learn, steps = step.Step.train, 0

    def learn_and_die(*arguments, **options):
        global steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), death)
        return learn(*arguments, **options)

    step.Step.train = learn_and_die
    from dermalert.cli import main
    main(sys.argv[3:])
"""


@dataclass(frozen=True)
class Commanded:
    """What came of training through the command line: without a break, stopped, killed, and resumed."""

    unbroken: subprocess.CompletedProcess[str]
    stopped: subprocess.CompletedProcess[str]
    killed: subprocess.CompletedProcess[str]
    resumed: subprocess.CompletedProcess[str]
    root: Path


@pytest.fixture(scope="module")
def commanded(small: DrawnSet, tmp_path_factory: pytest.TempPathFactory) -> Commanded:
    root = tmp_path_factory.mktemp("commanded")
    (root / "recipe.json").write_text(replace(RECIPE, epochs=3, batch_size=8).to_json())

    def command(run: str, *options: str, at: int = 0, death: int = 0) -> subprocess.CompletedProcess[str]:
        arguments = ["train", str(small.root), "--from", str(root / "recipe.json"), "--out", str(root / run), *options]
        code = [sys.executable, "-c", textwrap.dedent(DYING), str(at), str(death), *arguments, "--resamples", "100"]
        return subprocess.run(code, capture_output=True, text=True, timeout=300)

    # 32 training pictures: four steps an epoch.
    stopped = command("broken", at=6, death=signal.SIGINT)
    killed = command("broken", "--resume", at=6, death=signal.SIGKILL)
    resumed = command("broken", "--resume", "--json")
    return Commanded(command("whole"), stopped, killed, resumed, root)


def test_ctrl_c_says_what_is_saved_and_how_to_go_on_in_one_line(commanded: Commanded) -> None:
    assert commanded.stopped.returncode == 1
    assert "Traceback" not in commanded.stopped.stderr
    last = commanded.stopped.stderr.splitlines()[-1]
    assert last.startswith("dermalert: Training was stopped; epoch 1 is saved in ")
    assert "--resume" in last
    assert commanded.stopped.stdout == ""


def test_a_killed_run_resumes_to_the_very_model_and_predictions_of_one_that_was_not(commanded: Commanded) -> None:
    assert commanded.killed.returncode == -signal.SIGKILL
    assert commanded.resumed.returncode == commanded.unbroken.returncode == 0, commanded.resumed.stderr
    whole, broken = commanded.root / "whole", commanded.root / "broken"
    for name in ("bundle/model.onnx", "bundle/bundle.json", "predictions.csv", "manifest.parquet"):
        digests = [hashlib.sha256((run / name).read_bytes()).hexdigest() for run in (whole, broken)]
        assert digests[0] == digests[1], name
    first, second = (strictly(run / "metrics.json")["evaluations"] for run in (whole, broken))
    assert first == second


def test_the_figures_are_all_that_stands_on_stdout(commanded: Commanded) -> None:
    assert json.loads(commanded.resumed.stdout) == strictly(commanded.root / "broken" / "metrics.json")
    lines = commanded.unbroken.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["validation", "test, raw", "test, clean", lines[-1]]
    assert lines[-1] == f"Read {commanded.root / 'whole' / 'report.html'}"
    assert "epoch 3/3" in commanded.unbroken.stderr


def test_the_model_that_was_trained_scores_without_a_training_framework(commanded: Commanded) -> None:
    engine = Engine(Bundle.load(commanded.root / "whole" / "bundle"))
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    assert engine.probabilities(pixels).sum() == pytest.approx(1)

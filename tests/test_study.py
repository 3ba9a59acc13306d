"""The study: every arm on one split, nothing lost when it is interrupted, failures shown, the leak shown."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from dermalert.drawn import draw_class_folders, draw_table
from dermalert.errors import RunError
from dermalert.intake.manifest import Manifest
from dermalert.judge.study import CLEAN_TEST, DONE, FAILED, RAW_TEST, SKIPPED, VALIDATION, Study
from dermalert.learn.recipes import AUGMENT_SEARCH, RECIPES, recipe_named
from dermalert.stages import leak
from dermalert.stages import study as stage
from dermalert.stages.study import Plan, expanded, run_study

MADE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn set with faults, and another of a coarser label scheme."""
    root = tmp_path_factory.mktemp("sets")
    draw_class_folders(root / "ours", per_class=14, test_per_class=3, seed=5)
    draw_table(root / "theirs", lesions=30, seed=6)
    draw_table(root / "others", lesions=30, seed=7)
    return root


def plan(sets: Path, *recipes: str, pool: tuple[str, ...] = ()) -> Plan:
    return Plan(sets / "ours", tuple(sets / name for name in pool), expanded(recipes), 1, 1, 0)


def studied(asked: Plan, out: Path, **options: bool) -> Study:
    return run_study(asked, out, resamples=100, command="dermalert study", made=MADE, **options)


@pytest.fixture(scope="module", autouse=True)
def few_copies() -> Iterator[None]:
    """Fifteen copies a class show what five hundred do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leak, "COPIES", 15)
        yield


@pytest.fixture(scope="module")
def finished(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """A whole study; `focal` finds its run folder taken by another recipe, and fails."""
    out = tmp_path_factory.mktemp("study") / "study"
    taken = out / "arms" / "focal" / "seed-0"
    taken.mkdir(parents=True)
    (taken / "training.json").write_text('{"recipe": "damaged"}')
    return studied(plan(sets, "focal", "balanced", "pooled", pool=("theirs", "others")), out, show_leak=True), out


def test_every_arm_is_judged_on_the_same_pictures(finished: tuple[Study, Path]) -> None:
    done = [arm for arm in finished[0].arms if arm.state == DONE]
    assert [arm.name for arm in done] == ["plain", "balanced", "pooled"]
    for view in (VALIDATION, RAW_TEST, CLEAN_TEST):
        judged = [arm.runs[0].scores[view] for arm in done]
        assert len({scores.image_ids for scores in judged}) == 1
        assert all(np.array_equal(scores.truth, judged[0].truth) for scores in judged)


def test_no_lesion_that_any_arm_learns_from_is_validated_or_tested_on(finished: tuple[Study, Path]) -> None:
    for name in ("manifest.parquet", "pooled.parquet"):
        manifest = Manifest.read(finished[1] / name)
        clean = set(finished[0].arms[0].runs[0].scores[CLEAN_TEST].image_ids)
        rows = zip(*(manifest.column(key) for key in ("image_id", "group", "split")), strict=True)
        parts = [(group, "clean" if image_id in clean else part) for image_id, group, part in rows]
        learned = {group for group, part in parts if part == "train"}
        assert learned.isdisjoint({group for group, part in parts if part in ("validation", "clean")})


def test_pictures_that_training_knows_are_not_in_the_clean_test_view(finished: tuple[Study, Path]) -> None:
    scores = finished[0].arms[0].runs[0].scores
    assert len(scores[CLEAN_TEST]) < len(scores[RAW_TEST])


def test_the_pooled_arm_learns_from_all_sets_and_is_told_by_source(finished: tuple[Study, Path]) -> None:
    plain, pooled = finished[0].arm("plain"), finished[0].arm("pooled")
    for source in ("theirs", "others"):
        assert f"validation, {source}" in pooled.runs[0].evaluations
        assert f"validation, {source}" not in plain.runs[0].evaluations
    assert sum(pooled.training_counts.values()) > sum(plain.training_counts.values())


def test_a_balanced_epoch_has_as_many_pictures_of_each_class(finished: tuple[Study, Path]) -> None:
    counts = finished[0].arm("balanced").training_counts
    assert len(set(counts.values())) == 1
    assert max(finished[0].arm("plain").training_counts.values()) == max(counts.values())


def test_an_arm_that_fails_takes_no_other_with_it_and_says_why(finished: tuple[Study, Path]) -> None:
    focal = finished[0].arm("focal")
    assert focal.state == FAILED
    assert "damaged" in focal.why
    assert "damaged" in (finished[1] / "study.html").read_text(encoding="utf-8")


def test_oversampling_before_the_split_puts_siblings_on_both_sides_and_honest_splits_none(
    finished: tuple[Study, Path],
) -> None:
    shown = finished[0].leak
    assert shown is not None
    assert shown.honest.siblings == 0
    assert shown.leaky.siblings > shown.leaky.validation / 2
    for side in (shown.honest, shown.leaky):
        assert set(side.evaluations) == {VALIDATION, RAW_TEST, CLEAN_TEST}
    assert shown.honest.evaluations[RAW_TEST].pictures == shown.leaky.evaluations[RAW_TEST].pictures


def test_what_was_trained_is_not_trained_again_and_arms_can_be_added(
    finished: tuple[Study, Path], sets: Path, tmp_path: Path
) -> None:
    out = finished[1]
    before = {file: file.stat().st_mtime_ns for file in out.glob("arms/*/seed-0/checkpoint.npz")}
    again = studied(plan(sets, "balanced", "pooled", pool=("theirs", "others")), out, resume=True)
    assert [arm.name for arm in again.arms] == ["plain", "balanced", "pooled"]
    assert {file: file.stat().st_mtime_ns for file in before} == before
    first, second = finished[0].arm("plain").runs[0], again.arm("plain").runs[0]
    assert first.evaluations[VALIDATION].to_json() == second.evaluations[VALIDATION].to_json()


def test_a_run_folder_trains_again_to_the_same_predictions(finished: tuple[Study, Path], tmp_path: Path) -> None:
    run = finished[1] / "arms" / "plain" / "seed-0"
    command = [sys.executable, "-m", "dermalert.cli", "train", str(run / "manifest.parquet"), "--resamples", "100"]
    command += ["--from", str(run / "recipe.json"), "--out", str(tmp_path / "again")]
    done = subprocess.run(command, capture_output=True, text=True, env=_with_source())
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("predictions.csv", "recipe.json", "bundle/bundle.json"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()


def test_a_study_folder_is_neither_overwritten_nor_mixed(finished: tuple[Study, Path], sets: Path) -> None:
    with pytest.raises(RunError, match="--resume"):
        studied(plan(sets, "plain"), finished[1])
    with pytest.raises(RunError, match="other data"):
        studied(replace(plan(sets, "plain"), seed=9), finished[1], resume=True)


def test_a_manifest_that_is_not_the_studys_is_left_alone(sets: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.parquet").write_bytes(b"mine")
    with pytest.raises(RunError, match="something else"):
        studied(plan(sets, "plain"), tmp_path)
    assert (tmp_path / "manifest.parquet").read_bytes() == b"mine"


def test_a_training_of_another_recipe_is_not_taken_for_the_arms(tmp_path: Path) -> None:
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0.json").write_text(recipe_named("plain").to_json())
    assert stage._unlike(recipe_named("plain"), tmp_path / "seed-0") is None
    changed = replace(recipe_named("plain"), learning_rate=0.5)
    assert "another recipe" in str(stage._unlike(changed, tmp_path / "seed-0"))


def test_a_study_killed_in_the_middle_goes_on_and_leaves_no_orphan(sets: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    command = [sys.executable, "-m", "dermalert.cli", "study", str(sets / "ours"), "--out", str(out)]
    command += ["--recipes", "plain,logit-adjusted", "--epochs", "30", "--resamples", "100"]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(command, stderr=log, stdout=log, env=_with_source())
        file = out / "arms" / "plain" / "seed-0" / "history.json"
        _wait(lambda: file.exists())
        running.kill()
        running.wait()
    checkpoint = file.with_name("checkpoint.npz")
    _wait(lambda: time.time() - checkpoint.stat().st_mtime > 3)  # the training that it had started ends too
    kept = len(json.loads(file.read_text())["epochs"])
    assert kept < 30
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True, env=_with_source())
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert f"epoch {kept}/30" not in resumed.stderr
    assert "logit-adjusted" in resumed.stdout
    assert (out / "study.html").exists()


def test_ctrl_c_says_how_to_go_on(sets: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    command = [sys.executable, "-m", "dermalert.cli", "study", str(sets / "ours"), "--out", str(out)]
    running = subprocess.Popen(
        [*command, "--recipes", "plain"], stderr=subprocess.PIPE, text=True, env=_with_source(), start_new_session=True
    )
    _wait(lambda: (out / "arms" / "plain" / "seed-0" / "history.json").exists())
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 1
    assert told.strip().splitlines()[-1] == (
        "dermalert: The study was stopped. Go on with the same command and --resume."
    )


def _with_source() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(stage.__file__).parents[2])}


def _wait(until: object, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not until():  # type: ignore[operator]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def test_an_arm_that_only_scores_otherwise_borrows_a_finished_network(tmp_path: Path) -> None:
    done = tmp_path / "arms" / "augmented" / "seed-0"
    done.mkdir(parents=True)
    for name in ("training.json", "history.json", "checkpoint.npz", "best-0003.npz", "report.html"):
        (done / name).write_text(name)
    done.with_suffix(".json").write_text(recipe_named("augmented").to_json())
    for name, borrows in (("test-time", True), ("mixup", False)):
        folder = tmp_path / "arms" / name / "seed-0"
        stage._borrow(recipe_named(name), folder, tmp_path)
        assert folder.exists() == borrows
    assert (tmp_path / "arms" / "test-time" / "seed-0" / "best-0003.npz").exists()
    assert not (tmp_path / "arms" / "test-time" / "seed-0" / "report.html").exists()


def test_a_training_speaks_where_stderr_takes_only_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook; and its last line is why it failed."""
    said = StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    program = "import sys; sys.stderr.buffer.write('50\u00a0%\\rdermalert: naïve'.encode()); sys.exit(1)"
    assert stage._run([sys.executable, "-c", program]) == "naïve"
    assert said.getvalue() == "50\u00a0%\rdermalert: naïve"


def test_pooling_without_another_set_is_skipped_and_said(sets: Path, tmp_path: Path) -> None:
    pooled = recipe_named("pooled")
    arm = stage._arm("pooled", [pooled], plan(sets, "pooled"), tmp_path, 100, [])
    assert arm.state == SKIPPED
    assert "--pool" in arm.why


def test_names_of_groups_are_written_out_with_the_baseline_first() -> None:
    assert expanded(["transfer"]) == ("plain", "transfer")
    assert expanded(["augment-search"]) == ("plain", "augmented", *AUGMENT_SEARCH)
    assert set(expanded(["all"])) == set(RECIPES)
    with pytest.raises(RunError, match="Known: plain"):
        expanded(["magic"])

"""Evaluating a bundle: every labelled picture once, as its owner labels it and as the audit would."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dermalert.bundle.format import LEARNT_DIGITS, Bundle
from dermalert.drawn import DrawnSet, draw_class_folders, draw_many, draw_table
from dermalert.errors import DataError, RunError
from dermalert.intake.decode import load
from dermalert.intake.manifest import Manifest
from dermalert.intake.split import split
from dermalert.judge.evaluation import Evaluation
from dermalert.score.engine import Engine
from dermalert.stages import judging
from dermalert.stages.auditing import run_audit
from dermalert.stages.judging import run_evaluate
from dermalert.stages.telling import summary
from dermalert.taxonomy import NAMES
from graphs import CLASSES, bundle, graph, paint, point, quality_gate
from reading import read

MADE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
AS_GIVEN, CLEAN = "as given", "without doubtful pictures"
OF_NINE = replace(
    bundle(classes=NAMES, model=graph(np.random.default_rng(0).normal(0, 0.02, (3, 9)).astype(np.float32))), name="nine"
)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, strict=True))


def strictly(file: Path) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in {file.name}")

    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    return found


def judge(made: Bundle, data: Path, out: Path, **options: Any) -> dict[str, Evaluation]:
    made.save(out / "bundle")
    options = {"resamples": 100, "command": "dermalert evaluate", "made": MADE, **options}
    return run_evaluate(out / "bundle", data, out, **options)


@dataclass(frozen=True)
class Judged:
    set: DrawnSet
    out: Path
    evaluations: dict[str, Evaluation]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """A set with one fault of each kind, judged."""
    root = tmp_path_factory.mktemp("judged")
    made = draw_class_folders(root / "set", per_class=12, test_per_class=3, seed=1, classes=CLASSES)
    draw_many(made.root / "Train" / "no diagnosis", count=2, size=(40, 30), seed=5)
    return Judged(made, root / "out", judge(bundle(threshold=0.3), made.root, root / "out"))


def test_predictions_metrics_and_a_report_are_left(judged: Judged) -> None:
    assert sorted(file.name for file in judged.out.iterdir()) == [
        "bundle",
        "checklists.html",
        "claim.md",
        "metrics.json",
        "predictions.csv",
        "report.html",
        "tripod-ai.md",
    ]


def test_every_labelled_picture_has_one_row_with_what_the_engine_says_of_it(judged: Judged) -> None:
    table = rows(judged.out / "predictions.csv")
    assert list(table[0]) == [
        *("image_id", "given_label", "diagnosis", "split", "group", "resolution"),
        *("p_melanoma", "p_nevus", "p_vascular_lesion"),
        "refused",
    ]
    assert len({row["image_id"] for row in table}) == len(table) == judged.set.pictures
    assert not any("no diagnosis" in row["image_id"] for row in table)
    engine = Engine(Bundle.load(judged.out / "bundle"))
    for row in table[::9]:
        expected = engine.probabilities(load(judged.set.root / row["image_id"], size=(20, 16)).pixels[None])[0]
        assert [float(row[name]) for name in list(row)[-4:-1]] == pytest.approx(expected.tolist(), abs=1e-5)
    for name in ("p_melanoma", "p_nevus", "p_vascular_lesion"):
        assert all(0 <= float(row[name]) <= 1 for row in table)


def test_both_views_are_judged_one_with_the_owners_labels_and_one_without_doubtful_pictures(judged: Judged) -> None:
    table = rows(judged.out / "predictions.csv")
    assert {name: one.pictures for name, one in judged.evaluations.items()} == {
        AS_GIVEN: len(table),
        CLEAN: sum(row["resolution"] != "drop" for row in table),
    }
    assert 0 < sum(row["resolution"] == "drop" for row in table) < len(table)
    given = judged.evaluations[AS_GIVEN]
    assert {one.name: one.pictures for one in given.per_class} == Counter(row["given_label"] for row in table)


def test_the_json_is_what_was_computed_and_every_figure_is_a_number_with_an_interval_or_has_a_reason(
    judged: Judged,
) -> None:
    found = strictly(judged.out / "metrics.json")
    assert (found["bundle"], found["data"]) == ("mean colour", "set")
    assert found["evaluations"] == {name: one.to_json() for name, one in judged.evaluations.items()}
    for evaluation in found["evaluations"].values():
        assert evaluation["classes"] == list(CLASSES)
        for figure in evaluation["figures"].values():
            if figure["value"] is None:
                assert figure["why"]
            elif figure["low"] is not None:
                assert figure["low"] <= figure["value"] <= figure["high"]
        assert evaluation["operating_point"]["threshold"] == 0.3


def test_the_alert_is_judged_at_the_bundles_threshold(judged: Judged) -> None:
    table = rows(judged.out / "predictions.csv")
    at = judged.evaluations[AS_GIVEN].operating_point
    assert at is not None
    assert at.alerts == sum(float(row["p_melanoma"]) >= 0.3 for row in table)
    melanomas = [float(row["p_melanoma"]) >= 0.3 for row in table if row["given_label"] == "melanoma"]
    assert at.sensitivity.value == pytest.approx(np.mean(melanomas))


def test_the_report_is_one_file_that_can_be_read_aloud_and_names_what_was_refused(judged: Judged) -> None:
    html = (judged.out / "report.html").read_text(encoding="utf-8")
    reading = read(html)
    assert reading.problems == []
    assert "https:" not in html
    assert AS_GIVEN in reading.text
    assert CLEAN in reading.text
    for path in judged.set.planted.refused:
        assert Path(path).name in reading.text
    assert "dermalert evaluate" in reading.text


def test_what_a_reviewer_asks_stands_in_the_metrics_and_in_the_report(judged: Judged) -> None:
    found = strictly(judged.out / "metrics.json")["scrutiny"]
    assert found["set"] == CLEAN
    assert [point["name"] for point in found["operating_points"]] == ["screening"]
    assert list(found["decision"]) == ["these pictures", "a clinic"]
    assert list(found["subgroups"]) == ["age", "sex", "body site", "skin tone", "image source"]
    pictures = [group["pictures"] for group in found["subgroups"]["image source"]["groups"].values()]
    assert pictures == [judged.evaluations[CLEAN].pictures]
    headings = [text for _, text in read((judged.out / "report.html").read_text(encoding="utf-8")).headings]
    for title in ("The alert in a clinic", "Is it worth acting on?", "Does it serve everybody alike?"):
        assert title in headings


def test_patients_of_a_table_are_told_apart_by_age_sex_and_site_and_a_mistakes_facts_are_told(tmp_path: Path) -> None:
    made = draw_table(tmp_path / "set", lesions=40, seed=3, size=(64, 48))
    judge(replace(OF_NINE, operating_points=(point(0.99),)), made.root, tmp_path / "out")
    found = strictly(tmp_path / "out" / "metrics.json")["scrutiny"]["subgroups"]
    manifest = run_audit(made.root, tmp_path / "audit", command="c", made=MADE).manifest
    for fact, column in (("sex", "sex"), ("body site", "site"), ("age", "age_years")):
        known = sum(value is not None for value in manifest.column(column))
        groups = {name: group for name, group in found[fact]["groups"].items() if name != "not known"}
        assert sum(group["pictures"] for group in groups.values()) == known > 0
    assert sum(group["pictures"] for group in found["skin tone"]["groups"].values()) == made.pictures
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "; may be " in html
    assert " skin" in html


def test_the_clinics_prevalence_is_the_callers(judged: Judged, tmp_path: Path) -> None:
    judge(bundle(threshold=0.3), judged.set.root, tmp_path, prevalence=0.04)
    decision = strictly(tmp_path / "metrics.json")["scrutiny"]["decision"]
    assert decision["a clinic"]["prevalence"] == 0.04


def test_a_bundle_is_judged_the_same_again_and_another_seed_moves_only_the_intervals(
    judged: Judged, tmp_path: Path
) -> None:
    judge(bundle(threshold=0.3), judged.set.root, tmp_path / "same", workers=1)
    for name in ("predictions.csv", "metrics.json", "report.html"):
        assert (tmp_path / "same" / name).read_bytes() == (judged.out / name).read_bytes()
    other = judge(bundle(threshold=0.3), judged.set.root, tmp_path / "other", seed=1)
    first, second = judged.evaluations[AS_GIVEN].figures["accuracy"], other[AS_GIVEN].figures["accuracy"]
    assert first.value == second.value
    assert (first.low, first.high) != (second.low, second.high)
    assert (tmp_path / "other" / "predictions.csv").read_bytes() == (judged.out / "predictions.csv").read_bytes()


def test_a_bundle_without_a_threshold_is_judged_without_alerts(judged: Judged, tmp_path: Path) -> None:
    evaluations = judge(bundle(threshold=None), judged.set.root, tmp_path)
    assert evaluations[AS_GIVEN].operating_point is None
    assert "has no threshold for an alert" in read((tmp_path / "report.html").read_text(encoding="utf-8")).text


def test_coarse_labels_of_a_table_are_judged_as_far_as_they_say(tmp_path: Path) -> None:
    made = draw_table(tmp_path / "set", lesions=40, seed=3, size=(64, 48))
    (found,) = judge(OF_NINE, made.root, tmp_path / "out").values()
    assert found.pictures == made.pictures
    coarse = [row for row in rows(tmp_path / "out" / "predictions.csv") if row["given_label"] in {"akiec", "bkl"}]
    assert found.exact_labels == made.pictures - len(coarse) < made.pictures
    assert sum(found.questions["melanoma"]) == made.pictures
    assert sum(found.questions["malignant"]) < made.pictures
    assert len({row["group"] for row in rows(tmp_path / "out" / "predictions.csv")}) <= 40


def test_pictures_without_labels_cannot_be_judged_and_the_way_out_is_named(tmp_path: Path) -> None:
    draw_many(tmp_path / "set", count=3, size=(40, 30))
    with pytest.raises(DataError, match=r"no picture there has a diagnosis to judge by. `dermalert score` needs none"):
        judge(bundle(), tmp_path / "set", tmp_path / "out")


def test_a_diagnosis_that_the_model_has_no_class_for_is_named(tmp_path: Path) -> None:
    draw_class_folders(tmp_path / "set", per_class=2, test_per_class=0, size=(40, 40), faults=False)
    with pytest.raises(DataError, match=r"no class for the label.*actinic keratosis.*it knows melanoma, nevus"):
        judge(bundle(), tmp_path / "set", tmp_path / "out")


# Manifests


@pytest.fixture
def audited(tmp_path: Path) -> Manifest:
    """The manifest of a small faultless set, audited and split."""
    draw_class_folders(
        tmp_path / "set", per_class=10, test_per_class=3, size=(40, 40), faults=False, classes=CLASSES, seed=2
    )
    return split(run_audit(tmp_path / "set", tmp_path / "audit", command="c", made=MADE).manifest)


def test_a_manifest_is_judged_as_its_folder_is(audited: Manifest, tmp_path: Path) -> None:
    by_manifest = judge(bundle(), tmp_path / "audit" / "manifest.parquet", tmp_path / "one")
    by_folder = judge(bundle(), tmp_path / "set", tmp_path / "other")
    assert {name: one.to_json() for name, one in by_manifest.items()} == {
        name: one.to_json() for name, one in by_folder.items()
    }


def test_of_the_set_that_the_bundle_learnt_from_only_test_pictures_are_judged(
    audited: Manifest, tmp_path: Path
) -> None:
    audited.write(tmp_path / "m.parquet")
    own = bundle(data={"source": "set", "fingerprint": audited.fingerprint()})
    evaluations = judge(own, tmp_path / "m.parquet", tmp_path / "own")
    assert evaluations[AS_GIVEN].pictures == 9
    assert {row["split"] for row in rows(tmp_path / "own" / "predictions.csv")} == {"test"}
    assert "only its 9 test pictures are judged" in (tmp_path / "own" / "report.html").read_text(encoding="utf-8")
    other = judge(bundle(), tmp_path / "m.parquet", tmp_path / "other")
    assert other[AS_GIVEN].pictures == 39


def test_the_set_that_the_bundle_learnt_from_is_not_judged_without_its_split(audited: Manifest, tmp_path: Path) -> None:
    audited.with_columns(split=[None] * len(audited)).write(tmp_path / "m.parquet")
    own = bundle(data={"fingerprint": audited.fingerprint(), "content": audited.content()})
    with pytest.raises(DataError, match="trained on pictures of this very set"):
        judge(own, tmp_path / "m.parquet", tmp_path / "out")


def test_of_its_own_test_part_a_picture_that_training_knows_is_not_clean(audited: Manifest, tmp_path: Path) -> None:
    parts = audited.column("split")
    known, learnt = parts.index("test"), parts.index("train")
    groups = audited.column("group")
    groups[known] = groups[learnt]
    leaky = audited.with_columns(group=groups)
    leaky.write(tmp_path / "m.parquet")
    own = bundle(data={"fingerprint": leaky.fingerprint()})
    found = judge(own, tmp_path / "m.parquet", tmp_path / "out")
    assert found["without doubtful pictures"].pictures == found[AS_GIVEN].pictures - 1


def test_lesions_that_the_bundle_learnt_from_are_left_out_of_any_set(audited: Manifest, tmp_path: Path) -> None:
    groups = [number // 2 for number in range(len(audited))]  # every lesion photographed twice
    audited.with_columns(group=groups).write(tmp_path / "m.parquet")
    hashes = [each[:LEARNT_DIGITS] for each in audited.column("sha256")]
    evaluations = judge(bundle(learnt=frozenset(hashes[:9])), tmp_path / "m.parquet", tmp_path / "out")
    assert evaluations[AS_GIVEN].pictures == len(audited) - 10
    judged_ids = {row["image_id"] for row in rows(tmp_path / "out" / "predictions.csv")}
    assert judged_ids == set(audited.column("image_id")[10:])
    assert "10 pictures of lesions that" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    with pytest.raises(DataError, match="learnt from every lesion"):
        judge(bundle(learnt=frozenset(hashes)), tmp_path / "m.parquet", tmp_path / "none")


def test_a_training_runs_report_is_not_replaced(audited: Manifest, tmp_path: Path) -> None:
    audited.write(tmp_path / "m.parquet")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "training.json").write_text("{}")
    with pytest.raises(RunError, match="holds a training run"):
        judge(bundle(), tmp_path / "m.parquet", tmp_path / "run")


def test_a_set_that_the_bundle_learnt_from_to_the_last_picture_is_no_test(audited: Manifest, tmp_path: Path) -> None:
    learnt = audited.where([part != "test" for part in audited.column("split")])
    learnt.write(tmp_path / "m.parquet")
    with pytest.raises(DataError, match="was trained on this very set, and it has no test pictures"):
        judge(bundle(data={"fingerprint": learnt.fingerprint()}), tmp_path / "m.parquet", tmp_path / "out")


def test_a_diagnosis_that_was_filled_into_the_manifest_counts_where_the_owner_gave_none(
    audited: Manifest, tmp_path: Path
) -> None:
    given = [None, "rash", *audited.column("given_label")[2:]]
    audited.with_columns(given_label=given).write(tmp_path / "m.parquet")
    evaluations = judge(bundle(), tmp_path / "m.parquet", tmp_path / "out")
    assert evaluations[AS_GIVEN].pictures == len(audited)
    assert {one.name: one.pictures for one in evaluations[AS_GIVEN].per_class} == dict.fromkeys(CLASSES, 13)


def test_pictures_that_are_gone_are_told_of_on_stderr_and_the_others_are_judged(
    audited: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = audited.paths()[4]
    gone.unlink()
    capsys.readouterr()
    evaluations = judge(bundle(), tmp_path / "audit" / "manifest.parquet", tmp_path / "out")
    assert evaluations[AS_GIVEN].pictures == len(audited) - 1
    told = capsys.readouterr()
    assert told.out == ""
    assert gone.name in told.err
    for path in audited.paths():
        path.unlink(missing_ok=True)
    with pytest.raises(DataError, match="none of its pictures can be read any more"):
        judge(bundle(), tmp_path / "audit" / "manifest.parquet", tmp_path / "out")


@pytest.mark.parametrize("name", ["line\nbreak", "carriage\rreturn", 'quo"te', "日本,"], ids=ascii)
def test_any_file_name_stands_whole_in_one_row(tmp_path: Path, name: str) -> None:
    for word, colour in (("melanoma", (200, 30, 30)), ("nevus", (30, 200, 30))):
        for number in range(3):
            paint(tmp_path / "set" / word / f"{name}{number}.png", (colour[0], colour[1], colour[2] + 60 * number))
    judge(bundle(), tmp_path / "set", tmp_path / "out")
    expected = [f"{word}/{name}{number}.png" for word in ("melanoma", "nevus") for number in range(3)]
    assert [row["image_id"] for row in rows(tmp_path / "out" / "predictions.csv")] == expected


def test_what_the_gate_refuses_is_counted_and_judged_all_the_same(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, low, high in (("melanoma/black", 0, 9), ("melanoma/a", 60, 255), ("nevus/b", 60, 255), ("nevus/c", 0, 9)):
        file = tmp_path / "set" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(low, high, (200, 200, 3)).astype(np.uint8)).save(file)
    judge(bundle(gate=quality_gate()), tmp_path / "set", tmp_path / "out")
    table = {Path(row["image_id"]).stem: row["refused"] for row in rows(tmp_path / "out" / "predictions.csv")}
    assert {name for name, why in table.items() if why} == {"black", "c"}
    told = strictly(tmp_path / "out" / "metrics.json")
    counted = ("pictures", "refused", "melanomas", "melanomas_refused")
    assert [told["gate"][name] for name in counted] == [4, 2, 2, 1]
    assert told["evaluations"][AS_GIVEN]["pictures"] == 4
    assert "would refuse 2 of the 4 pictures, 1 of the 2 of melanomas" in (tmp_path / "out" / "report.html").read_text()


def test_batches_of_any_size_give_the_same_logits_in_row_order(
    audited: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(bundle())
    found, logits, *_ = judging.score_labelled(engine, audited)
    assert found.column("image_id") == audited.column("image_id")
    monkeypatch.setattr(judging, "BATCH", 4)
    assert np.allclose(judging.score_labelled(engine, audited, workers=1).logits, logits, atol=1e-5)
    alone = [engine.logits(load(path, size=(20, 16)).pixels[None])[0] for path in audited.paths()[:5]]
    assert np.allclose(alone, logits[:5], atol=1e-5)


# What a terminal is told


def test_the_summary_gives_the_headline_figures_with_their_intervals(judged: Judged) -> None:
    lines = summary(judged.evaluations)
    assert len(lines) == 4
    accuracy = judged.evaluations[AS_GIVEN].figures["accuracy"]
    assert lines[0].startswith(f"{AS_GIVEN}: {judged.evaluations[AS_GIVEN].pictures} pictures; accuracy {accuracy}; ")
    assert lines[1].startswith("  at the alert threshold: sensitivity ")


def test_the_summary_of_a_model_without_a_threshold_speaks_of_no_alert(judged: Judged) -> None:
    without = {name: replace(one, operating_point=None) for name, one in judged.evaluations.items()}
    assert "alert" not in "\n".join(summary(without))

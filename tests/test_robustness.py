"""Robustness: figures on corrupted pictures that are right, paired, and shown."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from dermalert.bundle.format import Bundle
from dermalert.drawn import draw_table
from dermalert.drawn.corruptions import CORRUPTIONS, SEVERITIES
from dermalert.errors import DataError, RefusedFile
from dermalert.intake.manifest import Manifest
from dermalert.judge import metrics
from dermalert.judge.intervals import wilson
from dermalert.judge.robustness import Robustness, robustness, section
from dermalert.judge.scores import Scores
from dermalert.score.engine import Engine
from dermalert.stages.judging import labelled_manifest, run_evaluate
from dermalert.stages.robustness import chosen, judge_robustness
from graphs import bundle, paint

CLASSES = ("melanoma", "nevus")


def scores(count: int = 60, melanomas: int = 20, *, noise: float = 0.3, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    positive = np.arange(count) < melanomas
    melanoma = np.clip(0.3 + 0.4 * positive + rng.normal(0, noise, count), 0.01, 0.99)
    return Scores(
        tuple(f"{i}.jpg" for i in range(count)),
        CLASSES,
        np.stack([melanoma, 1 - melanoma], axis=1),
        np.stack([positive, ~positive], axis=1),
        np.arange(count, dtype=np.int64) // 2,
    )


def same(clean: Scores, names: tuple[str, ...] = ("noise", "hair")) -> dict[str, np.ndarray]:
    return {name: np.stack([clean.probabilities] * len(SEVERITIES)) for name in names}


def test_a_model_that_a_corruption_does_not_touch_keeps_its_figures_and_changes_by_nothing():
    clean = scores()
    found = robustness(clean, same(clean), operating_point=bundle().operating_point, resamples=100)
    for figures in found.spoilt["noise"]:
        assert {name: figures[name] for name in found.clean} == found.clean
        assert figures["auc_change"].value == 0
    assert [each.value for each in found.mean_auc] == pytest.approx([found.clean["auc"].value] * 5)


def test_the_figures_are_those_of_the_metrics():
    clean, other = scores(), scores(noise=0.6, seed=1)
    spoilt = same(clean) | {"JPEG": np.stack([other.probabilities] * 5)}
    point = bundle(threshold=0.4).operating_point
    found = robustness(clean, spoilt, operating_point=point, resamples=100)
    figures = found.spoilt["JPEG"][2]
    counts = metrics.at_threshold(other.melanoma(), 0.4)
    assert figures["auc"].value == pytest.approx(float(metrics.roc_auc(other.melanoma())))
    assert figures["balanced_accuracy"].value == pytest.approx(float(metrics.balanced_accuracy(other)))
    assert figures["sensitivity"].value == pytest.approx(float(counts.sensitivity))
    assert figures["specificity"].value == pytest.approx(float(counts.specificity))
    assert figures["auc_change"].value == pytest.approx(figures["auc"].value - found.clean["auc"].value)
    aucs = [found.clean["auc"].value, found.clean["auc"].value, figures["auc"].value]
    assert found.mean_auc[2].value == pytest.approx(np.mean(aucs))


def test_a_change_is_surer_than_the_difference_of_two_intervals():
    clean = scores(200, 80)
    nearly = np.clip(clean.probabilities + np.random.default_rng(2).normal(0, 0.02, (200, 2)), 0, 1)
    found = robustness(clean, {"noise": np.stack([nearly] * 5)}, operating_point=None, resamples=200)
    auc, change = (found.spoilt["noise"][0][name] for name in ("auc", "auc_change"))
    assert change.high - change.low < (auc.high - auc.low) / 3


def test_without_an_operating_point_sensitivity_and_specificity_are_left_out():
    clean = scores()
    found = robustness(clean, same(clean), operating_point=None, resamples=100)
    assert list(found.clean) == ["auc", "balanced_accuracy"]
    assert "Sensitivity" not in section(found).html


def test_without_a_gate_nothing_is_said_of_refusing_and_with_one_the_share_is():
    clean = scores()
    point = bundle().operating_point
    assert "Refused" not in section(robustness(clean, same(clean), operating_point=point, resamples=100)).html
    half = np.arange(60) % 2 == 0
    refused = {"": half[None], "noise": np.stack([half, *[half | True] * 4]), "hair": np.zeros((5, 60), dtype=bool)}
    for given in (point, None):
        found = robustness(clean, same(clean), operating_point=given, refused=refused, resamples=100)
        assert found.clean["refused"].value == 0.5
        assert [each["refused"].value for each in found.spoilt["noise"]] == [0.5, 1, 1, 1, 1]
        assert [each["refused"].value for each in found.spoilt["hair"]] == [0] * 5
        # Each lesion has one refused picture and one that is not, so lesions drawn anew say the same.
        assert found.clean["refused"].why == "Every resample gave the same value."
        assert found.spoilt["hair"][0]["refused"].high == pytest.approx(wilson(0, 30).high)
    assert "Refused by the gate" in section(found).html


@pytest.mark.parametrize("lacking", ["", "noise"])
def test_refusals_that_do_not_fit_are_refused(lacking):
    clean = scores()
    refused = {"": np.zeros((1, 60), bool), "noise": np.zeros((5, 60), bool), "hair": np.zeros((5, 60), bool)}
    given = {name: each for name, each in refused.items() if name != lacking}
    with pytest.raises(DataError, match="does not fit"):
        robustness(clean, same(clean), operating_point=None, refused=given)


def test_pictures_of_one_kind_alone_are_refused():
    clean = scores(melanomas=0)
    with pytest.raises(DataError, match="one kind alone"):
        robustness(clean, same(clean), operating_point=None)


def test_probabilities_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="'noise' do not fit"):
        robustness(scores(), {"noise": np.zeros((4, 60, 2))}, operating_point=None)


@pytest.mark.parametrize(("pictures", "melanomas"), [(30, 15), (10, 5), (50, 20), (58, 20), (500, 20)], ids=str)
def test_half_of_the_chosen_pictures_are_melanomas_as_far_as_there_are_any(pictures, melanomas):
    clean = scores()
    rows = chosen(clean, pictures, seed=0)
    assert len(rows) == len(set(rows)) == min(pictures, 60)
    assert clean.melanoma().positive[rows].sum() == melanomas


def test_where_other_lesions_are_few_more_melanomas_are_chosen():
    rows = chosen(scores(60, 50), 40, seed=0)
    assert (rows < 50).sum() == 30


def test_another_seed_chooses_other_pictures():
    assert set(chosen(scores(), 20, seed=0)) != set(chosen(scores(), 20, seed=1))
    np.testing.assert_array_equal(chosen(scores(), 20, seed=0), chosen(scores(), 20, seed=0))


def test_pictures_whose_label_leaves_melanoma_open_are_not_chosen():
    open_ = scores()
    open_.truth[:5] = True
    assert chosen(open_, 60, seed=0).min() == 5


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Manifest, Scores]:
    folder = tmp_path_factory.mktemp("drawn")
    draw_table(folder, lesions=8, seed=0)
    manifest, _ = labelled_manifest(folder)
    words = manifest.column("diagnosis")
    melanoma = np.array([word == "melanoma" for word in words])
    truth = np.stack([melanoma, ~melanoma, np.zeros(len(words), dtype=bool)], axis=1)
    ids = tuple(manifest.column("image_id"))
    return manifest, Scores(ids, bundle().classes, np.full(truth.shape, 1 / 3), truth, np.arange(len(ids)))


@pytest.fixture(scope="module")
def found(drawn) -> Robustness:
    return judge_robustness(Engine(bundle()), *drawn, pictures=6, resamples=100, workers=1)


def test_the_same_seed_gives_the_same_figures_whatever_the_number_of_workers(drawn, found):
    again = judge_robustness(Engine(bundle()), *drawn, pictures=6, resamples=100, workers=2)
    assert again.to_json() == found.to_json()


def test_the_gate_of_a_bundle_is_asked(drawn):
    manifest, labelled = drawn
    shipped = Bundle.shipped()
    classes = [shipped.classes.index("melanoma" if each else "nevus") for each in labelled.truth[:, 0]]
    truth = np.eye(len(shipped.classes), dtype=bool)[classes]
    nine = Scores(labelled.image_ids, shipped.classes, np.full(truth.shape, 1 / 9), truth, labelled.groups)
    found = judge_robustness(Engine(shipped), manifest, nine, pictures=6, resamples=100, workers=1)
    defocus = [each["refused"].value for each in found.spoilt["defocus"]]
    assert defocus[4] > defocus[0]
    assert "Refused by the gate" in section(found).html


def test_every_corruption_is_told_at_every_severity_in_plain_values(found):
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["pictures"] == 6
    assert set(told["corruptions"]) == set(CORRUPTIONS)
    assert all(
        [each["severity"] for each in one["severities"]] == [1, 2, 3, 4, 5] for one in told["corruptions"].values()
    )


def test_the_section_shows_a_curve_for_each_corruption_and_both_tables(found):
    html = section(found).html
    assert html.count('<svg class="chart"') == len(CORRUPTIONS)
    assert all(f"<strong>{name}.</strong>" in html for name in CORRUPTIONS)
    assert "mean of all" in html
    assert "Change of AUC" in html
    assert "Sensitivity" in html


def test_a_folder_without_the_pictures_is_told(drawn, tmp_path):
    manifest, labelled = drawn
    with pytest.raises(RefusedFile):
        judge_robustness(Engine(bundle()), replace(manifest, root=tmp_path), labelled, pictures=4)


def test_evaluate_tells_of_robustness_where_it_is_asked_to(tmp_path):
    for number in range(6):
        paint(tmp_path / "set" / "melanoma" / f"{number}.png", (200, 60 + number, 60))
        paint(tmp_path / "set" / "nevus" / f"{number}.png", (60, 200 - number, 60))
    bundle().save(tmp_path / "bundle")
    options = {"robustness": 8, "resamples": 100, "command": "dermalert", "made": datetime(2026, 3, 1, tzinfo=UTC)}
    run_evaluate(tmp_path / "bundle", tmp_path / "set", tmp_path / "out", **options)
    told = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["robustness"]
    assert (told["set"], told["pictures"], told["melanomas"]) == ("as given", 8, 4)
    assert told["clean"]["auc"]["value"] == 1
    assert told["corruptions"]["faded"]["severities"][4]["auc"]["value"] < 1
    assert "When the picture is bad" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

"""What a study promises: every arm beside the baseline, what failed named, the same figures on the page and in JSON."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert import page
from dermalert.errors import DataError
from dermalert.judge.compare import ALIKE, BETTER, FIGURES, UNKNOWN, WORSE, compare_all
from dermalert.judge.evaluation import evaluate
from dermalert.judge.study import Arm, Curves, Study, chosen_on_validation, compared
from dermalert.judge.study_json import study_json
from dermalert.judge.study_page import study_html, write_study
from dermalert.judge.study_words import delta, signed
from dermalert.judge.wording import measure
from dermalert.page.comparing import Frame, Whisker
from reading import Reading, read
from study_values import HOSTILE, TEST_VIEWS, arm, diverged, samples, scores, whole_study

MADE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
COMMAND = "dermalert study data/ --out study/"


@pytest.fixture(scope="module")
def study() -> Study:
    return whole_study()


@pytest.fixture(scope="module")
def whole(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Reading, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("study") / "made" / "here"
    write_study(folder, study, samples=samples(), command=COMMAND, made=MADE)
    assert sorted(file.name for file in folder.iterdir()) == ["study.html", "study.json"]
    html = (folder / "study.html").read_text(encoding="utf-8")
    return html, read(html), json.loads((folder / "study.json").read_text(encoding="utf-8"))


def _small(**changes: Any) -> Study:
    given: dict[str, Any] = {
        "baseline": "plain",
        "views": TEST_VIEWS,
        "class_counts": {"melanoma": {"train": 300, "validation": 60}, "nevus": {"train": 100, "validation": 20}},
        "resamples": 40,
    } | changes
    given.setdefault("arms", [arm("plain", "the baseline"), arm("other", "another way", ("something",), skill=2.0)])
    return Study("drawn", **given)


def _shown(study: Study, **given: Any) -> Reading:
    html = study_html(study, compared(study), **({"samples": {}, "command": COMMAND, "made": MADE} | given))
    reading = read(html)
    assert reading.problems == []
    assert "nan" not in reading.text.lower().split()
    return reading


def test_the_whole_page_is_well_formed_and_every_picture_chart_and_table_can_be_read_aloud(
    whole: tuple[str, Reading, dict[str, Any]],
) -> None:
    assert whole[1].problems == []
    assert [level for level, _ in whole[1].headings][:2] == [1, 2]
    linked = re.findall(r'<a href="#([a-z]+)">', whole[0])
    assert re.findall(r'<section id="([a-z]+)"', whole[0]) == linked
    assert len(linked) == len(re.findall(r'</h2>\s*<p class="plain">', whole[0])) == 10


def test_it_needs_no_network_and_no_name_in_it_runs(whole: tuple[str, Reading, dict[str, Any]]) -> None:
    assert "http://" not in whole[0]
    assert "https://" not in whole[0]
    assert "<script" not in whole[0]
    assert "\u202e" not in whole[0]
    assert HOSTILE.replace("\u202e", "\\u202e") in whole[1].text


def test_it_never_speaks_of_healthy_and_says_what_no_alert_does_not_mean(
    whole: tuple[str, Reading, dict[str, Any]],
) -> None:
    text = whole[1].text.lower()
    assert "healthy" not in text
    assert "“no alert” does not mean that a lesion is benign" in text


def test_every_arm_stands_in_the_table_also_those_that_failed_or_were_skipped(
    study: Study, whole: tuple[str, Reading, dict[str, Any]]
) -> None:
    html, reading, _ = whole
    table = html[html.index('<table class="arms">') : html.index("</table>")]
    rows = [row.split("<small>")[0] for row in table.split('<th scope="row">')[1:]]
    assert rows == [one.name for one in study.arms]
    assert "failed: out of memory" in reading.text
    assert "skipped: Its weights are not here." in reading.text
    assert "10 of 12" in reading.text


def test_the_page_and_the_json_say_the_same_figures(study: Study, whole: tuple[str, Reading, dict[str, Any]]) -> None:
    _, reading, plain = whole
    view = plain["headline"]
    assert view == "test, clean"
    for row in plain["arms"]:
        for first in row["runs"][:1]:
            for figure in FIGURES:
                told = first["evaluations"][view]["figures"][figure]
                assert told["value"] == study.arm(row["name"]).runs[0].evaluations[view].figures[figure].value
                shown = measure(study.arm(row["name"]).runs[0].evaluations[view].figures[figure], as_percent=False)
                assert figure not in ("melanoma_auc", "ece") or f"{shown.text} {shown.range}" in reading.text
        for figure, one in row["differences"].get(view, {}).items():
            if one["low"] is not None:
                ends = f"{signed(figure, one['low'])} to {signed(figure, one['high'])}"
                assert ends in reading.text
            assert one["verdict"] in reading.text


def test_the_differences_are_those_of_the_first_trainings_on_the_same_pictures(
    study: Study, whole: tuple[str, Reading, dict[str, Any]]
) -> None:
    models = {one.name: one.runs[0].scores["test, raw"] for one in study.done() if one.name != "plain"}
    made = compare_all(models, study.arm("plain").runs[0].scores["test, raw"], resamples=study.resamples)
    for row in whole[2]["arms"]:
        if row["name"] in models:
            for figure, one in row["differences"]["test, raw"].items():
                assert one == made[row["name"]][figure].to_json()


def test_the_number_of_comparisons_and_what_chance_alone_would_find_is_said(
    whole: tuple[str, Reading, dict[str, Any]],
) -> None:
    counted = whole[2]["comparisons"]["test, clean"]
    assert counted["made"] == 9 * len(FIGURES)
    assert counted["expected_by_chance"] == pytest.approx(0.05 * 45)
    assert counted["excluding_zero"] >= counted["standing"] > 0
    assert "The table makes 45 comparisons. At 95\N{NO-BREAK SPACE}%, about one in 20 leaves 0 out by chance alone" in (
        whole[1].text
    )


def test_repeated_trainings_show_mean_and_spread_and_single_ones_are_named_as_such(
    study: Study, whole: tuple[str, Reading, dict[str, Any]]
) -> None:
    values = [one.evaluations["test, clean"].figures["melanoma_auc"].value for one in study.arm("transfer").runs]
    row = next(row for row in whole[2]["arms"] if row["name"] == "transfer")
    assert row["spread"]["test, clean"]["melanoma_auc"] == {
        "mean": pytest.approx(np.mean(values)),
        "deviation": pytest.approx(np.std(values, ddof=1)),
        "n": 3,
    }
    assert f"mean {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in whole[1].text
    assert "Trained once: augmented, balanced" in whole[1].text
    assert [one["seed"] for one in row["runs"]] == [0, 1, 2]


def test_the_choice_is_made_on_validation_and_told_with_what_it_is_worth_on_test(
    study: Study, whole: tuple[str, Reading, dict[str, Any]]
) -> None:
    chosen = chosen_on_validation(study)
    assert chosen is not None
    assert whole[2]["chosen_on_validation"] == chosen.name
    assert f"By validation one would choose {chosen.name}" in whole[1].text
    swapped = replace(study, arms=[replace(one, runs=[_with_test_of(one, study)]) for one in study.done()])
    assert chosen_on_validation(swapped) == swapped.arm(_best_first_run(study))


def _with_test_of(one: Arm, study: Study) -> Any:
    """The arm's first training with the best arm's validation left alone and all tests alike: test must not matter."""
    plain = study.arm("plain").runs[0].evaluations
    return replace(one.runs[0], evaluations={**plain, "validation": one.runs[0].evaluations["validation"]})


def _best_first_run(study: Study) -> str:
    def auc(one: Arm) -> float:
        return one.runs[0].evaluations["validation"].figures["melanoma_auc"].value

    return max(study.done(), key=auc).name


def test_what_balancing_does_stands_beside_what_is_found(
    study: Study, whole: tuple[str, Reading, dict[str, Any]]
) -> None:
    html = whole[0]
    table = html[html.index('class="byclass"') :]
    table = table[: table.index("</table>")]
    assert table.index("pigmented benign keratosis") < table.index("seborrheic keratosis")
    assert "balanced and balanced-sampling" in table
    assert "6 : 1" in table
    assert "1 : 1" in table
    assert table.count('<th scope="row">') == 3 + len(study.done())


def test_the_curves_of_every_arm_are_drawn_with_the_baseline_behind_and_what_they_say(
    study: Study, whole: tuple[str, Reading, dict[str, Any]]
) -> None:
    html = whole[0][whole[0].index('<div class="panels">') :]
    assert html.count("<title>plain, validation loss</title>") == len(study.done()) - 1
    assert "Repeated with seed 1: overfitting, seed 2: overfitting." in whole[1].text
    assert "Augment the training pictures." in whole[1].text


def test_each_augmentation_shows_the_original_first(whole: tuple[str, Reading, dict[str, Any]]) -> None:
    row = whole[0][whole[0].index('class="samples altered"') :]
    alts = [part.split('"')[0] for part in row.split('alt="')[1:]]
    assert alts[:3] == [
        "The original picture",
        "The same picture after flips, version 1",
        "The same picture after flips, version 2",
    ]
    assert alts[3] == "The original picture"


def test_sources_of_a_pooled_arm_are_shown_with_that_arm_alone(whole: tuple[str, Reading, dict[str, Any]]) -> None:
    pooled = next(row for row in whole[2]["arms"] if row["name"] == "pooled")
    assert pooled["incomparable"] == {
        "validation, isic9": "plain was not judged on validation, isic9.",
        "validation, ham10000": "plain was not judged on validation, ham10000.",
    }
    assert "pooled: validation, ham10000" in whole[1].text


def test_the_leak_is_told_as_no_result(study: Study, whole: tuple[str, Reading, dict[str, Any]]) -> None:
    text, leak = whole[1].text, whole[2]["leak"]
    assert leak["leaky"]["siblings"] == 611
    assert "611" in text
    assert "75 to 84 %" in text
    assert "They are not a result" in text
    promised = leak["leaky"]["evaluations"]["validation"]["figures"]["accuracy"]["value"]
    kept = leak["leaky"]["evaluations"]["test, clean"]["figures"]["accuracy"]["value"]
    assert f"{round(100 * promised) - round(100 * kept)} points more" in text


def test_costs_and_epochs_are_means_and_ranges(whole: tuple[str, Reading, dict[str, Any]]) -> None:
    assert "8\N{NO-BREAK SPACE}min" in whole[1].text
    assert "14 (9)" in whole[1].text
    cost = whole[2]["arms"][0]["runs"][0]["cost"]
    assert list(cost) == ["seconds", "images_per_second", "parameters", "peak_mib", "epochs", "best_epoch"]


def test_study_json_keeps_its_documented_keys_and_repeats(study: Study, tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        write_study(folder, study, samples={}, command=COMMAND, made=MADE)
    text = (tmp_path / "one" / "study.json").read_text(encoding="utf-8")
    assert text == (tmp_path / "two" / "study.json").read_text(encoding="utf-8")
    assert (tmp_path / "one" / "study.html").read_bytes() == (tmp_path / "two" / "study.html").read_bytes()
    plain = json.loads(text, parse_constant=_no_constant)
    assert list(plain) == [
        *("format", "name", "baseline", "headline", "views", "seed", "resamples", "level", "figures", "comparisons"),
        *("chosen_on_validation", "data", "arms", "additions", "leak"),
    ]
    assert list(plain["arms"][0]) == [
        *("name", "summary", "state", "why", "changes", "recipe", "training_counts", "differences", "incomparable"),
        *("spread", "runs"),
    ]
    first = plain["arms"][1]["runs"][0]
    assert list(first) == ["seed", "cost", "diagnosis", "curves", "evaluations"]
    assert list(first["evaluations"]) == list(TEST_VIEWS)
    assert list(plain["arms"][1]["differences"]["validation"]["melanoma_auc"]) == [
        *("value", "low", "high", "level", "verdict", "stands"),
    ]
    assert plain["arms"][0]["recipe"] == {"name": "drawn", "epochs": 14}
    assert plain["data"]["refused"] == [{"file": HOSTILE, "reason": "cut off", "mend": "Copy it again"}]


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} in study.json")


def test_a_diverged_arm_whose_cost_was_not_measured_is_shown_and_null_in_json(tmp_path: Path) -> None:
    study = _small(arms=[arm("plain"), diverged(arm("other"))])
    write_study(tmp_path, study, samples={}, command=COMMAND, made=MADE)
    plain = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"), parse_constant=_no_constant)
    first = plain["arms"][1]["runs"][0]
    assert first["curves"]["loss"][2] is None
    assert first["cost"]["why"] == "Not known: images_per_second, peak_mib, best_epoch."
    text = _shown(study).text
    assert "not measured" in text
    assert "14 (none)" in text
    assert "Diverged" in text


def test_without_test_pictures_validation_stands_first_and_is_said_to_flatter() -> None:
    arms = [arm("plain", views=("validation",)), arm("other", skill=2.0, views=("validation",))]
    study = _small(arms=arms, views=("validation",))
    text = _shown(study).text
    assert study.headline == "validation"
    assert "They flatter every arm." in text
    assert "The same on" not in text


def test_with_raw_test_pictures_only_the_headline_is_not_the_flattered_one() -> None:
    assert _small(views=("test, raw",)).headline == "test, raw"
    assert _small(views=("validation", "test, raw")).headline == "validation"


def test_without_leak_augmentation_sources_and_refusals_their_sections_are_away() -> None:
    headings = [text for _, text in _shown(_small()).headings]
    assert "Oversampling before the split" not in headings
    assert "What augmentation does to a picture" not in headings
    assert "Each source by itself" not in headings
    assert "None: every file was read." in _shown(_small()).text


def test_what_one_arm_adds_to_another_is_held_against_that_one(tmp_path: Path) -> None:
    added = [replace(arm(name, skill=skill), adds_to="better") for name, skill in (("mixup", 2.0), ("cutmix", 0.5))]
    lost = Arm("occlusion", "hairs", "{}", state="failed", why="out of memory", adds_to="better")
    study = _small(arms=[arm("plain"), arm("better", skill=2.0), *added, lost])
    reading = _shown(study)
    assert "What each addition does" in [text for _, text in reading.headings]
    assert "failed: out of memory" in reading.text
    found = study_json(study, compared(study))["additions"]
    assert set(found["better"]["validation"]) == {"mixup", "cutmix"}
    assert found["better"]["validation"]["cutmix"]["balanced_accuracy"]["verdict"] == "worse"
    assert study_json(_small(), compared(_small()))["additions"] == {}


def test_a_study_whose_baseline_failed_shows_the_others_without_differences() -> None:
    lost = Arm("plain", "the baseline", "{}", state="failed", why="out of memory")
    study = _small(arms=[lost, arm("other")])
    result = compared(study)
    assert result.differences["validation"] == {}
    assert result.incomparable["validation"] == {"other": "There is nothing to compare with: plain failed."}
    text = _shown(study).text
    assert "plain failed: out of memory" in text
    assert "Without plain there is nothing to compare with" in text


def test_a_study_of_which_nothing_was_trained_is_still_a_page(tmp_path: Path) -> None:
    lost = [Arm(name, "", "not json", state="failed", why="no space left") for name in ("plain", "other")]
    study = _small(arms=lost, class_counts={})
    assert "0 of 2" in _shown(study).text
    write_study(tmp_path, study, samples={}, command=COMMAND, made=MADE)
    plain = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))
    assert plain["arms"][0]["recipe"] == "not json"
    assert plain["chosen_on_validation"] is None


def test_a_baseline_alone_is_a_page_without_comparisons() -> None:
    text = _shown(_small(arms=[arm("plain")])).text
    assert "How many comparisons" not in text
    assert "1 way of training" in text


def test_an_arm_judged_on_other_pictures_is_shown_and_not_compared() -> None:
    other = arm("other", skill=2.0)
    first = other.runs[0]
    moved = {view: replace(one, image_ids=tuple(f"x{i}" for i in one.image_ids)) for view, one in first.scores.items()}
    study = _small(arms=[arm("plain"), replace(other, runs=[replace(first, scores=moved)])])
    text = _shown(study).text
    assert "other, validation: The two models were not judged on the same pictures." in text


def test_without_melanomas_the_page_says_what_cannot_be_computed() -> None:
    def without(one: Arm) -> Arm:
        first = one.runs[0]
        kept = {view: s.where(~s.truth[:, s.classes.index("melanoma")]) for view, s in first.scores.items()}
        judged = {view: evaluate(s, operating_point=None, resamples=20) for view, s in kept.items()}
        return replace(one, runs=[replace(first, scores=kept, evaluations=judged)])

    study = _small(arms=[without(arm("plain")), without(arm("other", skill=2.0))])
    assert compared(study).differences["validation"]["other"]["melanoma_auc"].verdict == UNKNOWN
    text = _shown(study).text
    assert "cannot be computed" in text
    assert "Few melanomas: 0 on test, clean." in text


def test_hostile_names_everywhere_neither_run_nor_break_the_page() -> None:
    arms = [
        replace(arm(HOSTILE, HOSTILE), recipe_json=HOSTILE),
        arm(f"other {HOSTILE}", HOSTILE, (HOSTILE,), verdict=HOSTILE, views=(HOSTILE, *TEST_VIEWS)),
        Arm(f"lost {HOSTILE}", HOSTILE, HOSTILE, (HOSTILE,), state="skipped", why=HOSTILE),
    ]
    study = _small(arms=arms, baseline=HOSTILE, notes=[HOSTILE], class_counts={HOSTILE: {HOSTILE: 3}})
    study = replace(study, name=HOSTILE)
    given = {"samples": {HOSTILE: samples()["flips"]}, "command": HOSTILE, "made": MADE}
    html = study_html(study, compared(study), **given)
    assert read(html).problems == []
    assert "<script" not in html
    assert "\u202e" not in html


def test_a_study_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(DataError, match="share a name"):
        _small(arms=[arm("plain"), arm("plain")])
    with pytest.raises(DataError, match="is no arm"):
        _small(arms=[arm("other")])
    with pytest.raises(DataError, match="needs a view"):
        _small(views=())
    with pytest.raises(DataError, match="state 'lost'"):
        Arm("plain", "", "{}", state="lost")
    with pytest.raises(DataError, match="done and has 0 trainings"):
        Arm("plain", "", "{}")
    with pytest.raises(DataError, match="one length"):
        Curves([1.0], [0.5], [1.0], [])


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(FIGURES), st.floats(-1, 1))
def test_a_signed_figure_is_never_minus_zero_and_keeps_its_sign(figure: str, value: float) -> None:
    text = signed(figure, value)
    assert text[0] in "+\N{MINUS SIGN}" or float(text) == 0
    assert "-" not in text


def test_a_verdict_is_said_in_words_and_marked_for_the_eye() -> None:
    found = compare_all({"a": scores(270, skill=3.0, seed=1)}, scores(270, skill=1.0, seed=2), resamples=50)["a"]
    told = delta("accuracy", found["accuracy"])
    assert (told.verdict, told.mark, told.alone) == (BETTER, "▲", False)
    assert told.text.endswith("points")
    alone = delta("accuracy", replace(found["accuracy"], verdict=WORSE, stands=False))
    assert (alone.verdict, alone.mark, alone.alone) == (WORSE, "▼", True)
    assert delta("accuracy", replace(found["accuracy"], verdict=ALIKE, stands=False)).mark == ""


def test_a_forest_tells_arms_that_stand_out_from_those_that_do_not() -> None:
    rows = [
        Whisker("better", 0.1, 0.05, 0.15, "+0.10", filled=True),
        Whisker("alike", 0.0, -0.1, 0.1, "0", filled=False),
        Whisker(HOSTILE * 9, math.nan, math.nan, math.nan, "cannot be computed"),
    ]
    chart = page.forest(rows, title="Differences", quantity="AUC", reference=0.0)
    assert read(chart).problems == []
    assert chart.count("dot hollow") == 1
    assert chart.count("<circle") == 2
    assert "…" in chart
    assert "nan" not in chart.lower()
    assert "<script" not in chart


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)) | st.just((math.nan, math.nan)), max_size=8))
def test_any_forest_can_be_drawn(ends: list[tuple[float, float]]) -> None:
    rows = [Whisker(str(i), low, low, low + width, "x") for i, (low, width) in enumerate(ends)]
    chart = page.forest(rows, title="t", quantity="q")
    assert read(chart).problems == []
    assert "nan" not in chart


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1e30) | st.just(math.nan), max_size=40), st.booleans())
def test_any_panel_can_be_drawn(losses: list[float], fraction: bool) -> None:
    frame = Frame.around("loss", [losses, [1.0, 0.5]], fraction=fraction)
    chart = page.panel(
        losses, losses, frame, name="plain", beside=[1.0], beside_name="x", best_epoch=len(losses) or None
    )
    assert read(chart).problems == []
    assert 'd="Mnan' not in chart


def test_a_runaway_loss_does_not_press_the_others_to_the_floor() -> None:
    frame = Frame.around("loss", [[2.0, 1.0], [1.8, 0.9], [2.2, 1e9], [math.nan]])
    assert frame.top < 3
    assert frame.epochs == 2

"""What the report promises a clinician: the misses first, every figure with its interval, no false comfort."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup
from numpy.typing import NDArray

from dermalert import page
from dermalert.errors import BrokenPicture, DataError
from dermalert.judge.evaluation import Evaluation, evaluate
from dermalert.judge.mistakes import worst
from dermalert.judge.operating import OperatingPoint, at_sensitivity
from dermalert.judge.report import DataSummary, write_report
from dermalert.judge.scores import Scores
from dermalert.taxonomy import MELANOMA, NAMES
from reading import Reading, read

HOSTILE = '"><script>alert(1)</script>\u202egpj.exe'
MADE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class _History:
    loss: tuple[float, ...] = (1.9, 1.4, 1.0, 0.6)
    accuracy: tuple[float, ...] = (0.3, 0.5, 0.65, 0.8)
    val_loss: tuple[float, ...] = (1.8, 1.5, 1.45, 1.7)
    val_accuracy: tuple[float, ...] = (0.32, 0.45, 0.5, 0.49)


@dataclass(frozen=True)
class _Diagnosis:
    verdict: str = "overfitting"
    sentences: tuple[str, ...] = ("From epoch 3 on, the validation loss rises while the training loss falls.",)
    suggestions: tuple[str, ...] = ("Augment the training pictures.",)
    best_epoch: int = 3


def _scores(pictures: int = 240, *, skill: float = 2.0, seed: int = 7) -> Scores:
    random = np.random.default_rng(seed)
    truth = np.arange(pictures) % len(NAMES)
    logits = random.normal(size=(pictures, len(NAMES)))
    logits[np.arange(pictures), truth] += skill
    odds = np.exp(logits)
    ids = tuple(f"{NAMES[kind]}/{i:03}.jpg" for i, kind in enumerate(truth.tolist()))
    groups = np.arange(pictures, dtype=np.int64) // 2
    return Scores(ids, NAMES, odds / odds.sum(axis=1, keepdims=True), np.eye(len(NAMES), dtype=bool)[truth], groups)


def _chosen() -> OperatingPoint:
    return at_sensitivity(0.95, _scores(seed=1).melanoma(), name="95 % sensitivity")


def _evaluation(scores: Scores) -> Evaluation:
    return evaluate(scores, operating_point=_chosen(), resamples=60)


def _pixels(_: str) -> NDArray[np.uint8]:
    return np.full((30, 40, 3), 150, np.uint8)


DATA = DataSummary(
    name="drawn",
    counts={name: {"train": 30 + 5 * i, "validation": 8, "test": 4} for i, name in enumerate(NAMES)},
    samples={name: [f"{name}/000.jpg", HOSTILE] for name in NAMES},
    refused=[BrokenPicture(HOSTILE, "cut off", "Copy it again")],
    notes=["155 groups of identical files carry contradictory labels."],
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Reading]:
    file = tmp_path_factory.mktemp("report") / "report.html"
    raw, clean = _scores(), _scores(160, skill=1.0, seed=3)
    write_report(
        file,
        title="Plain CNN on drawn pictures",
        evaluations={"test (raw)": _evaluation(raw), "test (clean)": _evaluation(clean)},
        command="dermalert evaluate run/bundle data --out report",
        made=MADE,
        history=_History(),
        diagnosis=_Diagnosis(),
        data=DATA,
        mistakes=worst(replace(raw, image_ids=(HOSTILE, *raw.image_ids[1:])), threshold=0.4),
        mistakes_on="test (raw)",
        pixels_of=_pixels,
    )
    html = file.read_text(encoding="utf-8")
    return html, read(html)


def test_the_whole_report_is_well_formed_and_every_picture_chart_and_table_can_be_read_aloud(
    whole: tuple[str, Reading],
) -> None:
    assert whole[1].problems == []
    assert [level for level, _ in whole[1].headings][:2] == [1, 2]


def test_no_name_in_the_data_runs_as_a_script(whole: tuple[str, Reading]) -> None:
    assert "<script" not in whole[0]
    assert "\u202e" not in whole[0]
    assert HOSTILE.replace("\u202e", "\\u202e") in whole[1].text


def test_the_report_needs_no_network(whole: tuple[str, Reading]) -> None:
    assert "http://" not in whole[0]
    assert "https://" not in whole[0]


def test_it_speaks_of_refer_and_no_alert_and_never_of_healthy(whole: tuple[str, Reading]) -> None:
    text = whole[1].text.lower()
    assert "refer" in text
    assert "no alert" in text
    assert "healthy" not in text
    assert "supports a clinician and decides nothing alone" in text


def test_every_section_begins_with_a_plain_sentence(whole: tuple[str, Reading]) -> None:
    assert whole[0].count("<section ") == whole[0].count('<p class="plain">') > 5


def test_missed_melanomas_stand_before_all_other_mistakes(whole: tuple[str, Reading]) -> None:
    headings = [text for _, text in whole[1].headings]
    first = headings.index("Missed melanomas")
    assert headings[first : first + 3] == ["Missed melanomas", "Worst false alarms", "Most confident wrong calls"]


def test_the_sets_stand_side_by_side_with_intervals(whole: tuple[str, Reading]) -> None:
    assert "test (raw)" in whole[1].text
    assert "test (clean)" in whole[1].text
    clean = _evaluation(_scores(160, skill=1.0, seed=3)).figures["melanoma_auc"]
    assert f"{clean.value:.2f}" in whole[1].text
    assert f"{clean.low:.2f} to {clean.high:.2f}" in whole[1].text


def test_the_counts_of_refer_and_no_alert_are_those_of_the_pictures(tmp_path: Path) -> None:
    scores = _scores()
    html = _written(tmp_path, scores)
    binary, threshold = scores.melanoma(), _chosen().threshold
    missed = int((binary.positive & (binary.probability < threshold)).sum())
    alarms = int((~binary.positive & (binary.probability >= threshold)).sum())
    assert f"<b>{missed}</b>" in html
    assert f"<b>{alarms}</b>" in html


def test_the_reading_of_the_curves_is_shown_with_what_to_try(whole: tuple[str, Reading]) -> None:
    assert "Overfitting" in whole[1].text
    assert "From epoch 3 on" in whole[1].text
    assert "Augment the training pictures." in whole[1].text


def test_what_cannot_be_computed_says_why_and_is_never_a_number(tmp_path: Path) -> None:
    scores = _scores()
    html = _written(tmp_path, scores.where(~scores.truth[:, NAMES.index(MELANOMA)]))
    text = read(html).text
    assert "cannot be computed" in text
    assert "There is no positive picture." in text
    assert "There is no melanoma here" in text
    assert "nan" not in text.lower().split()
    assert read(html).problems == []


def test_a_model_that_guesses_is_called_one(tmp_path: Path) -> None:
    assert "cannot be told from guessing" in read(_written(tmp_path, _scores(skill=0.0))).text


def test_a_threshold_that_misses_its_target_is_named(tmp_path: Path) -> None:
    assert "was chosen to find at least 95" in read(_written(tmp_path, _scores(skill=0.0))).text


def test_a_model_without_a_threshold_is_not_said_to_alert(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    evaluation = evaluate(_scores(), operating_point=None, resamples=60)
    write_report(file, title="t", evaluations={"test": evaluation}, command="c", made=MADE)
    reading = read(file.read_text(encoding="utf-8"))
    assert "This model has no threshold for an alert" in reading.text
    assert "What the alert does" not in [text for _, text in reading.headings]


def test_a_picture_that_cannot_be_read_does_not_cost_the_report(tmp_path: Path) -> None:
    def refuse(image_id: str) -> NDArray[np.uint8]:
        raise BrokenPicture(image_id, "the file is cut off", "Copy it again")

    scores = _scores(skill=0.0)
    file = tmp_path / "report.html"
    write_report(
        file,
        title="t",
        evaluations={"test": _evaluation(scores)},
        command="c",
        made=MADE,
        mistakes=worst(scores, threshold=0.5),
        pixels_of=refuse,
    )
    assert "Picture not shown: the file is cut off" in file.read_text(encoding="utf-8")


def test_only_the_pictures_that_are_shown_are_loaded(tmp_path: Path) -> None:
    asked: list[str] = []

    def pixels(image_id: str) -> NDArray[np.uint8]:
        asked.append(image_id)
        return _pixels(image_id)

    scores = _scores(skill=0.0)
    mistakes = worst(scores, threshold=0.3, most=3)
    write_report(
        tmp_path / "report.html",
        title="t",
        evaluations={"test": _evaluation(scores)},
        command="c",
        made=MADE,
        mistakes=mistakes,
        pixels_of=pixels,
    )
    assert asked == [m.image_id for m in (*mistakes.missed, *mistakes.alarms, *mistakes.confident)]
    assert len(asked) == 9


def test_the_same_values_give_the_same_report(tmp_path: Path) -> None:
    assert _written(tmp_path, _scores()) == _written(tmp_path, _scores())


def test_a_report_on_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one to four"):
        write_report(tmp_path / "report.html", title="t", evaluations={}, command="c", made=MADE)


def test_the_headline_is_one_of_the_sets(tmp_path: Path) -> None:
    evaluations = {"test": _evaluation(_scores())}
    with pytest.raises(DataError, match="'validation'"):
        write_report(
            tmp_path / "r.html", title="t", evaluations=evaluations, command="c", made=MADE, headline="validation"
        )


def test_the_surest_miss_comes_first_and_no_miss_is_listed_twice() -> None:
    scores = _scores(skill=0.5)
    found = worst(scores, threshold=0.3, most=5)
    melanoma = scores.melanoma()
    assert found.missed_in_all == int((melanoma.positive & (melanoma.probability < 0.3)).sum())
    assert [m.melanoma for m in found.missed] == sorted(m.melanoma for m in found.missed)
    assert found.missed[0].melanoma == pytest.approx(melanoma.probability[melanoma.positive].min())
    assert [m.probability for m in found.confident] == sorted((m.probability for m in found.confident), reverse=True)
    everywhere = [m.image_id for m in (*found.missed, *found.alarms, *found.confident)]
    assert len(set(everywhere)) == len(everywhere)


def test_the_surest_false_alarm_comes_first_and_a_label_that_may_be_melanoma_raises_none() -> None:
    scores = _scores(skill=0.5)
    scores.truth[int(scores.probabilities[:, NAMES.index(MELANOMA)].argmax())] = True
    found = worst(scores, threshold=0.3, most=5)
    melanoma = scores.melanoma()
    others = melanoma.probability[~melanoma.positive]
    assert (found.alarms_in_all, found.others) == (int((others >= 0.3).sum()), len(others))
    assert [m.melanoma for m in found.alarms] == pytest.approx(np.sort(others)[::-1][:5].tolist())


def test_what_is_known_of_a_picture_stands_below_it_and_in_its_alternative_text(tmp_path: Path) -> None:
    scores = _scores(skill=0.0)
    mistakes = worst(scores, threshold=0.5, most=1)
    write_report(
        tmp_path / "report.html",
        title="t",
        evaluations={"test": _evaluation(scores)},
        command="c",
        made=MADE,
        mistakes=mistakes,
        pixels_of=_pixels,
        facts_of={mistakes.missed[0].image_id: "female, 60 to 74"},
    )
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("; female, 60 to 74") == 2


def test_sections_of_other_rooms_stand_in_the_contents_and_can_be_reached(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    told = [("Is it fair? No!", Markup('<p class="plain">Plain.</p>'))]
    write_report(
        file,
        title="t",
        evaluations={"test": _evaluation(_scores())},
        command="c",
        made=MADE,
        sections=[page.Section(*parts) for parts in told],
    )
    html = file.read_text(encoding="utf-8")
    assert '<a href="#is-it-fair-no">Is it fair? No!</a>' in html
    assert '<section id="is-it-fair-no"' in html
    assert read(html).problems == []


def test_a_coarse_label_is_wrong_only_where_it_rules_the_call_out() -> None:
    truth = np.zeros((2, len(NAMES)), dtype=bool)
    truth[:, [0, 7]] = True  # akiec
    probabilities = np.full((2, len(NAMES)), 0.02)
    probabilities[0, 7] = probabilities[1, 4] = 1 - 0.02 * (len(NAMES) - 1)
    found = worst(Scores(("a", "b"), NAMES, probabilities, truth, np.arange(2)), threshold=0.5)
    assert [m.image_id for m in found.confident] == ["b"]
    assert found.melanomas == 0
    assert not math.isnan(found.confident[0].probability)


def _written(folder: Path, scores: Scores) -> str:
    file = folder / "report.html"
    write_report(file, title="t", evaluations={"test": _evaluation(scores)}, command="c", made=MADE)
    return file.read_text(encoding="utf-8")

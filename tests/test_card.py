"""What the model card promises its readers, and the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dermalert.bundle.card import NOT_MEASURED, model_card, text_of
from dermalert.cli import main
from dermalert.judge.calibration import Calibration
from dermalert.judge.intervals import Interval
from dermalert.judge.operating import PREVALENCES, predictive_values
from graphs import point
from run_values import bundle, evaluation


def matter(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


@pytest.fixture(scope="module")
def card() -> str:
    return model_card(bundle(), {"test, clean": evaluation()})


def test_its_front_matter_is_what_the_hub_reads(card: str) -> None:
    found = matter(card)
    assert found["license"] == "cc-by-nc-4.0"
    assert found["pipeline_tag"] == "image-classification"
    assert {"dermoscopy", "melanoma"} <= set(found["tags"])
    (model,) = found["model-index"]
    (result,) = model["results"]
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"]["name"] == "test, clean"
    auc = next(metric for metric in result["metrics"] if metric["name"].startswith("melanoma AUC"))
    assert auc["type"] == "roc_auc"
    assert auc["value"] == pytest.approx(evaluation().figures["melanoma_auc"].value, abs=1e-4)
    assert "95% interval" in auc["name"]


def test_a_name_cannot_break_out_of_the_front_matter_or_a_table() -> None:
    name = 'a\n---\nlicense: mit "x" | y: [1'
    hostile = model_card(bundle(name=name), {name: evaluation()})
    found = matter(hostile)
    assert found["license"] == "cc-by-nc-4.0"
    assert found["model-index"][0]["name"] == name
    assert found["model-index"][0]["results"][0]["dataset"]["name"] == name
    (row,) = [line for line in text_of(hostile).splitlines() if line.startswith("| figure")]
    assert row.replace("\\|", "").count("|") == 3


def test_a_figure_that_cannot_be_computed_is_left_out_of_the_front_matter_and_said_in_the_text() -> None:
    card = model_card(bundle(), {"nevi only": evaluation(melanomas=False)})
    names = [metric["name"] for metric in matter(card)["model-index"][0]["results"][0]["metrics"]]
    assert not [name for name in names if name.startswith("melanoma AUC")]
    assert "| melanoma AUC | not computable |" in card


def test_it_says_what_the_model_is_for_and_what_it_is_made_of(card: str) -> None:
    for told in (
        "Not a medical device",
        "does not mean that a lesion is benign",
        "not for decisions without a clinician",
        "mucosa, nails",
        "20×16 px",
        "melanoma, nevus, vascular lesion",
        "- train pictures: 800",
        "| screening | 0.5000 | the pictures chosen on | 0.96 (0.90 to 1.00) |",
    ):
        assert told in card, told
    assert "nan" not in card.lower().split()


def test_every_set_has_its_column_and_its_number_of_pictures() -> None:
    one = evaluation()
    text = model_card(bundle(), {"validation": one, "test, clean": replace(one, pictures=7)})
    header, rule = [line for line in text_of(text).splitlines() if line.startswith("|")][:2]
    assert header == "| figure | validation (n=120, 60 lesions) | test, clean (n=7, 60 lesions) |"
    assert rule.count("|") == header.count("|")


def test_code_and_weights_have_each_their_licence_and_every_owner_is_named(card: str) -> None:
    assert "Code: Apache-2.0." in card
    assert "Weights: **CC BY-NC 4.0**" in card
    assert "non-commercial use only" in card
    for owner in ("Tschandl", "ISIC Archive", "Codella", "Ling Evan"):
        assert owner in card


def test_weights_without_a_licence_are_not_given_one() -> None:
    card = model_card(bundle(licence="", attribution=()), {"test": evaluation()})
    assert matter(card)["license"] == "unknown"
    assert "states no licence" in card
    assert "non-commercial" not in card


def test_predictive_values_stand_at_every_stated_prevalence(card: str) -> None:
    for prevalence in PREVALENCES:
        (row,) = [line for line in card.splitlines() if line.startswith(f"| screening | {prevalence:.0%} |")]
        ppv, npv = predictive_values(point(0.5), prevalence)
        assert f"{100 * ppv.value:.1f}" in row
        assert f"{100 * npv.value:.1f}" in row


def test_a_release_says_what_it_does_itself_and_not_only_what_the_networks_did_that_it_was_made_of() -> None:
    made = bundle(data={"source": "a + b", "folds": 5}, prepare=("shades-of-gray",))
    held_out = replace(point(0.5), sensitivity=Interval(0.9, 0.8, 1.0), specificity=Interval(0.4, 0.3, 0.5))
    text = model_card(made, {"held out": evaluation()}, held_out=[held_out])
    assert "| screening | 0.5000 | 5 networks, out of fold | 0.96 (0.90 to 1.00) |" in text
    assert "| screening | 0.5000 | this one, held out | 0.90 (0.80 to 1.00) | 0.40 (0.30 to 0.50) |" in text
    ppv, _ = predictive_values(held_out, 0.02)
    assert f"| screening | 2% | {100 * ppv.value:.1f}" in text
    assert "has learnt from all their lesions" in text
    assert "not trained on" not in text
    assert "applies shades of gray" in text


def test_a_class_that_no_label_means_alone_is_said_to_be_never_named() -> None:
    shares = {"melanoma": 0.2, "nevus": 0.8, "vascular lesion": 1e-11}
    turned_off = bundle(prevalence=shares, calibration=Calibration(1.0, (5.0, 6.0, -11.0)))
    assert "never names vascular lesion" in model_card(turned_off, {})
    assert "never names" not in model_card(bundle(prevalence=shares), {})  # only none to calibrate on


def test_a_model_without_a_threshold_is_said_to_alert_on_nobody() -> None:
    assert "Scores carry no alert" in model_card(bundle(threshold=None), {"test": evaluation()})


def test_what_nobody_measured_is_said_to_be_so(card: str) -> None:
    headings = ("Subgroups", "Robustness", "The gate", "Explanations")
    assert all(f"## {heading}\n\n{NOT_MEASURED}" in card for heading in headings)
    told = model_card(bundle(), {"test": evaluation()}, robustness="Blur costs 0.02.", limits=["Fails on hair."])
    assert "## Robustness\n\nBlur costs 0.02." in told
    assert "- Fails on hair." in told


def test_the_text_is_the_card_without_what_machines_read(card: str) -> None:
    assert text_of(card).startswith("# Model card: ")
    assert card.endswith(text_of(card))
    assert text_of("# By hand\n\n---\n\nmore\n") == "# By hand\n\n---\n\nmore\n"


def test_the_command_prints_it_and_writes_what_the_hub_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], card: str
) -> None:
    bundle(card=card + "\x1b[2J\n").save(tmp_path / "bundle")
    main(["card", "--bundle", str(tmp_path / "bundle")])
    shown = capsys.readouterr().out
    assert shown == text_of(card) + "\\x1b[2J\n"
    main(["card", "--bundle", str(tmp_path / "bundle"), "--format", "hf", "--out", str(tmp_path / "README.md")])
    assert capsys.readouterr().out == ""
    assert (tmp_path / "README.md").read_text("utf-8") == card + "\x1b[2J\n"

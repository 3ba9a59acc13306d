"""What the reporting checklists promise: every item, an answer only where the run knows one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dermalert.bundle.checklist import OPEN, Checklist, Run, checklists
from dermalert.judge.faithfulness import EvidenceFigures
from dermalert.judge.intervals import Interval
from dermalert.judge.report import DataSummary
from dermalert.judge.robustness import Robustness
from dermalert.judge.scrutiny import Scrutiny
from dermalert.judge.subgroups import Facet, Gap
from dermalert.stages.checklisting import write_checklists
from reading import read
from run_values import bundle, evaluation

HOSTILE = '"><script>alert(1)</script>'


def run(**changes: Any) -> Run:
    gap = Gap("under 30", "75 and over", Interval(0.05, 0.01, 0.1))
    facets = (Facet("age", (), {"auc": gap}), Facet("sex", (), {}))
    fields = {
        "bundle": bundle(),
        "evaluations": {"as given": evaluation()},
        "data": DataSummary(name="clinic-2", counts={"melanoma": {"all": 40}}),
        "scrutiny": Scrutiny(0.3, (), {}, "", facets, None, (), 0.95),
        "maps": EvidenceFigures("class activation", 0, 0, "", {}),
        "command": "dermalert evaluate bundle clinic-2",
    }
    return Run(**{**fields, **changes})


def numbers(checklist: Checklist) -> list[str]:
    return [item.number for item in checklist.items]


def answer(checklist: Checklist, number: str) -> str:
    return next(item.answer for item in checklist.items if item.number == number)


def test_claim_2024_has_its_44_items_in_order() -> None:
    assert numbers(checklists(run())[0]) == [str(number) for number in range(1, 45)]


def test_tripod_ai_has_its_27_items_and_52_parts_in_order() -> None:
    found = numbers(checklists(run())[1])
    assert len(found) == len(set(found)) == 52
    assert list(dict.fromkeys(int(re.sub(r"\D", "", number)) for number in found)) == list(range(1, 28))


def test_an_item_that_only_a_person_can_answer_is_left_open() -> None:
    claim, tripod = checklists(run())
    for checklist, left in ((claim, ("5", "16", "34", "44")), (tripod, ("3c", "17", "18a", "18b", "19"))):
        assert {answer(checklist, number) for number in left} == {OPEN}


def test_what_was_not_measured_is_not_claimed() -> None:
    claim = checklists(run())[0]
    assert answer(claim, "30") == answer(claim, "31") == answer(claim, "36").strip(" .") == OPEN


def test_what_was_measured_is_told_with_its_figures() -> None:
    some, less = Interval(0.9, 0.8, 0.95), Interval(0.7, 0.6, 0.8)
    spoilt = Robustness(40, 30, 12, {"auc": some}, {"blur": ()}, (some, some, less, less, less), 100, 0)
    maps = EvidenceFigures("class activation", 25, 0, "", {"deletion_gain": less, "likeness": some})
    told = checklists(run(robustness=spoilt, maps=maps, characteristics="Of 40 pictures, sex known of 9"))[0]
    assert "melanoma AUC 0.90 (0.80 to 0.95) without" in answer(told, "30")
    assert "0.70 (0.60 to 0.80). Each" in answer(told, "30")
    assert "on 25 pictures" in answer(told, "31")
    assert "0.90 (0.80 to 0.95)" in answer(told, "31")
    assert answer(told, "36").startswith("Of 40 pictures, sex known of 9")


def test_figures_come_with_their_intervals_and_gaps_between_groups_are_told() -> None:
    claim, tripod = checklists(run())
    auc = str(evaluation().figures["melanoma_auc"])
    assert re.search(r"\(\d.\d\d to \d.\d\d\)", auc)
    assert auc in answer(claim, "37")
    assert auc in answer(tripod, "23a")
    assert "age: 0.05 (0.01 to 0.10) (under 30 above 75 and over)" in answer(tripod, "23a")
    assert "CC BY-NC 4.0" in answer(claim, "43")


def test_a_model_without_alert_or_gate_is_not_said_to_have_them() -> None:
    claim, tripod = checklists(run(bundle=bundle(threshold=None)))
    assert "without a threshold" in answer(tripod, "15")
    assert "no gate" in answer(tripod, "27a")
    assert "There is no threshold" in answer(claim, "26")


def test_the_documents_hold_every_item_and_say_how_much_is_left(tmp_path: Path) -> None:
    write_checklists(
        tmp_path, run(data=DataSummary(name=HOSTILE, counts={})), made=datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checklists.html", "claim.md", "tripod-ai.md"]
    claim = (tmp_path / "claim.md").read_text("utf-8")
    assert len(re.findall(r"^\*\*\d+\. ", claim, re.MULTILINE)) == 44
    left = len(re.findall(OPEN, claim))
    assert left >= int(re.search(r"(\d+) wait for authors", claim)[1]) > 0  # type: ignore[index]
    html = (tmp_path / "checklists.html").read_text("utf-8")
    assert read(html).problems == []
    assert "<script" not in html


@pytest.mark.parametrize("number", ["1", "44"])
def test_an_open_item_counts_as_open(number: str) -> None:
    claim = checklists(run())[0]
    assert next(item for item in claim.items if item.number == number).open

"""What is told of subgroups: every group, small ones too, and gaps no surer than the pictures allow."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from dermalert.judge.metrics import at_threshold, roc_auc
from dermalert.judge.scores import Scores
from dermalert.judge.subgroups import FEWEST, UNKNOWN, Facet, age_bands, body_sites, subgroups, tone_bands
from dermalert.taxonomy import MELANOMA, NAMES

MEL = NAMES.index(MELANOMA)


def scores_of(pictures: int = 600, *, skill: float = 2.0, seed: int = 0) -> Scores:
    random = np.random.default_rng(seed)
    truth = np.where(random.random(pictures) < 0.3, MEL, NAMES.index("nevus"))
    logits = random.normal(size=(pictures, len(NAMES)))
    logits[np.arange(pictures), truth] += skill
    odds = np.exp(logits)
    ids = tuple(f"{i}.jpg" for i in range(pictures))
    kinds = np.eye(len(NAMES), dtype=bool)[truth]
    return Scores(ids, NAMES, odds / odds.sum(axis=1, keepdims=True), kinds, np.arange(pictures, dtype=np.int64) // 2)


def one(scores: Scores, told: list[str | None], **options: float) -> Facet:
    (facet,) = subgroups(scores, {"sex": told}, **{"threshold": 0.3, "resamples": 100, "seed": 0, **options})  # type: ignore[arg-type]
    return facet


def test_a_groups_figures_are_those_of_its_pictures_alone() -> None:
    scores = scores_of()
    told = ["female" if i % 3 else "male" for i in range(len(scores))]
    for group in one(scores, list(told)).groups:
        binary = scores.where(np.array([word == group.name for word in told])).melanoma()
        counts = at_threshold(binary, 0.3)
        assert group.pictures == len(binary.positive)
        assert group.melanomas == binary.positive.sum()
        assert group.auc.value == pytest.approx(roc_auc(binary))
        assert group.sensitivity.value == pytest.approx(counts.sensitivity)
        assert group.specificity.value == pytest.approx(counts.specificity)
        assert group.auc.low < group.auc.value < group.auc.high


def test_a_group_that_the_model_fails_shows_as_a_gap_that_chance_does_not_explain() -> None:
    scores = scores_of()
    failed = np.arange(len(scores)) % 4 < 2
    noise = np.random.default_rng(1).dirichlet(np.ones(len(NAMES)), size=len(scores))
    worse = replace(scores, probabilities=np.where(failed[:, None], noise, scores.probabilities))
    gap = one(worse, ["failed" if bad else "served" for bad in failed]).gaps["auc"]
    assert (gap.best, gap.worst) == ("served", "failed")
    assert gap.difference.low > 0.1


def test_a_gap_between_groups_by_lot_is_seldom_called_one() -> None:
    called = 0
    for seed in range(40):
        scores = scores_of(300, seed=seed)
        lots = np.random.default_rng(seed + 100).integers(5, size=150)
        gaps = one(scores, [f"lot {lots[i // 2]}" for i in range(300)], resamples=200).gaps
        called += gaps["sensitivity"].difference.low > 0
    assert called <= 6  # without the allowance for having picked the best and the worst it is 11


def test_a_group_of_which_all_are_found_does_not_make_a_gap_look_surer_than_it_is() -> None:
    positive = np.arange(48) % 2 == 0
    probability = np.where(positive, 0.9, 0.1)
    probability[[0, 2]] = 0.1  # 2 of 12 melanomas of the first group missed, none of 12 of the second
    probabilities = np.stack([probability, 1 - probability], axis=1)
    truth = np.stack([positive, ~positive], axis=1)
    scores = Scores(tuple(map(str, range(48))), (MELANOMA, "nevus"), probabilities, truth, np.arange(48))
    gap = one(scores, ["first"] * 24 + ["second"] * 24, resamples=400).gaps["sensitivity"]
    # Newcombe's hybrid score interval of 12/12 less 10/12 is -0.10 to 0.45; resampled differences never fall below 0.
    assert gap.difference.value == pytest.approx(1 / 6)
    assert gap.difference.low == pytest.approx(-0.10, abs=0.03)
    assert gap.difference.high == pytest.approx(0.43, abs=0.06)


def test_a_small_group_is_shown_and_marked_and_no_gap_counts_it() -> None:
    scores = scores_of()
    told = ["female" if i % 2 else "male" for i in range(len(scores))]
    few = np.flatnonzero(scores.truth[:, MEL])[: FEWEST - 2]
    for row in few:
        told[row] = "other"
    facet = one(scores, list(told))
    small = facet.groups[-1]
    assert (small.name, small.pictures, small.judged) == ("other", FEWEST - 2, False)
    assert math.isnan(small.specificity.value)
    assert small.specificity.why
    assert {name for gap in facet.gaps.values() for name in (gap.best, gap.worst)} == {"female", "male"}


def test_what_is_not_known_stands_last_and_no_gap_counts_it() -> None:
    scores = scores_of()
    facet = one(scores, [None if i % 4 else "male" for i in range(len(scores))])
    assert [group.name for group in facet.groups] == ["male", UNKNOWN]
    assert not facet.groups[-1].judged
    assert facet.gaps == {}


def test_a_label_that_leaves_melanoma_open_is_in_no_group() -> None:
    scores = scores_of(100)
    scores.truth[0] = True
    assert sum(group.pictures for group in one(scores, ["all"] * 100).groups) == 99


def test_without_an_alert_only_the_ranking_is_judged() -> None:
    scores = scores_of(200)
    facet = subgroups(scores, {"sex": ["m", "f"] * 100}, threshold=None, resamples=50)[0]
    assert set(facet.gaps) == {"auc"}
    assert all(math.isnan(group.sensitivity.value) for group in facet.groups)


def test_bands_stand_in_their_natural_order_and_meet_without_a_hole() -> None:
    assert age_bands([0, 29, 30, 44.5, 45, 74, 75, 90, None]) == [
        *("under 30", "under 30", "30 to 44", "30 to 44", "45 to 59", "60 to 74", "75 and over", "75 and over", None),
    ]
    assert tone_bands([-60, -30, -29, 10, 28, 41, 55, 56, 90, 91, -91, math.nan]) == [
        *("dark", "dark", "brown", "brown", "tan", "intermediate", "light", "very light", "very light"),
        *(None, None, None),
    ]
    facet = one(scores_of(300), age_bands([80, 10, 50] * 100))
    assert [group.name for group in facet.groups] == ["under 30", "45 to 59", "75 and over"]


def test_sites_of_the_public_sets_are_brought_to_one_vocabulary_and_others_stay() -> None:
    assert body_sites(["face", "Head/Neck", "palms/soles", "anterior torso", "back", "tail", None]) == [
        *("head/neck", "head/neck", "hands and feet", "trunk", "trunk", "tail", None),
    ]


def test_json_holds_every_group_and_gap() -> None:
    plain = one(scores_of(), ["male", "female", None] * 200).to_json()
    assert set(plain["groups"]) == {"male", "female", UNKNOWN}
    assert set(plain["gaps"]) == {"auc", "sensitivity", "specificity"}
    assert plain["gaps"]["auc"]["difference"]["value"] >= 0

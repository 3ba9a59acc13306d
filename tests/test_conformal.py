"""Conformal sets hold the truth as often as they say, category by category, however lesions were photographed."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.judge.conformal import ConformalSets, categories_of
from dermalert.judge.scores import Scores
from dermalert.taxonomy import NAMES

CLASSES = ("actinic keratosis", "melanoma", "nevus", "squamous cell carcinoma")
CATEGORY = {"actinic keratosis": "akiec", "squamous cell carcinoma": "akiec", "melanoma": "melanoma", "nevus": "nevus"}


def drawn(seed: int, lesions: int, *, photographs: bool = True) -> tuple[Scores, NDArray[np.int64]]:
    """Pictures of lesions of which those photographed often are the harder ones, and the true classes."""
    random = np.random.default_rng(seed)
    truth = random.choice(4, lesions, p=[0.1, 0.15, 0.65, 0.1])
    count = np.minimum(random.geometric(0.4, lesions), 6) if photographs else np.ones(lesions, np.int64)
    seen = np.eye(4)[truth] * (3.5 - 0.5 * count[:, None]) + random.normal(0, 1.2, (lesions, 4))
    groups = np.repeat(np.arange(lesions), count)
    odds = np.exp(seen[groups] + random.normal(0, 0.5, (len(groups), 4)))
    ids = tuple(map(str, range(len(groups))))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    return Scores(ids, CLASSES, probabilities, np.eye(4, dtype=bool)[truth[groups]], groups), truth[groups]


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_of_each_category_at_least_the_stated_share_has_it_in_the_set(coverage: float) -> None:
    hits, reached = defaultdict(list), defaultdict(list)
    for seed in range(80):
        fitted = ConformalSets.fit(drawn(2 * seed, 300)[0], coverage=coverage)
        new, truth = drawn(2 * seed + 1, 300)
        _, one_a_lesion = np.unique(new.groups, return_index=True)
        sets = fitted.sets(new.probabilities, CLASSES)
        for picture in one_a_lesion.tolist():
            category = CATEGORY[CLASSES[truth[picture]]]
            hits[category].append(category in sets[picture])
            places = [CLASSES.index(name) for name in fitted.categories[category]]
            reached[category].append(new.probabilities[picture, places].sum() >= fitted.thresholds[category])
    for category, hit in hits.items():
        assert np.mean(hit) >= coverage - 0.01, category
        # And no threshold is lower than it need be: only the rule that the likeliest is always in makes more of them.
        assert coverage - 0.01 <= np.mean(reached[category]) <= coverage + 0.03, category


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_with_one_picture_a_lesion_the_sets_are_those_of_the_textbooks_p_values(
    seed: int, lesions: int, coverage: float
) -> None:
    scores, truth = drawn(seed, lesions, photographs=False)
    fitted = ConformalSets.fit(scores, coverage=coverage)
    new = drawn(seed + 1, 20)[0]
    columns = [[CLASSES.index(name) for name in members] for members in fitted.categories.values()]
    for row, found in zip(new.probabilities, fitted.sets(new.probabilities, CLASSES), strict=True):
        expected = {max(zip(fitted.categories, columns, strict=True), key=lambda each: row[each[1]].sum())[0]}
        expected.add(CATEGORY[CLASSES[row.argmax()]])
        for name, places in zip(fitted.categories, columns, strict=True):
            known = scores.probabilities[np.isin(truth, places)][:, places].sum(axis=1)
            p_value = (1 + (known <= row[places].sum()).sum()) / (len(known) + 1)
            if p_value > 1 - coverage + 1e-9:
                expected.add(name)
        assert set(found) == expected


def test_several_photographs_of_a_lesion_weigh_as_much_as_one() -> None:
    scores, _ = drawn(1, 200, photographs=False)
    again = np.repeat(np.arange(200), 3)
    tripled = Scores(
        tuple(map(str, range(600))), CLASSES, scores.probabilities[again], scores.truth[again], scores.groups[again]
    )
    assert ConformalSets.fit(tripled) == ConformalSets.fit(scores)


def test_a_category_with_too_few_lesions_is_in_every_set() -> None:
    scores, _ = drawn(3, 400, photographs=False)
    melanomas = np.flatnonzero(scores.truth[:, 1])
    kept = np.ones(400, dtype=bool)
    for left, always in ((9, False), (8, True)):
        kept[melanomas[left:]] = False
        fitted = ConformalSets.fit(scores.where(kept))
        assert (fitted.thresholds["melanoma"] == 0) == always
        unlikely = np.array([[0.0, 0.0, 1.0, 0.0]])
        assert ("melanoma" in fitted.sets(unlikely, CLASSES)[0]) == always


def test_no_set_is_empty_and_the_likeliest_stands_first() -> None:
    fitted = ConformalSets(0.9, categories_of(CLASSES), {"akiec": 0.9, "melanoma": 0.3, "nevus": 0.9})
    probabilities = np.array([[0.3, 0.1, 0.35, 0.25], [0.0, 0.4, 0.6, 0.0]])
    sets = [("akiec", "nevus"), ("nevus", "melanoma")]  # of the first, no class alone is likelier than nevus
    assert fitted.sets(probabilities, CLASSES) == sets
    assert fitted.sets(probabilities[:, ::-1], CLASSES[::-1]) == sets


def test_melanoma_is_in_the_set_of_every_picture_that_raises_an_alert() -> None:
    scores, _ = drawn(6, 300)
    strict = ConformalSets.fit(scores)
    fitted = ConformalSets.fit(scores, alerts=strict.thresholds["melanoma"] / 4)
    alerts = scores.probabilities[:, 1] >= strict.thresholds["melanoma"] / 4
    inside = np.array(["melanoma" in each for each in fitted.sets(scores.probabilities, CLASSES)])
    assert inside[alerts].all()
    assert not inside[~alerts].any()
    assert ConformalSets.fit(scores, alerts=1.0) == strict


def test_labels_that_leave_the_category_open_teach_nothing_and_coarse_ones_within_it_do() -> None:
    scores, _ = drawn(4, 300)
    truth = scores.truth.copy()
    akiec = truth[:, 0] | truth[:, 3]
    truth[akiec] = [True, False, False, True]
    coarse = Scores(scores.image_ids, CLASSES, scores.probabilities, truth, scores.groups)
    assert ConformalSets.fit(coarse) == ConformalSets.fit(scores)
    truth = truth.copy()
    truth[akiec] = [True, False, True, True]
    open_ones = Scores(scores.image_ids, CLASSES, scores.probabilities, truth, scores.groups)
    assert ConformalSets.fit(open_ones) == ConformalSets.fit(scores.where(~akiec))


def test_classes_that_a_coarse_label_does_not_tell_apart_are_one_category() -> None:
    found = categories_of(NAMES)
    assert found["akiec"] == ("actinic keratosis", "squamous cell carcinoma")
    assert found["bkl"] == ("pigmented benign keratosis", "seborrheic keratosis")
    assert sorted(name for members in found.values() for name in members) == sorted(NAMES)
    assert categories_of(("melanoma", "seborrheic keratosis"))["seborrheic keratosis"] == ("seborrheic keratosis",)


def test_conformal_sets_survive_json() -> None:
    fitted = ConformalSets.fit(drawn(5, 100)[0])
    assert ConformalSets.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False))) == fitted
    with pytest.raises(DataError, match="Not conformal sets"):
        ConformalSets.from_json({"coverage": 0.9})


@pytest.mark.parametrize("coverage", [0.0, 1.0, float("nan")])
def test_a_coverage_outside_zero_and_one_is_refused(coverage: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        ConformalSets.fit(drawn(6, 20)[0], coverage=coverage)


def test_a_broken_probability_is_refused() -> None:
    scores, _ = drawn(7, 20)
    scores.probabilities[3, 1] = np.nan
    with pytest.raises(DataError, match="NaN"):
        ConformalSets.fit(scores)

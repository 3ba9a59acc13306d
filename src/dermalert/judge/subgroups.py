"""Subgroups: whether the model serves everybody alike.

Comes in: `Scores`, and for each picture what is known of the patient and the photograph: age, sex, body site, skin
tone, image source. Goes out: `Facet`s: the pictures parted by one such fact, with the melanoma figures of each group
and the gap between the best and the worst. It explains no gap: groups differ in their lesions and cameras too.

Groups with fewer than `FEWEST` melanomas or other lesions are shown, marked as too small to judge, and left out of
the gaps. A gap's two groups are picked after looking, and of many groups two differ by chance; its interval allows for
that (Bonferroni over all pairs of groups judged).
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.judge.evaluation import WHY_NAN
from dermalert.judge.intervals import Interval, bootstrap_draws, interval_of
from dermalert.judge.metrics import Ranking
from dermalert.judge.scores import Binary, Scores

FEWEST = 10  # lesions of either kind; below it, one melanoma more or less found moves the sensitivity by over 10 points
FIGURES = ("auc", "sensitivity", "specificity")
UNKNOWN = "not known"
NO_ALERT = "The model has no threshold for an alert."

# Each band begins at the age before it, and ends below the one after it.
AGES = (30, 45, 60, 75)
AGE_BANDS = ("under 30", "30 to 44", "45 to 59", "60 to 74", "75 and over")
# Each band lies above the angle before it (Del Bino and Bernerd, Br J Dermatol 169 (Suppl 3):33-40, 2013).
ANGLES = (-30, 10, 28, 41, 55)
TONE_BANDS = ("dark", "brown", "tan", "intermediate", "light", "very light")
# The sites of HAM10000 and of the ISIC archive, in the archive's coarser words.
_SITES = {
    "head/neck": ("face", "scalp", "ear", "neck", "head neck", "head"),
    "trunk": ("trunk", "back", "chest", "abdomen", "torso", "anterior torso", "posterior torso", "lateral torso"),
    "upper extremity": ("upper extremity", "arm"),
    "lower extremity": ("lower extremity", "leg"),
    "hands and feet": ("hand", "foot", "acral", "palms soles", "palm", "sole", "nail"),
    "oral/genital": ("genital", "oral genital", "oral", "mucosa"),
}
_SITE_OF = {word: site for site, words in _SITES.items() for word in words}


@dataclass(frozen=True)
class Subgroup:
    """The pictures that share a fact, of those whose label says melanoma or not.

    Attributes:
        pictures, lesions, melanomas: how many; `melanomas` counts pictures.
        auc, sensitivity, specificity: of melanoma, the latter two at the operating point, with lesion-bootstrap
            intervals.
        judged: whether it has `FEWEST` melanomas and others, counted as lesions, and so counts in the gaps.
    """

    name: str
    pictures: int
    lesions: int
    melanomas: int
    auc: Interval
    sensitivity: Interval
    specificity: Interval
    judged: bool

    def to_json(self) -> dict[str, Any]:
        """Counts, figures as `Interval.to_json` has them, and `judged`."""
        counts = {"pictures": self.pictures, "lesions": self.lesions, "melanomas": self.melanomas}
        return counts | {figure: getattr(self, figure).to_json() for figure in FIGURES} | {"judged": self.judged}


@dataclass(frozen=True)
class Gap:
    """How far the best and the worst group judged part in one figure.

    Attributes:
        difference: best less worst, with an interval widened for having picked the two after looking.
    """

    best: str
    worst: str
    difference: Interval

    def to_json(self) -> dict[str, Any]:
        """`best`, `worst` and `difference`."""
        return {"best": self.best, "worst": self.worst, "difference": self.difference.to_json()}


@dataclass(frozen=True)
class Facet:
    """The pictures parted by one fact.

    Attributes:
        name: of the fact: "age", "sex".
        groups: in their natural order, or the largest first; what is not known stands last and is never judged.
        gaps: by figure; none where fewer than two groups can be judged.
    """

    name: str
    groups: tuple[Subgroup, ...]
    gaps: Mapping[str, Gap]

    def to_json(self) -> dict[str, Any]:
        """`groups` and `gaps`, each by name."""
        return {
            "groups": {group.name: group.to_json() for group in self.groups},
            "gaps": {figure: gap.to_json() for figure, gap in self.gaps.items()},
        }


def age_bands(years: Iterable[float | None]) -> list[str | None]:
    """The band of each age; None where it is not known."""
    return [None if age is None else AGE_BANDS[bisect_right(AGES, age)] for age in years]


def tone_bands(angles: Iterable[float]) -> list[str | None]:
    """The band of each individual typology angle, in degrees; None for NaN and beyond 90, where no skin lies."""
    return [TONE_BANDS[bisect_left(ANGLES, angle)] if abs(angle) <= 90 else None for angle in angles]


def body_sites(words: Iterable[str | None]) -> list[str | None]:
    """Sites in the ISIC archive's coarse words; one that is not known here stays as it was written."""
    return [None if word is None else _SITE_OF.get(" ".join(re.findall(r"\w+", word.lower())), word) for word in words]


def subgroups(
    scores: Scores,
    facts: Mapping[str, Sequence[str | None]],
    *,
    threshold: float | None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Facet, ...]:
    """The melanoma figures of each group, all over the same resampled lesions.

    Args:
        facts: by the fact's name, what is known of each picture (N,); None where nothing is.
        threshold: of the alert; None leaves sensitivity and specificity NaN.
        level: of the groups' intervals, and for a gap's over all its pairs of groups.
    """
    binary = scores.melanoma()
    decided = replace(scores, groups=np.arange(len(scores), dtype=np.int64)).melanoma().groups.tolist()
    parted = {fact: _parted(binary, [told[row] for row in decided], threshold) for fact, told in facts.items()}
    groups = [group for members in parted.values() for group in members]
    if not groups:
        return tuple(Facet(fact, (), {}) for fact in facts)

    def figures(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([group.figures(weights) for group in groups], axis=-1)

    draws = bootstrap_draws(figures, binary.groups, resamples=resamples, seed=seed)
    of_group = iter(np.split(draws, len(groups), axis=1))
    return tuple(
        _facet(fact, [(member, next(of_group)) for member in members], level) for fact, members in parted.items()
    )


class _Group:
    """The pictures of one group, sorted once, whose figures are a function of the weights of all pictures."""

    def __init__(self, name: str, rows: NDArray[np.intp], binary: Binary, threshold: float | None) -> None:
        self.name, self.rows, self._threshold = name, rows, threshold
        self.binary = Binary(binary.probability[rows], binary.positive[rows], binary.groups[rows])
        self._ranking = Ranking(self.binary)
        positive = self.binary.positive
        self.lesions = {kind: len(np.unique(self.binary.groups[positive == kind])) for kind in (True, False)}

    @property
    def judged(self) -> bool:
        return self.name != UNKNOWN and min(self.lesions.values()) >= FEWEST

    @property
    def alerts(self) -> bool:
        return self._threshold is not None

    def figures(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """AUC, sensitivity and specificity, float64 (..., 3)."""
        swept = self._ranking.sweep(weights[..., self.rows])
        auc = swept.auc()
        if self._threshold is None:
            return np.stack([auc, np.full_like(auc, np.nan), np.full_like(auc, np.nan)], axis=-1)
        counts = swept.at(self._threshold)
        return np.stack([auc, counts.sensitivity, counts.specificity], axis=-1)


def _parted(binary: Binary, told: Sequence[str | None], threshold: float | None) -> list[_Group]:
    """Bands in their order, other groups the largest first, and what is not known last."""
    names = np.array([UNKNOWN if word is None else word for word in told], dtype=object)
    natural = {name: place for place, name in enumerate((*AGE_BANDS, *TONE_BANDS))}
    counted = Counter(names.tolist())
    ordered = sorted(counted, key=lambda name: (name == UNKNOWN, natural.get(name, 0), -counted[name], name))
    return [_Group(name, np.flatnonzero(names == name), binary, threshold) for name in ordered]


def _facet(fact: str, members: Sequence[tuple[_Group, NDArray[np.float64]]], level: float) -> Facet:
    judged = [(group, draws) for group, draws in members if group.judged]
    gaps = {}
    if len(judged) > 1:
        # So that all pairs of groups are covered at once, whichever two are picked after looking.
        wider = 1 - (1 - level) / math.comb(len(judged), 2)
        gaps = _gaps([_subgroup(group, draws, wider) for group, draws in judged])
    return Facet(fact, tuple(_subgroup(group, draws, level) for group, draws in members), gaps)


def _subgroup(group: _Group, draws: NDArray[np.float64], level: float) -> Subgroup:
    values = group.figures(np.ones(int(group.rows.max()) + 1)).tolist()
    behind = (0, group.lesions[True], group.lesions[False])
    auc, sensitivity, specificity = (
        _explained(figure, interval_of(values[k], draws[:, k], behind[k], level=level), group.alerts)
        for k, figure in enumerate(FIGURES)
    )
    lesions, melanomas = len(np.unique(group.binary.groups)), int(group.binary.positive.sum())
    return Subgroup(group.name, len(group.rows), lesions, melanomas, auc, sensitivity, specificity, group.judged)


def _explained(figure: str, interval: Interval, alerts: bool) -> Interval:
    if not math.isnan(interval.value):
        return interval
    return replace(interval, why=WHY_NAN[figure] if alerts or figure == "auc" else NO_ALERT)


def _gaps(groups: Sequence[Subgroup]) -> dict[str, Gap]:
    gaps = {}
    for figure in FIGURES:
        known = [(getattr(group, figure), group.name) for group in groups]
        known = [(interval, name) for interval, name in known if not math.isnan(interval.value)]
        if len(known) > 1:
            ranked = sorted(known, key=lambda held: held[0].value)
            (low, worst), (high, best) = ranked[0], ranked[-1]
            gaps[figure] = Gap(best, worst, _difference(high, low))
    return gaps


def _difference(high: Interval, low: Interval) -> Interval:
    """The interval of a difference from those of its parts, of different lesions.

    By the method of variance estimates recovery (Zou and Donner, Stat Med 27:1693-1702, 2008), which for proportions is
    Newcombe's: it holds where all of a group are found, which no resample would contradict.
    """
    value = high.value - low.value
    down, up = (
        math.hypot(high.value - high.low, low.high - low.value),
        math.hypot(high.high - high.value, low.value - low.low),
    )
    why = high.why or low.why
    return Interval(value, value - down, value + up, high.level, why)

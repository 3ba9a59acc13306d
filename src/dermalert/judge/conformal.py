"""Conformal sets: the diagnoses that a picture's scores leave open, at a stated coverage.

Comes in: calibrated probabilities and the truth on pictures that the model was not trained on, as `Scores`.
Goes out: `ConformalSets`, which names for each picture the categories that are left open.
It promises coverage for pictures like those it was fitted on, category by category; elsewhere it promises nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.judge.operating import ROUNDING
from dermalert.judge.scores import Scores
from dermalert.taxonomy import COARSE, MELANOMA

COVERAGE = 0.9
MERGED = ("akiec", "bkl")  # coarse labels that much of the training data leaves open


@dataclass(frozen=True)
class ConformalSets:
    """Class-conditional (Mondrian) split conformal prediction: for each picture, the categories it may show.

    Of the pictures of every category at least the share `coverage` has that category in its set, if they are like
    those fitted on (Vovk, "Conditional validity of inductive conformal predictors", ACML 2012; Sadinle, Lei and
    Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", JASA 114(525), 2019). The likeliest
    category, and that of the likeliest class, are always in the set, so that none is empty.

    Attributes:
        coverage: the share, in (0, 1).
        categories: the classes in each; every class in one. Classes that a coarse label does not tell apart are one
            category.
        thresholds: a category is in the set from this summed probability of its classes on; 0: always.
    """

    coverage: float
    categories: Mapping[str, tuple[str, ...]]
    thresholds: Mapping[str, float]

    @classmethod
    def fit(cls, scores: Scores, *, coverage: float = COVERAGE, alerts: float = 1.0) -> ConformalSets:
        """The thresholds that hold for a picture of a new lesion.

        Of a category with n lesions, one picture each, the threshold is the ceil((n + 1) coverage)-th highest of their
        probabilities: what a new one reaches with at least that chance. Several pictures of a lesion share its weight
        (Lee, Barber and Willett, "Distribution-free inference with hierarchical data", JRSS B, 2025). With fewer than
        coverage / (1 - coverage) lesions, 9 for 0.9, it cannot be left out: the category is in every set.

        Labels that leave the category open are not used.

        Args:
            alerts: the lowest melanoma probability from which a picture may raise an alert. Melanoma is in the set from
                there on: nobody is to be referred for a diagnosis that the same line leaves out.

        Raises:
            DataError: the coverage is not in (0, 1), or a probability is NaN.
        """
        if not 0 < coverage < 1:
            raise DataError(f"A coverage lies between 0 and 1; got {coverage}.")
        if np.isnan(scores.probabilities).any():
            raise DataError("A probability is NaN: the model's output is broken.")
        categories = categories_of(scores.classes)
        summed = _summed(scores.probabilities, scores.classes, categories)
        possible = _summed(scores.truth.astype(np.float64), scores.classes, categories) > 0
        decided = possible.sum(axis=1) == 1
        members = decided[:, None] & possible
        thresholds = {
            name: _threshold(summed[members[:, place], place], scores.groups[members[:, place]], coverage)
            for place, name in enumerate(categories)
        }
        if MELANOMA in thresholds:
            thresholds[MELANOMA] = min(thresholds[MELANOMA], alerts)
        return cls(coverage, categories, thresholds)

    def sets(self, probabilities: NDArray[np.float64], classes: Sequence[str]) -> list[tuple[str, ...]]:
        """Each picture's categories, the likeliest first.

        Args:
            probabilities: float64 (N, C), calibrated and not adjusted to another prevalence.
            classes: (C,), theirs.
        """
        summed = _summed(probabilities, classes, self.categories)
        names = tuple(self.categories)
        inside = summed >= np.array([self.thresholds[name] for name in names])
        inside |= summed == summed.max(axis=1, keepdims=True)
        likeliest = _summed(np.eye(len(classes))[probabilities.argmax(axis=1)], classes, self.categories)
        inside |= likeliest > 0
        order = np.argsort(-summed, axis=1, kind="stable")
        return [
            tuple(names[place] for place in row if member[place])
            for row, member in zip(order.tolist(), inside, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """A plain dict of the attributes."""
        return {
            "coverage": self.coverage,
            "categories": {name: list(members) for name, members in self.categories.items()},
            "thresholds": dict(self.thresholds),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> ConformalSets:
        """The sets that `to_json` wrote.

        Raises:
            DataError: a field is missing, of the wrong kind, or out of its range.
        """
        try:
            categories = {str(name): tuple(map(str, members)) for name, members in dict(plain["categories"]).items()}
            thresholds = {name: float(plain["thresholds"][name]) for name in categories}
            coverage = float(plain["coverage"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"Not conformal sets: {type(error).__name__} {error}.") from None
        if not 0 < coverage < 1 or not all(0 <= threshold <= 1 for threshold in thresholds.values()):
            raise DataError(f"Not conformal sets: coverage {coverage}, thresholds {thresholds}.")
        return cls(coverage, categories, thresholds)


def categories_of(classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The classes in groups that the data's labels tell apart; a group of one is named as its class.

    >>> categories_of(("actinic keratosis", "melanoma", "squamous cell carcinoma"))
    {'akiec': ('actinic keratosis', 'squamous cell carcinoma'), 'melanoma': ('melanoma',)}
    """
    coarse = {name: word for word in MERGED for name in COARSE[word]}
    found: dict[str, tuple[str, ...]] = {}
    for name in classes:
        word = coarse.get(name, name)
        found[word] = (*found.get(word, ()), name)
    return {word if len(members) > 1 else members[0]: members for word, members in found.items()}


def belonging(classes: Sequence[str], categories: Mapping[str, tuple[str, ...]]) -> NDArray[np.bool_]:
    """bool (C, K): which of the K categories each class belongs to."""
    return np.array([[name in members for members in categories.values()] for name in classes])


def _summed(
    values: NDArray[np.float64], classes: Sequence[str], categories: Mapping[str, tuple[str, ...]]
) -> NDArray[np.float64]:
    """float64 (N, K): the sum over each category's classes."""
    summed: NDArray[np.float64] = values @ belonging(classes, categories).astype(np.float64)
    return summed


def _threshold(probability: NDArray[np.float64], groups: NDArray[np.int64], coverage: float) -> float:
    """What a picture of a new lesion reaches with a chance of at least `coverage`; 0 where no such value is known."""
    _, lesion, pictures = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(-probability, kind="stable")
    reached = np.cumsum(1 / pictures[lesion][order]) >= coverage * (len(pictures) + 1) - 1e-9
    return float(probability[order][np.argmax(reached)]) * (1 - ROUNDING) if reached.any() else 0.0

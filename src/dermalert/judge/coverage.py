"""Coverage: whether the conformal sets keep their promise on pictures that they were not fitted on.

Comes in: `ConformalSets` and `Scores`. Goes out: for each category how often its pictures have it in their set, and how
large the sets are. A set that holds everything is always right and tells nothing, so the two belong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.judge.conformal import ConformalSets
from dermalert.judge.intervals import Interval, group_bootstrap_many
from dermalert.judge.scores import Scores


@dataclass(frozen=True)
class Coverage:
    """The sets of one category's pictures.

    Attributes:
        category: that the pictures' labels stand for.
        pictures, lesions: how many.
        covered: share whose set holds the category, with a lesion-bootstrap interval.
        alone: share whose set holds nothing else.
        size: categories in a set, on average.
    """

    category: str
    pictures: int
    lesions: int
    covered: Interval
    alone: Interval
    size: float

    def to_json(self) -> dict[str, Any]:
        """A plain dict of the attributes but the category."""
        counts = {"pictures": self.pictures, "lesions": self.lesions}
        return counts | {"covered": self.covered.to_json(), "alone": self.alone.to_json(), "size": self.size}


def coverage_of(
    conformal: ConformalSets, scores: Scores, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[Coverage, ...]:
    """Every category that has a picture, in the order of the sets.

    Labels that leave the category open are not used.

    Args:
        scores: at the prevalence that the sets were fitted at.
    """
    sets = conformal.sets(scores.probabilities, scores.classes)
    found = []
    for name, members in conformal.categories.items():
        outside = np.array([word not in members for word in scores.classes])
        rows = np.flatnonzero(~scores.truth[:, outside].any(axis=1))
        if len(rows):
            found.append(_coverage(name, [sets[row] for row in rows], scores.groups[rows], resamples, level, seed))
    return tuple(found)


def _coverage(
    name: str,
    sets: Sequence[tuple[str, ...]],
    groups: NDArray[np.int64],
    resamples: int,
    level: float,
    seed: int,
) -> Coverage:
    outcomes = np.array([(name in held, held == (name,)) for held in sets], dtype=np.float64)
    lesions = len(np.unique(groups))

    def shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        means: NDArray[np.float64] = weights @ outcomes / weights.sum(axis=-1, keepdims=True)
        return means

    covered, alone = group_bootstrap_many(
        shares, groups, lesions=[lesions, lesions], resamples=resamples, level=level, seed=seed
    )
    return Coverage(name, len(sets), lesions, covered, alone, float(np.mean([len(held) for held in sets])))

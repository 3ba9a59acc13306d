"""Shift: can Train be told from Test by simple picture statistics alone?

Comes in: picture statistics, parts, groups, diagnoses. Goes out: a `Shift`: an AUC that is near 0.5 when the
parts are alike, and the statistics that tell them apart. A classifier two-sample test, as in Lopez-Paz & Oquab,
"Revisiting classifier two-sample tests", ICLR 2017. Looks at no pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.intake.statistics import STATISTICS
from dermalert.judge.intervals import Interval, group_bootstrap
from dermalert.judge.metrics import Ranking, roc_auc
from dermalert.judge.scores import Binary

FOLDS = 5
REPEATS = 3  # divisions into folds, averaged: one alone moves the AUC by 0.01
BINS = 255  # of a statistic, as scikit-learn's trees have by default
FEWEST = 20  # pictures a part needs for a figure


@dataclass(frozen=True)
class Telling:
    """How well one statistic alone tells the parts apart: AUC in [0.5, 1], and each part's median."""

    statistic: str
    auc: float
    first_median: float
    second_median: float


@dataclass(frozen=True)
class Shift:
    """How far two parts of a set differ.

    Attributes:
        first, second: the parts' names.
        auc: out-of-fold AUC of boosted trees on the statistics, with its 95 % interval over groups.
        telling: every statistic, the most telling first.
    """

    first: str
    second: str
    auc: Interval
    telling: tuple[Telling, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dict of the attributes."""
        return {
            "first": self.first,
            "second": self.second,
            "auc": self.auc.to_json(),
            "telling": [vars(one) for one in self.telling],
        }


def tell_apart(
    statistics: NDArray[np.float32],
    second: NDArray[np.bool_],
    classes: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    names: tuple[str, str],
    seed: int = 0,
) -> Shift:
    """Tries to tell the rows where `second` is true from the others.

    Pictures are weighted so that each diagnosis has the same share in both parts: another mix of diagnoses
    is told elsewhere and must not be taken for a shift. Diagnoses that stand in one part only are left out.

    Args:
        statistics: float32 (N, S), columns `STATISTICS`.
        second: bool (N,), the part each row stands in.
        classes: int64 (N,), diagnoses.
        groups: int64 (N,), never parted between folds: a copy would be recognised, not told apart.
    """
    weights = _even_mix(second, classes)
    kept = weights > 0
    statistics, second, groups, weights = statistics[kept], second[kept], groups[kept], weights[kept]
    if min(second.sum(), (~second).sum()) < FEWEST or len(np.unique(groups)) < FOLDS:
        why = f"A part has fewer than {FEWEST} pictures of diagnoses that stand in both."
        return Shift(*names, Interval(math.nan, math.nan, math.nan, why=why), ())
    ranking = Ranking(Binary(_out_of_fold(statistics, second, groups, weights, seed), second, groups))
    auc = group_bootstrap(lambda drawn: ranking.sweep(drawn * weights).auc(), groups, seed=seed)
    return Shift(*names, auc, _telling(statistics, second, groups, weights))


def _even_mix(second: NDArray[np.bool_], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights with which each diagnosis has the share in both parts that it has in the second."""
    kinds = classes.max(initial=-1) + 1
    in_second = np.bincount(classes[second], minlength=kinds)
    in_first = np.bincount(classes[~second], minlength=kinds)
    both = (in_second > 0) & (in_first > 0)
    ratio = np.divide(in_second, in_first, out=np.zeros(kinds), where=both)
    return np.where(second, both[classes].astype(np.float64), ratio[classes])


def _out_of_fold(
    statistics: NDArray[np.float32],
    second: NDArray[np.bool_],
    groups: NDArray[np.int64],
    weights: NDArray[np.float64],
    seed: int,
) -> NDArray[np.float64]:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedGroupKFold
    from threadpoolctl import threadpool_limits

    probability = np.zeros(len(second))
    with threadpool_limits(1):  # so small a fit loses more by handing work to threads than it gains
        for repeat in range(REPEATS):
            folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=(seed * REPEATS + repeat) % 2**32)
            for fit, held_out in folds.split(statistics, second, groups):
                if not 0 < second[fit].mean() < 1:
                    continue
                model = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, random_state=seed % 2**32)
                # Parts of equal weight, so that probabilities of different folds can be ranked together.
                share = np.where(second, weights[fit][second[fit]].sum(), weights[fit][~second[fit]].sum())
                sample_weight = (weights / share * len(fit) / 2)[fit]
                binned = _binned(statistics, fit, sample_weight)
                model.fit(binned[fit], second[fit], sample_weight=sample_weight)
                probability[held_out] += model.predict_proba(binned[held_out])[:, 1] / REPEATS
    return probability


def _binned(
    statistics: NDArray[np.float32], fit: NDArray[np.int64], sample_weight: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The statistics as the numbers of the bins that boosted trees sort them into, by weighted quantiles of `fit`.

    scikit-learn would find the same bins, but sorts each column anew for each of its 254 edges: two thirds of the
    time of the whole check.

    Args:
        statistics: float32 (N, S).
        fit: int64 (F,), the rows that are learnt from.
        sample_weight: float64 (F,), of those rows.
    """
    quantiles = np.arange(1, BINS) / BINS
    binned = np.empty(statistics.shape, np.int64)
    for column, values in enumerate(statistics.T.astype(np.float64)):
        distinct = np.unique(values[fit])
        if len(distinct) > BINS:
            edges = np.quantile(values[fit], quantiles, weights=sample_weight, method="inverted_cdf")
        else:
            edges = (distinct[:-1] + distinct[1:]) / 2
        binned[:, column] = np.searchsorted(np.unique(edges), values)
    return binned


def _telling(
    statistics: NDArray[np.float32], second: NDArray[np.bool_], groups: NDArray[np.int64], weights: NDArray[np.float64]
) -> tuple[Telling, ...]:
    found = []
    for column, name in enumerate(STATISTICS):
        values = statistics[:, column].astype(np.float64)
        auc = float(roc_auc(Binary(values, second, groups), weights))
        medians = float(np.median(values[~second])), float(np.median(values[second]))
        found.append(Telling(name, max(auc, 1 - auc), *medians))
    return tuple(sorted(found, key=lambda one: -one.auc))

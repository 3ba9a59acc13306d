"""Mistakes: the pictures that a reader should look at first.

Comes in: `Scores` of labelled pictures and the threshold of the alert.
Goes out: `Mistakes`, the missed melanomas, the false alarms and the most confident wrong calls, worst first.
It loads no pixels and explains nothing: a clinician's eye does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermalert.judge.metrics import predicted
from dermalert.judge.scores import Scores
from dermalert.taxonomy import MELANOMA


@dataclass(frozen=True)
class Mistake:
    """One picture that the model got wrong.

    Attributes:
        truth: the diagnoses that its label may stand for.
        called: the most probable diagnosis, and `probability` that of it.
        melanoma: the melanoma probability.
    """

    image_id: str
    truth: tuple[str, ...]
    called: str
    probability: float
    melanoma: float


@dataclass(frozen=True)
class Mistakes:
    """The worst of them, and how many there are.

    Attributes:
        missed: melanomas that raised no alert, the surest miss first; of `missed_in_all`, of `melanomas`.
        alarms: other lesions that raised an alert, the surest first; of `alarms_in_all`, of `others`.
        confident: other wrong calls, the most confident first; of `wrong_in_all`, of `pictures`.
    """

    missed: tuple[Mistake, ...]
    missed_in_all: int
    melanomas: int
    alarms: tuple[Mistake, ...]
    alarms_in_all: int
    others: int
    confident: tuple[Mistake, ...]
    wrong_in_all: int
    pictures: int


def worst(scores: Scores, *, threshold: float, most: int = 12) -> Mistakes:
    """The worst mistakes, at most `most` of each kind.

    A melanoma is missed when its label says melanoma and nothing else, and its probability is below `threshold`; an
    alarm is false when the label rules melanoma out. A call is wrong when the most probable diagnosis is none that the
    label may stand for. A missed melanoma or a false alarm is not listed again among the confident calls.
    """
    melanoma = scores.probabilities[:, [name == MELANOMA for name in scores.classes]].sum(axis=1)
    is_melanoma = np.array([name == MELANOMA for name in scores.classes])
    may_be = scores.truth[:, is_melanoma].any(axis=1)
    certain = may_be & ~scores.truth[:, ~is_melanoma].any(axis=1)
    called = predicted(scores)
    rows = np.arange(len(scores))
    probability = scores.probabilities[rows, called]
    missed = certain & (melanoma < threshold)
    alarms = ~may_be & (melanoma >= threshold)
    wrong = ~scores.truth[rows, called]

    def listed(mask: NDArray[np.bool_], badness: NDArray[np.float64]) -> tuple[Mistake, ...]:
        chosen = np.flatnonzero(mask)
        chosen = chosen[np.argsort(-badness[chosen], kind="stable")][:most]
        return tuple(_mistake(scores, i, int(called[i]), float(melanoma[i])) for i in chosen.tolist())

    return Mistakes(
        missed=listed(missed, -melanoma),
        missed_in_all=int(missed.sum()),
        melanomas=int(certain.sum()),
        alarms=listed(alarms, melanoma),
        alarms_in_all=int(alarms.sum()),
        others=int((~may_be).sum()),
        confident=listed(wrong & ~missed & ~alarms, probability),
        wrong_in_all=int(wrong.sum()),
        pictures=len(scores),
    )


def _mistake(scores: Scores, row: int, called: int, melanoma: float) -> Mistake:
    truth = tuple(name for name, may_be in zip(scores.classes, scores.truth[row].tolist(), strict=True) if may_be)
    probability = float(scores.probabilities[row, called])
    return Mistake(scores.image_ids[row], truth, scores.classes[called], probability, melanoma)

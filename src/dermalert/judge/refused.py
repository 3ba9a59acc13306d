"""What the gate would refuse of the pictures that an evaluation judges.

Comes in: scores, and the gate's reasons. Goes out: counts, of melanomas apart, and a sentence for the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from dermalert.judge.operating import OperatingPoint
from dermalert.judge.scores import Scores


class Refused(NamedTuple):
    """How many of the pictures judged `score` would refuse. Every figure counts them as if it had not.

    Attributes:
        pictures, refused: all, and those refused.
        melanomas, melanomas_refused: of those whose label decides it.
        melanomas_alerted: of the melanomas refused, those that would have raised an alert; None without a threshold.
    """

    pictures: int
    refused: int
    melanomas: int
    melanomas_refused: int
    melanomas_alerted: int | None

    @classmethod
    def of(cls, scores: Scores, refusals: Sequence[str], point: OperatingPoint | None) -> Refused:
        """Of pictures that were scored all the same.

        Args:
            refusals: (N,), why the gate would refuse each picture of the scores; "" where it would not.
        """
        refused = np.array([bool(why) for why in refusals])
        decided = replace(scores, groups=np.arange(len(scores))).melanoma()  # its groups tell which rows it kept
        missed = decided.positive & refused[decided.groups]
        alerted = None if point is None else int((decided.probability[missed] >= point.threshold).sum())
        return cls(len(refused), int(refused.sum()), int(decided.positive.sum()), int(missed.sum()), alerted)

    def words(self) -> str:
        """For the report."""
        if not self.refused:
            return f"The gate refuses none of the {self.pictures} pictures."
        alerted = "" if self.melanomas_alerted is None else f", {self.melanomas_alerted} of which would raise an alert"
        return (
            f"The gate would refuse {self.refused} of the {self.pictures} pictures, {self.melanomas_refused} of the "
            f"{self.melanomas} of melanomas among them{alerted}. The figures here are of all, as if it had not; "
            "predictions.csv says which, and why."
        )

"""Scores: a model's probabilities on labelled pictures, the one value that every judgement starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.taxonomy import MALIGNANT, MELANOMA, Label


@dataclass(frozen=True)
class Scores:
    """Predictions beside the truth.

    Attributes:
        image_ids: (N,) the pictures, as the manifest names them.
        classes: (C,) diagnoses, the columns of `probabilities`.
        probabilities: float64 (N, C), rows sum to 1.
        truth: bool (N, C), the diagnoses that each picture's label may stand for; one for an exact label.
        groups: int64 (N,), pictures of one lesion, patient or duplicate group share a number;
            intervals resample these, not pictures.
    """

    image_ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    truth: NDArray[np.bool_]
    groups: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = (len(self.image_ids), len(self.classes))
        if self.probabilities.shape != shape or self.truth.shape != shape or self.groups.shape != shape[:1]:
            raise DataError(
                f"Scores of {shape[0]} pictures and {shape[1]} classes do not fit: probabilities "
                f"{self.probabilities.shape}, truth {self.truth.shape}, groups {self.groups.shape}."
            )

    def __len__(self) -> int:
        return len(self.image_ids)

    def where(self, mask: NDArray[np.bool_]) -> Scores:
        """The pictures where `mask` (bool, N) is true."""
        ids = tuple(np.asarray(self.image_ids, dtype=object)[mask])
        return Scores(ids, self.classes, self.probabilities[mask], self.truth[mask], self.groups[mask])

    def melanoma(self) -> Binary:
        """Melanoma against the rest, on the pictures whose label decides that."""
        return self._binary(frozenset({MELANOMA}))

    def malignant(self) -> Binary:
        """Malignant against benign, on the pictures whose label decides that."""
        return self._binary(MALIGNANT)

    def exact(self) -> tuple[Scores, NDArray[np.int64]]:
        """The pictures with an exact label, and the index of its class (int64, M)."""
        kept = self.where(np.asarray(self.truth.sum(axis=1) == 1))
        return kept, kept.truth.argmax(axis=1).astype(np.int64)

    def _binary(self, positive: frozenset[str]) -> Binary:
        columns = np.array([name in positive for name in self.classes])
        may_be = np.asarray(self.truth[:, columns].any(axis=1))
        may_not_be = np.asarray(self.truth[:, ~columns].any(axis=1))
        decided = may_be != may_not_be
        probability = self.probabilities[:, columns].sum(axis=1)
        return Binary(probability[decided], may_be[decided], self.groups[decided])


@dataclass(frozen=True)
class Binary:
    """One yes-or-no question.

    Attributes:
        probability: float64 (M,) of yes.
        positive: bool (M,), the truth.
        groups: int64 (M,), as in `Scores`.
    """

    probability: NDArray[np.float64]
    positive: NDArray[np.bool_]
    groups: NDArray[np.int64]


def truth_of(labels: list[Label], classes: tuple[str, ...]) -> NDArray[np.bool_]:
    """bool (N, C): which of `classes` each label may stand for.

    Raises:
        DataError: a label stands for none of the classes.
    """
    truth = np.array([[name in label.stands_for for name in classes] for label in labels], dtype=bool)
    truth = truth.reshape(len(labels), len(classes))
    lost = sorted({labels[i].name for i in np.flatnonzero(~truth.any(axis=1))})
    if lost:
        raise DataError(f"The model has no class for the label(s) {', '.join(lost)}; it knows {', '.join(classes)}.")
    return truth

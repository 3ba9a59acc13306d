"""The reference: how a model's scores, features and pictures are spread where nothing has changed.

Comes in: what was measured of pictures that the model was not fitted on, or arrays of a file that anybody may have
made. Goes out: a `Reference`, small enough to travel with a bundle: no picture and no feature can be had back from it.
Whether another place's pictures differ is told in `clinic.drift`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError

BINS = 10  # tenths of the reference: what the population stability index is usually computed on
AXES = 8  # random directions that the embedding is looked at along
MEASURES = ("melanoma", "malignant", "ood", "quality", "brightness", "sharpness", "contrast", "colour")
AXIS_NAMES = tuple(f"embedding {number + 1}" for number in range(AXES))
_DIAGNOSES, _PROJECTION = "diagnoses", "projection"


@dataclass(frozen=True, eq=False)
class Binned:
    """How one measure is spread: how many pictures fall into each of B bins.

    Attributes:
        edges: float64 (B - 1,), rising; a value on an edge belongs to the bin above it.
        counts: int64 (B,).
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        edges, counts = self.edges, self.counts
        if edges.dtype != np.float64 or edges.ndim != 1 or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
            raise DataError("the edges of a reference are not finite and rising")
        if counts.dtype != np.int64 or counts.shape != (len(edges) + 1,) or (counts < 0).any() or not counts.sum():
            raise DataError("the counts of a reference do not fit its edges")

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> Binned:
        """The tenths of finite values (N,), N > 0; what many pictures share, as a quality of 1, is a bin of its own."""
        tenths, times = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="lower"), return_counts=True)
        edges = np.union1d(tenths, np.nextafter(tenths[times > 1], np.inf)).astype(np.float64)
        return cls(edges, _counted(edges, values))

    def count(self, values: NDArray[np.floating]) -> NDArray[np.int64]:
        """How many of other values fall into each bin, int64 (B,)."""
        return _counted(self.edges, values)


def _counted(edges: NDArray[np.float64], values: NDArray[np.floating]) -> NDArray[np.int64]:
    bins = np.searchsorted(edges, np.asarray(values, np.float64), side="right")
    return np.bincount(bins, minlength=len(edges) + 1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Reference:
    """How pictures came out that tell what is usual.

    Attributes:
        measures: by a name of `MEASURES` or `AXIS_NAMES`; a measure that the model does not give is absent.
        diagnoses: int64 (C,), how often each of the bundle's classes was the likeliest.
        projection: float32 (E, AXES), the directions that the embedding is measured along; (0, 0) without one.
    """

    measures: Mapping[str, Binned]
    diagnoses: NDArray[np.int64]
    projection: NDArray[np.float32]

    def __post_init__(self) -> None:
        if unknown := [name for name in self.measures if name not in (*MEASURES, *AXIS_NAMES)]:
            raise DataError(f"the reference has a measure {unknown[0]!r:.40}, which is not known here")
        if self.diagnoses.dtype != np.int64 or self.diagnoses.ndim != 1 or (self.diagnoses < 0).any():
            raise DataError("the reference's diagnoses are not counts")
        shown = self.projection
        if shown.dtype != np.float32 or shown.ndim != 2 or shown.shape[1] not in (0, AXES):
            raise DataError(f"the reference's projection is not float32 with {AXES} columns")
        if not np.isfinite(shown).all():
            raise DataError("the reference's projection is not finite")

    @classmethod
    def of(
        cls,
        values: Mapping[str, NDArray[np.floating]],
        embedding: NDArray[np.floating],
        diagnoses: Sequence[str],
        classes: Sequence[str],
        projection: NDArray[np.float32] | None = None,
    ) -> Reference:
        """What is usual of these pictures.

        Args:
            values: by a name of `MEASURES`, float (N,); NaN where a picture has none, as a refused one has no score.
            embedding: float (N, E), E = 0 without one; a row of NaN where a picture has none.
            diagnoses: of the pictures that were scored.
            classes: of the bundle.
            projection: of another reference, to look along the same directions; None draws new ones.
        """
        if projection is None:
            projection = directions(embedding)
        along = {**values, **projected(embedding, projection)}
        known = {name: np.asarray(column)[np.isfinite(column)] for name, column in along.items()}
        counts = np.array([list(diagnoses).count(name) for name in classes], np.int64)
        return cls({name: Binned.of(column) for name, column in known.items() if len(column)}, counts, projection)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name."""
        binned = {f"{name} {part}": getattr(spread, part) for name, spread in self.measures.items() for part in _PARTS}
        return {**binned, _DIAGNOSES: self.diagnoses, _PROJECTION: self.projection}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Reference:
        """The reference that `to_arrays` gave.

        Raises:
            DataError: an array is unknown, or makes no sense.
            KeyError: one is missing.
        """
        names = dict.fromkeys(key.rpartition(" ")[0] for key in arrays if key not in (_DIAGNOSES, _PROJECTION))
        if len(arrays) != 2 + len(_PARTS) * len(names):
            raise DataError(
                f"the reference has {', '.join(sorted(arrays))[:200]}, which is not a pair for each measure"
            )
        measures = {name: Binned(*(arrays[f"{name} {part}"] for part in _PARTS)) for name in names}
        return cls(measures, arrays[_DIAGNOSES], arrays[_PROJECTION])


_PARTS = ("edges", "counts")


def directions(embedding: NDArray[np.floating], *, seed: int = 0) -> NDArray[np.float32]:
    """Random directions of the embedding (N, E), each feature over its deviation: float32 (E, AXES).

    What changes in a cloud of points shows, with high probability, along random lines through it (Rabanser, Günnemann
    and Lipton, "Failing loudly: an empirical study of methods for detecting dataset shift", NeurIPS 2019).
    """
    if not embedding.shape[1]:
        return np.zeros((0, 0), np.float32)
    deviation = np.nanstd(embedding.astype(np.float64), axis=0)
    drawn = np.random.default_rng(seed).normal(size=(embedding.shape[1], AXES))
    weighed = drawn / np.where(deviation > 0, deviation, np.inf)[:, None]
    found: NDArray[np.float32] = (weighed / np.sqrt(embedding.shape[1])).astype(np.float32)
    return found


def projected(embedding: NDArray[np.floating], projection: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """The embedding (N, E) along each direction, by `AXIS_NAMES`: float64 (N,). Nothing where there are no directions.

    Raises:
        DataError: the embedding is another model's.
    """
    if not projection.size:
        return {}
    if embedding.shape[1] != len(projection):
        raise DataError(
            f"an embedding of {embedding.shape[1]} features does not fit a reference of {len(projection)}: it is "
            "another model's"
        )
    along = embedding.astype(np.float64) @ projection.astype(np.float64)
    return dict(zip(AXIS_NAMES, along.T, strict=True))

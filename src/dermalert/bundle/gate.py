"""The gate's parameters, as a bundle keeps them: what dermoscopic pictures look like to its model.

Comes in: arrays of a file that anybody may have made. Goes out: a `Gate`. How they are used is told in `score.gate`,
how they are fitted in `stages.gating`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Gate:
    """A distance from dermoscopic pictures and, where other pictures were at hand, a line between the two.

    The features are the graph's output `texture` (T), which fine-tuning changes little: what it makes of the embedding
    knows diagnoses, and has unlearnt what a cat is.

    Attributes:
        centre: (T,), of the texture of dermoscopic pictures.
        axes: (K, T), its principal axes, each divided by the deviation along it.
        distance_limits: (2,), the mean squared distance along the axes at which a picture is flagged, and refused.
        weights: (T,), of the logistic regression that tells other pictures from dermoscopic ones; (0,) where
            there were no others to fit it on.
        bias: (1,), of the same; refused from a logit of 0.
        flag_logit: (1,), flagged from this logit.
    """

    centre: Floats
    axes: Floats
    distance_limits: Floats
    weights: Floats
    bias: Floats
    flag_logit: Floats

    def __post_init__(self) -> None:
        texture, features = self.centre.size, self.weights.size
        shapes = {
            "centre": (texture,),
            "axes": (len(self.axes), texture) if self.axes.ndim else None,
            "distance_limits": (2,),
            "weights": (texture if features else 0,),
            "bias": (1,),
            "flag_logit": (1,),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
                raise DataError(
                    f"the gate's {name} is not made of finite float32 numbers in a shape that fits the rest"
                )
        if not 0 < self.distance_limits[0] <= self.distance_limits[1]:
            raise DataError("the gate's limits of the distance are not positive and rising")

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Gate:
        """The gate that `to_arrays` gave.

        Raises:
            DataError: an array is missing, unknown, not finite, or does not fit the others.
        """
        names = [field.name for field in fields(cls)]
        if set(arrays) != set(names):
            raise DataError(f"the gate has {', '.join(sorted(arrays)) or 'nothing'}, not {', '.join(names)}")
        return cls(**{name: arrays[name] for name in names})

"""The gate's numbers, as a bundle keeps them: named arrays and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Gate:
    """What tells a picture that can be judged from one that cannot."""

    arrays: Mapping[str, NDArray[Any]]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, none of objects."""
        return dict(self.arrays)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Gate:
        """The gate that `to_arrays` wrote."""
        return cls(dict(arrays))

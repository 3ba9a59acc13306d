"""The curves of a training run.

Comes in: one `Epoch` after another. Goes out: a `History`, its JSON, and which epoch was best.
It judges nothing (`diagnose` does) and imports no training framework.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from dermalert.errors import RunError


@dataclass(frozen=True)
class Epoch:
    """One pass over the training pictures.

    Losses are mean cross-entropies in nats; accuracies are fractions in [0, 1]. The training figures are
    averages while the weights were changing, the validation figures are those at the end of the epoch.
    `seconds` covers training and validation, `images_per_second` the training pictures in the training part.
    """

    number: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class History:
    """The epochs of a run, in order, numbered from 1."""

    epochs: tuple[Epoch, ...] = ()

    def __len__(self) -> int:
        return len(self.epochs)

    def column(self, name: str) -> list[float]:
        """One figure of every epoch."""
        return [float(getattr(epoch, name)) for epoch in self.epochs]

    @property
    def best(self) -> Epoch | None:
        """The first epoch with the lowest validation loss; None before any with a finite one."""
        finite = [epoch for epoch in self.epochs if math.isfinite(epoch.validation_loss)]
        return min(finite, key=lambda epoch: epoch.validation_loss, default=None)

    def exhausted(self, patience: int) -> bool:
        """Whether `patience` epochs have gone by without a lower validation loss."""
        best = self.best.number if self.best else 0
        return len(self) - best >= patience

    def to_json(self) -> str:
        """A JSON object: `epochs`, each with the fields of `Epoch`, and `best_epoch`."""
        return json.dumps(
            {
                "best_epoch": self.best.number if self.best else None,
                "epochs": [{k: _json_number(v) for k, v in asdict(e).items()} for e in self.epochs],
            },
            indent=2,
        )

    @classmethod
    def from_json(cls, text: str) -> History:
        """The history that `to_json` wrote.

        Raises:
            RunError: it is not one.
        """
        try:
            rows: list[dict[str, Any]] = json.loads(text)["epochs"]
            return cls(tuple(_epoch(row) for row in rows))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"Not a training history: {error}.") from None


def _epoch(row: dict[str, Any]) -> Epoch:
    figures: dict[str, Any] = {name: math.nan if value is None else value for name, value in row.items()}
    return Epoch(**figures)


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN

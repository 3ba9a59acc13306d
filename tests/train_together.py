"""A process that trains a small network for some steps, alone or as TF_CONFIG says; prints its losses and weights."""

from __future__ import annotations

import json

import numpy as np

from dermalert.errors import RunError
from dermalert.learn.backend import backend
from dermalert.learn.step import Labels, Step
from dermalert.learn.together import Together, together


def main() -> None:
    group = together()
    keras = backend().keras
    keras.utils.set_random_seed(7)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 10, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-3)),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    step = Step(model, together=group)
    random = np.random.default_rng(1)
    losses = []
    for size in [16] * 6 + [7]:  # the last batch of an epoch is no multiple of the processes
        pixels = random.integers(0, 256, (size, 12, 10, 3), np.uint8)
        own = np.eye(3, dtype=np.float32)[random.integers(0, 3, size)]
        labels = Labels(own, own[::-1], random.random(size, np.float32), random.random(size, np.float32))
        losses.append(step.train(pixels, labels, 1e-2))
    weights = np.concatenate([each.ravel() for name, each in sorted(step.state().items()) if name[:6] == "weight"])
    print(json.dumps({"losses": losses, "weights": weights.tolist(), "refused": group and refused(group)}))


def refused(group: Together) -> str | None:
    """Why they do not go on where one is an epoch behind."""
    group.check_alike(3)
    try:
        group.check_alike(3 - group.rank)
    except RunError as error:
        return str(error)
    return None


main()

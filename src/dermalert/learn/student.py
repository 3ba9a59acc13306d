"""One network taught by several: it scores in the time of one, and says what they say together.

Comes in: networks that `members.fit_members` trained, and the pictures that they learnt from. Goes out: one network of
the same kind. It begins at the mean of their weights (Wortsman et al., "Model soups", ICML 2022), and learns to give
the softmax of their mean logits on each augmented picture (Hinton, Vinyals and Dean, "Distilling the knowledge in a
neural network", 2015; teachers and student see the same view, as Beyer et al., "Knowledge distillation: a good teacher
is patient and consistent", CVPR 2022, have it). No label is looked at. Why not the mean of the weights alone: it ranks
pictures within the collections worse than each of the networks (docs/decisions/0009-the-model-that-ships.md).

    run/student.npz       its weights and optimizer after the last whole epoch
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import RunError
from dermalert.learn import networks
from dermalert.learn.augment import Augmenter
from dermalert.learn.checkpoint import fingerprint, read_arrays, write_arrays
from dermalert.learn.members import FRAMEWORKS, Framework, Rows, at_size, epoch
from dermalert.learn.recipes import Recipe
from dermalert.learn.step import Labels
from dermalert.learn.train import training_part

_STATE = "student.npz"


def fit_student(
    teachers: Sequence[Any],
    pixels: NDArray[np.uint8],
    rows: Rows,
    strata: Rows,
    recipe: Recipe,
    run: Path,
    *,
    shown: tuple[int, int],
    epochs: int,
    resume: bool = False,
    framework: str = "tensorflow",
    progress: bool = True,
) -> Any:
    """Trains the student, or goes on where `run` stopped.

    Args:
        teachers: keras.Models that `fit_members` gave, all of the recipe.
        pixels: uint8 (N, H, W, 3) at the recipe's size.
        rows: int64 (T,), what it is shown.
        strata: int64 (N,), as of `fit_members`.
        recipe: the teachers'; it learns by the same rates, from their height down to 0 within its own epochs.
        run: folder for the checkpoint.
        shown: width and height at which pictures are shown.
        epochs: how many.
        framework: one of `members.FRAMEWORKS`.

    Returns:
        keras.Model, float32, from (N, H, W, 3) at the recipe's size to logits (N, C).

    Raises:
        RunError: the checkpoint is of another lesson, or learning diverged.
    """
    run.mkdir(parents=True, exist_ok=True)
    student = _Student(teachers, recipe, shown, FRAMEWORKS[framework]())
    weights = [weight.numpy() for each in teachers for weight in each.trainable_variables]
    lesson = fingerprint((training_part(recipe).to_json(), shown, epochs), (rows, strata, *weights))
    file = run / _STATE
    done = student.restore(file, lesson) if resume and file.exists() else 0
    augmenter = Augmenter(recipe.augment, size=shown, given=recipe.size, seed=recipe.seed)
    short = replace(recipe, epochs=epochs)
    for number in range(done + 1, epochs + 1):
        epoch(
            [student],
            student.trunk,
            pixels,
            rows,
            strata,
            augmenter,
            short,
            number,
            before=recipe.epochs,
            title="student",
            progress=progress,
        )
        write_arrays(file, student.step.state(), {"lesson": lesson, "epochs": number})
    return at_size(student.model, recipe)


class _Student:
    """Learns from every picture of a batch what its teachers say of it."""

    def __init__(self, teachers: Sequence[Any], recipe: Recipe, shown: tuple[int, int], using: Framework) -> None:
        smaller = replace(recipe, size=shown)
        several = [at_size(teacher, smaller) for teacher in teachers]
        self._told = using.mean_said([networks.halves(each, recipe.frozen_stages)[2] for each in several])
        self.model = mean_weights(several, smaller)
        self.trunk, upper = using.divided(self.model, recipe.frozen_stages)
        stages, rates = networks.learning(self.model, recipe)
        even = np.zeros(self.model.output_shape[-1], np.float32)
        self.step = using.step(upper, stages=stages, rates=rates, offset=even, soft=True)

    def restore(self, file: Path, lesson: str) -> int:
        """Goes on from a checkpoint; the number of epochs done.

        Raises:
            RunError: it is of another lesson, or damaged.
        """
        state, told = read_arrays(file)
        if told.get("lesson") != lesson:
            raise RunError(f"{file} was begun with other teachers, pictures or epochs. Delete it, and teach anew.")
        self.step.restore(state)
        return int(told["epochs"])

    def learn(self, features: Any, rows: Rows, rate: float) -> tuple[float, int, int]:
        loss, hits = self.step.train(features, Labels.plain(self._told(features)), rate)
        return loss, hits, len(rows)


def mean_weights(models: Sequence[Any], recipe: Recipe) -> Any:
    """A network with the mean of the models' weights."""
    made = at_size(models[0], recipe)
    for index, variable in enumerate(made.trainable_variables):
        variable.assign(np.mean([model.trainable_variables[index].numpy() for model in models], axis=0))
    return made

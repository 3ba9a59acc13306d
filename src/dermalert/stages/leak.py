"""The leak, shown: one recipe trained the honest way and the way of most public notebooks on the nine-class set.

Those notebooks add altered copies of every class first and set validation pictures aside afterwards, picture by
picture. Many a validation picture then has a copy of itself, or another picture of its lesion, among the training
pictures, and validation measures memory. Here both ways are trained from the same folder and tried on the same test
pictures; as there, for a fixed number of epochs, and the last one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.intake.manifest import Manifest
from dermalert.intake.sources import label_or_none
from dermalert.intake.split import group_numbers
from dermalert.judge.evaluation import Evaluation
from dermalert.judge.scores import Scores
from dermalert.judge.study import VALIDATION, Leak, LeakSide
from dermalert.learn.balance import fill_up
from dermalert.learn.recipes import Recipe
from dermalert.learn.train import TrainingData, fit
from dermalert.score.engine import Engine
from dermalert.stages import judging
from dermalert.stages.training import Prepared, content_key, fitted_calibration, logits_of, prepare, uncalibrated
from dermalert.taxonomy import NAMES, Label

COPIES = 500  # that the notebooks add to each class
SHARE = 0.2  # of the pictures that they set aside


@dataclass(frozen=True)
class _Way:
    """One way of coming from a folder to training and validation pictures.

    Attributes:
        prepared: its classes are those of the labels that this way believes.
        data: rows from the number of decoded pictures on are altered copies.
        groups: int64 (N + M,), of each row; a copy's is that of its picture.
    """

    prepared: Prepared
    data: TrainingData
    groups: NDArray[np.int64]

    def siblings(self) -> int:
        """Validation pictures with a copy, or another picture of the lesion, among the training ones."""
        return int(np.isin(self.groups[self.data.validation], self.groups[self.data.train]).sum())


def leak_shown(manifest: Manifest, recipe: Recipe, run: Path, *, cache: Path, resamples: int) -> Leak:
    """Trains `recipe` both ways, into folders below `run`; goes on where an earlier call was interrupted.

    Args:
        manifest: audited and split.
        recipe: its balancing is done here, with `COPIES` of each class.

    Raises:
        DataError: too few pictures with one exact diagnosis.
    """
    prepared = prepare(manifest, (), recipe, cache)
    recipe = replace(recipe, balance="none", patience=recipe.epochs, keep="last")

    def side(name: str, way: Callable[[Prepared, Recipe, Path], _Way]) -> LeakSide:
        return _side(way(prepared, recipe, cache), replace(recipe, name=name), run / name, resamples)

    return Leak(side("honest", _split_then_oversampled), side("leaky", _oversampled_then_split))


def _split_then_oversampled(prepared: Prepared, recipe: Recipe, cache: Path) -> _Way:
    """The audited labels; copies of training pictures only."""
    exact = _indexes(prepared.manifest.labels(), prepared)
    train, validation = (rows[exact[rows] >= 0] for rows in (prepared.rows("train"), prepared.rows("validation")))
    targets, pixels, drawn, groups = _oversampled(prepared, exact, train, recipe, cache)
    return _Way(prepared, TrainingData(pixels, targets, np.concatenate([train, drawn]), validation), groups)


def _oversampled_then_split(prepared: Prepared, recipe: Recipe, cache: Path) -> _Way:
    """Every picture that its owner does not call test, under its owner's label, duplicates and contradictions too."""
    manifest = prepared.manifest
    labels = [label_or_none(word) for word in manifest.column("given_label")]
    names = {label.name for label in labels if label}
    prepared = replace(prepared, classes=tuple(name for name in NAMES if name in names))
    exact = _indexes(labels, prepared)
    is_test = np.array([part == "test" for part in manifest.column("given_split")])
    rows = np.flatnonzero((exact >= 0) & ~is_test & ~np.isin(np.arange(len(exact)), prepared.rows("test")))
    if len(rows) < 2 / SHARE:
        raise DataError("Too few pictures with one exact diagnosis to show the leak.")
    targets, pixels, drawn, groups = _oversampled(prepared, exact, rows, recipe, cache)
    mixed = np.random.default_rng(recipe.seed).permutation(np.concatenate([rows, drawn]))
    held_out = round(SHARE * len(mixed))
    return _Way(prepared, TrainingData(pixels, targets, mixed[held_out:], mixed[:held_out]), groups)


def _indexes(labels: Sequence[Label | None], prepared: Prepared) -> NDArray[np.int64]:
    """int64 (N,): the class of each exact label, -1 for the others."""
    place = {name: index for index, name in enumerate(prepared.classes)}
    return np.array([place.get(label.name, -1) if label else -1 for label in labels], np.int64)


def _oversampled(
    prepared: Prepared, exact: NDArray[np.int64], rows: NDArray[np.int64], recipe: Recipe, cache: Path
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Targets, pixels, the rows of the copies, and the group of every row."""
    filled = fill_up(
        prepared.pixels, rows, exact, seed=recipe.seed, folder=cache, key=content_key(prepared), more=COPIES
    )
    groups = group_numbers(prepared.manifest)
    return (
        np.concatenate([np.maximum(exact, 0), exact[filled.origin]]),
        filled.pixels,
        np.arange(len(exact), len(filled.pixels)),
        np.concatenate([groups, groups[filled.origin]]),
    )


def _side(way: _Way, recipe: Recipe, run: Path, resamples: int) -> LeakSide:
    classes = way.prepared.classes
    fitted = fit(way.data, recipe, run, classes=len(classes), resume=True)
    bundle = uncalibrated(way.prepared, fitted)
    engine, rows = Engine(bundle), way.data.validation
    logits = logits_of(engine, way.data.pixels, rows)
    truth = np.eye(len(classes), dtype=bool)[way.data.targets[rows]]
    bundle = replace(bundle, calibration=fitted_calibration(logits, truth)[0])
    ids = tuple(map(str, rows.tolist()))
    views = {VALIDATION: Scores(ids, classes, bundle.calibration.apply(logits), truth, way.groups[rows])}
    tested = way.prepared.rows("test")
    if len(tested):
        probabilities = bundle.calibration.apply(logits_of(engine, way.prepared.pixels, tested))
        views |= judging.views_of(way.prepared.manifest, tested, classes, probabilities)
    evaluations: dict[str, Evaluation] = judging.judged(views, bundle, resamples=resamples, seed=0)
    return LeakSide(len(way.data.train), len(rows), way.siblings(), evaluations)

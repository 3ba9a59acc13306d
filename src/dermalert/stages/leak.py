"""The leak, shown: one recipe trained the honest way and the way of most public notebooks on the nine-class set.

Those notebooks fill up rare classes with altered copies first and set validation pictures aside afterwards, picture by
picture. Nearly every validation picture then has a copy of itself, or another picture of its lesion, among the
training pictures, and validation measures memory. Here both ways are trained on the same data and tried on the same
test pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermalert.bundle.format import Bundle
from dermalert.errors import DataError
from dermalert.intake.manifest import Manifest
from dermalert.intake.split import group_numbers
from dermalert.judge.evaluation import Evaluation
from dermalert.judge.scores import Scores
from dermalert.judge.study import CLEAN_TEST, RAW_TEST, VALIDATION, Arm, Leak, LeakSide
from dermalert.learn.balance import fill_up
from dermalert.learn.recipes import Recipe
from dermalert.learn.train import TrainingData, fit
from dermalert.score.engine import Engine
from dermalert.stages import judging
from dermalert.stages.training import Prepared, content_key, fitted_temperature, logits_of, prepare, uncalibrated
from dermalert.taxonomy import label_of

SHARE = 0.2  # of the pictures that notebooks set aside


@dataclass(frozen=True)
class _Leaky:
    """Pictures oversampled first and divided then.

    Attributes:
        data: what is trained on; rows from the number of decoded pictures on are altered copies.
        groups: int64 (N + M,), a copy's is that of its picture.
    """

    data: TrainingData
    groups: NDArray[np.int64]

    def siblings(self) -> int:
        """Validation pictures whose lesion or picture is among the training ones too."""
        return int(np.isin(self.groups[self.data.validation], self.groups[self.data.train]).sum())


def leak_shown(manifest: Manifest, recipe: Recipe, honest: Arm, run: Path, *, cache: Path, resamples: int) -> Leak:
    """Trains `recipe` the leaky way into `run` and puts it beside its honest training.

    Args:
        manifest: split, as the honest training had it.
        recipe: that fills up rare classes.
        honest: what came of it the honest way, at least one training.

    Raises:
        DataError: too few pictures with one exact diagnosis.
    """
    prepared = prepare(manifest, (), recipe, cache)
    leaky = _oversampled_then_split(prepared, recipe, cache)
    recipe = replace(recipe, name="leaky", balance="none")
    fitted = fit(leaky.data, recipe, run, classes=len(prepared.classes), resume=True)
    bundle = uncalibrated(prepared, fitted)
    evaluations = _judged(prepared, leaky, bundle, resamples)
    return Leak(
        honest=_honest_side(prepared, honest),
        leaky=LeakSide(len(leaky.data.train), len(leaky.data.validation), leaky.siblings(), evaluations),
    )


def _oversampled_then_split(prepared: Prepared, recipe: Recipe, cache: Path) -> _Leaky:
    """As the notebooks do: every picture that its owner does not call test, under its owner's label, copies and all."""
    manifest = prepared.manifest
    given = zip(manifest.column("given_label"), manifest.labels(), strict=True)
    named = np.array([_index(word, prepared.classes) if label else -1 for word, label in given], np.int64)
    is_test = np.array([part == "test" for part in manifest.column("split")])
    rows = np.flatnonzero((named >= 0) & ~is_test)
    if len(rows) < 2 / SHARE:
        raise DataError("Too few pictures with one exact diagnosis to show the leak.")
    filled = fill_up(prepared.pixels, rows, named, seed=recipe.seed, folder=cache, key=content_key(prepared))
    drawn = np.arange(len(named), len(filled.pixels))
    mixed = np.random.default_rng(recipe.seed).permutation(np.concatenate([rows, drawn]))
    held_out = round(SHARE * len(mixed))
    targets = np.concatenate([np.maximum(named, 0), named[filled.origin]])
    groups = group_numbers(manifest)
    data = TrainingData(filled.pixels, targets, mixed[held_out:], mixed[:held_out])
    return _Leaky(data, np.concatenate([groups, groups[filled.origin]]))


def _index(word: str, classes: tuple[str, ...]) -> int:
    name = label_of(word).name
    return classes.index(name) if name in classes else -1


def _judged(prepared: Prepared, leaky: _Leaky, bundle: Bundle, resamples: int) -> Mapping[str, Evaluation]:
    """Its validation as a notebook sees it, picture by picture, and the test part."""
    engine, rows = Engine(bundle), leaky.data.validation
    logits = logits_of(engine, leaky.data.pixels, rows)
    truth = np.eye(len(bundle.classes), dtype=bool)[leaky.data.targets[rows]]
    bundle = replace(bundle, temperature=fitted_temperature(logits, truth)[0])
    ids = tuple(map(str, rows.tolist()))
    scores = Scores(ids, bundle.classes, bundle.temperature.apply(logits), truth, np.arange(len(rows)))
    tested = prepared.rows("test")
    views = {VALIDATION: scores}
    if len(tested):
        probabilities = bundle.temperature.apply(logits_of(engine, prepared.pixels, tested))
        views |= judging.views_of(prepared.manifest, tested, bundle.classes, probabilities)
    return judging.judged(views, bundle, resamples=resamples, seed=0)


def _honest_side(prepared: Prepared, honest: Arm) -> LeakSide:
    train, validation = prepared.rows("train"), prepared.rows("validation")
    groups = group_numbers(prepared.manifest)
    shared = int(np.isin(groups[validation], groups[train]).sum())
    kept = {
        view: found for view, found in honest.runs[0].evaluations.items() if view in (VALIDATION, RAW_TEST, CLEAN_TEST)
    }
    return LeakSide(sum(honest.training_counts.values()), len(validation), shared, kept)

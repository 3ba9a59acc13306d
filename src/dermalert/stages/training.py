"""`dermalert train`: a data set and a recipe in, a run folder out.

run/manifest.parquet   every picture, its group, resolution and split
run/recipe.json        what was done, precision decided
run/history.json       the curves; with training.json, checkpoint.npz and best-*.npz, what --resume needs
run/bundle/            the model, ready to score
run/predictions.csv    validation and test probabilities
run/metrics.json       every figure
run/report.html        the same for people
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermalert.bundle.card import model_card
from dermalert.bundle.export import export_onnx
from dermalert.bundle.format import Bundle
from dermalert.errors import DataError, NotEnoughPositives, RefusedFile
from dermalert.intake.manifest import Manifest
from dermalert.intake.showing import pixels_by_id
from dermalert.intake.split import split
from dermalert.judge.calibration import Temperature
from dermalert.judge.evaluation import Evaluation
from dermalert.judge.mistakes import worst
from dermalert.judge.operating import OperatingPoint, at_sensitivity
from dermalert.judge.report import write_report
from dermalert.judge.scores import Scores
from dermalert.learn.diagnose import diagnose
from dermalert.learn.history import History
from dermalert.learn.pipeline import DecodedCache
from dermalert.learn.recipes import Recipe
from dermalert.learn.train import Fitted, TrainingData, fit
from dermalert.score.engine import Engine
from dermalert.stages import judging
from dermalert.taxonomy import MELANOMA, NAMES

TARGET_SENSITIVITY = 0.95
_LIBRARIES = ("dermalert", "keras", "tensorflow-cpu", "tensorflow", "numpy", "onnx", "onnxruntime", "tf2onnx", "pillow")


@dataclass(frozen=True)
class Prepared:
    """What training starts from.

    Attributes:
        manifest: N pictures, split.
        refused: files that could not be used.
        classes: (C,) diagnoses that the training labels may stand for, in the taxonomy's order.
        pixels: uint8 (N, H, W, 3), memory-mapped.
    """

    manifest: Manifest
    refused: tuple[RefusedFile, ...]
    classes: tuple[str, ...]
    pixels: NDArray[np.uint8]

    def rows(self, *parts: str) -> NDArray[np.int64]:
        """int64: the rows of these splits."""
        return np.flatnonzero(np.isin([part or "" for part in self.manifest.column("split")], parts))


def run_train(
    data: Path,
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    epochs: int | None = None,
    table: Path | None = None,
    columns: Mapping[str, str] | None = None,
    cache: Path | None = None,
    resamples: int = 1000,
    workers: int | None = None,
    command: str,
    made: datetime,
) -> dict[str, Evaluation]:
    """Audits and splits `data` (unless it is a split manifest), trains, evaluates, and writes the run folder.

    Args:
        cache: where decoded pictures are kept for later runs; by default `decoded/` beside the run folder.

    Raises:
        RunError: the folder holds a run and `resume` is off, or one of another recipe or data.
        DataError: the data cannot be read, or not be divided.
    """
    manifest, refused = judging.labelled_manifest(data, table=table, columns=columns, workers=workers)
    if not any(manifest.column("split")):
        manifest = split(manifest, seed=recipe.seed)
    prepared = prepare(manifest, refused, recipe, cache or run.parent / "decoded", workers)
    fitted = fit(_training_data(prepared), recipe, run, classes=len(prepared.classes), resume=resume, epochs=epochs)
    prepared.manifest.write(run / "manifest.parquet")
    (run / "recipe.json").write_text(fitted.recipe.to_json() + "\n", encoding="utf-8")
    return _judge(prepared, fitted, run, resamples=resamples, command=command, made=made)


def prepare(
    manifest: Manifest, refused: Sequence[RefusedFile], recipe: Recipe, cache: Path, workers: int | None = None
) -> Prepared:
    """Decodes a split manifest into the cache; a picture that fails now is in no split and is told of."""
    decoded = DecodedCache.build(
        manifest.paths(), manifest.column("sha256"), size=recipe.size, folder=cache, workers=workers
    )
    parts = zip(manifest.column("split"), decoded.usable, strict=True)
    manifest = manifest.with_columns(split=[part if usable else None for part, usable in parts])
    learnt = [label for label, part in zip(manifest.labels(), manifest.column("split"), strict=True) if part == "train"]
    known = {name for label in learnt if label for name in label.stands_for}
    classes = tuple(name for name in NAMES if name in known)
    if MELANOMA not in classes or len(classes) < 2:
        raise DataError(
            f"Training pictures show {', '.join(classes) or 'no diagnosis'}: melanoma and another are needed."
        )
    return Prepared(manifest, (*refused, *decoded.refused), classes, decoded.pixels)


def _training_data(prepared: Prepared) -> TrainingData:
    """A coarse label is an even guess among the diagnoses that it may stand for."""
    targets = np.zeros((len(prepared.manifest), len(prepared.classes)), dtype=np.float32)
    for row, label in enumerate(prepared.manifest.labels()):
        if label is not None:
            fitting = [name in label.stands_for for name in prepared.classes]
            targets[row] = np.array(fitting, dtype=np.float32) / max(sum(fitting), 1)
    return TrainingData(prepared.pixels, targets, prepared.rows("train"), prepared.rows("validation"))


def _judge(
    prepared: Prepared, fitted: Fitted, run: Path, *, resamples: int, command: str, made: datetime
) -> dict[str, Evaluation]:
    """Everything after the last epoch: graph, temperature, threshold, figures, bundle, report."""
    seed = fitted.recipe.seed
    bundle = _uncalibrated(prepared, fitted)
    rows = prepared.rows("validation", "test")
    manifest = prepared.manifest.where(np.isin(np.arange(len(prepared.manifest)), rows))
    logits = _logits(Engine(bundle), prepared.pixels, rows)
    is_validation = np.array(manifest.column("split"), dtype=object) == "validation"
    validation, validation_logits = manifest.where(is_validation), logits[is_validation]
    labels = judging.as_resolved(validation)
    truth = judging.scores_of(validation, labels, bundle, validation_logits).truth
    bundle = replace(bundle, temperature=Temperature.fit(validation_logits, truth))
    validation_scores = judging.scores_of(validation, labels, bundle, validation_logits)
    point, notes = _operating_point(validation_scores, seed)
    bundle = replace(bundle, operating_point=point)
    views = {"validation": validation_scores, **judging.test_views(manifest, bundle, logits)}
    evaluations = judging.judged(views, bundle, resamples=resamples, seed=seed)
    bundle = replace(bundle, card=_card(bundle, evaluations))
    bundle.save(run / "bundle")
    judging.write_predictions(run / "predictions.csv", manifest, bundle, logits)
    judging.write_metrics(run / "metrics.json", evaluations, recipe=fitted.recipe.name, seed=seed)
    last = list(views)[-1]
    write_report(
        run / "report.html",
        title=f"{fitted.recipe.name} on {prepared.manifest.column('source')[0]}",
        evaluations=evaluations,
        history=_Curves(fitted.history),
        diagnosis=diagnose(fitted.history),
        data=judging.data_summary(prepared.manifest, prepared.refused),
        mistakes=worst(views[last], threshold=point.threshold) if point else None,
        mistakes_on=last,
        pixels_of=pixels_by_id(prepared.manifest),
        notes=notes,
        command=command,
        made=made,
    )
    return evaluations


def _uncalibrated(prepared: Prepared, fitted: Fitted) -> Bundle:
    manifest, parts = prepared.manifest, Counter(prepared.manifest.column("split"))
    return Bundle(
        name=fitted.recipe.name,
        classes=prepared.classes,
        size=fitted.recipe.size,
        temperature=Temperature(1.0),
        operating_point=None,
        data={
            "source": manifest.column("source")[0],
            "fingerprint": manifest.fingerprint(),
            **{f"{part}_pictures": parts[part] for part in ("train", "validation", "test")},
        },
        versions={"python": platform.python_version(), **_versions()},
        model=export_onnx(fitted.model, size=fitted.recipe.size),
        card="",
    )


def _versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except ModuleNotFoundError:  # TensorFlow comes under either of two names
            continue
    return found


def _logits(engine: Engine, pixels: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """From the graph that ships, not from the Keras model: what is judged is what scores."""
    blocks = np.array_split(rows, max(1, len(rows) // judging.BATCH))
    return np.concatenate([engine.logits(pixels[block]) for block in blocks])


def _operating_point(validation: Scores, seed: int) -> tuple[OperatingPoint | None, list[str]]:
    try:
        return at_sensitivity(TARGET_SENSITIVITY, validation.melanoma(), name="screening", seed=seed), []
    except NotEnoughPositives as error:
        return None, [f"No alert threshold was chosen. {error}"]


def _card(bundle: Bundle, evaluations: Mapping[str, Evaluation]) -> str:
    return model_card(
        name=bundle.name,
        classes=bundle.classes,
        size=bundle.size,
        temperature=bundle.temperature.value,
        operating_point=bundle.operating_point,
        evaluations=evaluations,
        data=bundle.data,
        versions=bundle.versions,
    )


@dataclass(frozen=True)
class _Curves:
    """A history as the report reads it."""

    history: History

    @property
    def loss(self) -> list[float]:
        return self.history.column("train_loss")

    @property
    def accuracy(self) -> list[float]:
        return self.history.column("train_accuracy")

    @property
    def val_loss(self) -> list[float]:
        return self.history.column("validation_loss")

    @property
    def val_accuracy(self) -> list[float]:
        return self.history.column("validation_accuracy")

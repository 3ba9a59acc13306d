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

import math
import platform
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermalert.bundle.card import model_card
from dermalert.bundle.export import export_onnx
from dermalert.bundle.format import Bundle
from dermalert.errors import DataError, RefusedFile
from dermalert.intake.manifest import Manifest
from dermalert.intake.showing import pixels_by_id
from dermalert.intake.sources import label_or_none
from dermalert.intake.split import split
from dermalert.judge.calibration import Calibration, TemperatureAtBound, class_shares
from dermalert.judge.conformal import ConformalSets
from dermalert.judge.evaluation import Evaluation
from dermalert.judge.mistakes import worst
from dermalert.judge.operating import SENSITIVITY, operating_points
from dermalert.judge.report import write_report
from dermalert.judge.scores import Scores
from dermalert.judge.study import CLEAN_TEST, RAW_TEST, VALIDATION, Cost, Curves
from dermalert.learn.balance import fill_up
from dermalert.learn.diagnose import diagnose
from dermalert.learn.history import History
from dermalert.learn.listeners import listeners_named
from dermalert.learn.outputs import for_export
from dermalert.learn.pipeline import DecodedCache
from dermalert.learn.recipes import Recipe
from dermalert.learn.train import Fitted, TrainingData, fit, refuse_overwriting
from dermalert.score.engine import Engine
from dermalert.stages import judging
from dermalert.stages.telling import summary
from dermalert.taxonomy import MELANOMA, NAMES

_LIBRARIES = ("dermalert", "keras", "tensorflow-cpu", "tensorflow", "numpy", "onnx", "onnxruntime", "tf2onnx", "pillow")


@dataclass(frozen=True)
class Prepared:
    """What training starts from.

    Attributes:
        manifest: N pictures, split.
        refused: files that could not be used.
        classes: (C,) diagnoses that the training labels may stand for, in the taxonomy's order.
        pixels: uint8 (N, H, W, 3), memory-mapped.
        notes: what was left out, for the report.
    """

    manifest: Manifest
    refused: tuple[RefusedFile, ...]
    classes: tuple[str, ...]
    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()

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
    log: Sequence[str] = (),
    resamples: int = 1000,
    workers: int | None = None,
    command: str,
    made: datetime,
) -> dict[str, Evaluation]:
    """Audits and splits `data` (unless it is a split manifest), trains, evaluates, and writes the run folder.

    Args:
        cache: where decoded pictures are kept for later runs; by default `decoded/` beside the run folder.
        log: `tensorboard`, `mlflow`: who else is told of each epoch.

    Raises:
        RunError: the folder holds a run and `resume` is off, or one of another recipe or data.
        DataError: the data cannot be read, or not be divided.
    """
    refuse_overwriting(run, resume)
    manifest, refused = judging.labelled_manifest(data, table=table, columns=columns, workers=workers)
    if not any(manifest.column("split")):
        manifest = split(manifest, seed=recipe.seed)
    listeners = listeners_named(log, run)
    cache = cache or run.parent / "decoded"
    prepared = prepare(manifest, refused, recipe, cache, workers)
    lesson = training_data(prepared, recipe, cache)
    fitted = fit(lesson, recipe, run, classes=len(prepared.classes), resume=resume, epochs=epochs, listeners=listeners)
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
    manifest, notes = _without_strangers(manifest, classes)
    return Prepared(manifest, (*refused, *decoded.refused), classes, decoded.pixels, notes)


def _without_strangers(manifest: Manifest, classes: tuple[str, ...]) -> tuple[Manifest, tuple[str, ...]]:
    """Leaves out pictures of diagnoses that no training picture shows: the model has no word for them."""
    told = zip(*(manifest.column(name) for name in ("diagnosis", "given_label", "split")), strict=True)
    strange = []
    left: Counter[str] = Counter()
    for diagnosis, given, part in told:
        # A test picture is judged under its owner's label too.
        labels = (label_or_none(diagnosis), label_or_none(given) if part == "test" else None)
        strange.append(any(label and not set(label.stands_for) & set(classes) for label in labels))
        left[given or diagnosis] += strange[-1] and part is not None
    parts = zip(manifest.column("split"), strange, strict=True)
    notes = tuple(
        f"{number} pictures of {word} were left out: no training picture shows it."
        for word, number in left.items()
        if number
    )
    return manifest.with_columns(split=[None if stranger else part for part, stranger in parts]), notes


def training_data(prepared: Prepared, recipe: Recipe, cache: Path) -> TrainingData:
    """What the recipe learns from; rare classes filled up where it says so, from training pictures only."""
    labels, train = prepared.manifest.labels(), prepared.rows("train")
    targets = np.array(
        [[label is not None and name in label.stands_for for name in prepared.classes] for label in labels]
    )
    data = TrainingData(prepared.pixels, targets, train, prepared.rows("validation"))
    return filled_up(data, recipe, cache, key=content_key(prepared)) if recipe.balance == "augmentor" else data


def content_key(prepared: Prepared) -> str:
    """What the decoded pictures were made of, for caches of what is made of them."""
    return f"{prepared.manifest.fingerprint()} at {prepared.pixels.shape[1:3]}"


def filled_up(data: TrainingData, recipe: Recipe, cache: Path, *, key: str) -> TrainingData:
    """The same data with as many training pictures of every class, drawn from training pictures alone."""
    exact = np.where(data.targets.sum(axis=1) == 1, data.targets.argmax(axis=1), -1).astype(np.int64)
    filled = fill_up(data.pixels, data.train, exact, seed=recipe.seed, folder=cache, key=key)
    drawn = np.arange(len(data.pixels), len(filled.pixels))
    return TrainingData(
        filled.pixels,
        np.concatenate([data.targets, data.targets[filled.origin]]),
        np.concatenate([data.train, drawn]),
        data.validation,
    )


def _judge(
    prepared: Prepared, fitted: Fitted, run: Path, *, resamples: int, command: str, made: datetime
) -> dict[str, Evaluation]:
    """Everything after the last epoch: graph, calibration, thresholds, figures, bundle, report."""
    seed = fitted.recipe.seed
    bundle = uncalibrated(prepared, fitted)
    rows = prepared.rows("validation", "test")
    logits = logits_of(Engine(bundle), prepared.pixels, rows)
    calibration, warned = _calibration(prepared, rows, logits)
    views = judging.views_of(prepared.manifest, rows, bundle.classes, calibration.apply(logits))
    validation = views[VALIDATION]
    points, notes = operating_points(validation.melanoma(), sensitivity=SENSITIVITY, seed=seed)
    bundle = replace(
        bundle,
        calibration=calibration,
        prevalence=shares_of(validation),
        operating_points=points,
        conformal=ConformalSets.fit(validation, alerts=min((point.threshold for point in points), default=1.0)),
    )
    evaluations = judging.judged(views, bundle, resamples=resamples, seed=seed)
    bundle = replace(bundle, card=model_card(bundle, evaluations))
    bundle.save(run / "bundle")
    scored = prepared.manifest.where(np.isin(np.arange(len(prepared.manifest)), rows))
    judging.write_predictions(run / "predictions.csv", scored, bundle, logits)
    training = {"cost": _plain(cost_of(fitted)), "shown": dict(zip(bundle.classes, fitted.shown.tolist(), strict=True))}
    judging.write_metrics(run / "metrics.json", evaluations, recipe=fitted.recipe.name, seed=seed, training=training)
    studied = {view: found for view, found in evaluations.items() if view in (VALIDATION, RAW_TEST, CLEAN_TEST)}
    others = {view: found for view, found in evaluations.items() if view not in studied}
    shown = next(view for view in (CLEAN_TEST, RAW_TEST, VALIDATION) if view in views)
    write_report(
        run / "report.html",
        title=f"{fitted.recipe.name} on {prepared.manifest.column('source')[0]}",
        evaluations=studied,
        headline=shown,
        history=curves_of(fitted.history),
        diagnosis=diagnose(fitted.history),
        data=judging.data_summary(prepared.manifest, prepared.refused),
        mistakes=worst(views[shown], threshold=points[0].threshold) if points else None,
        mistakes_on=shown,
        pixels_of=pixels_by_id(prepared.manifest),
        notes=[*notes, *warned, *prepared.notes, *(line.strip() for line in summary(others))],
        command=command,
        made=made,
    )
    return evaluations


def uncalibrated(prepared: Prepared, fitted: Fitted) -> Bundle:
    """The bundle before anything was chosen on validation."""
    manifest, parts = prepared.manifest, Counter(prepared.manifest.column("split"))
    graph = export_onnx(for_export(fitted.model), size=fitted.recipe.size)
    return replace(
        bare(graph, fitted.recipe, prepared.classes),
        data={
            "source": manifest.column("source")[0],
            "fingerprint": manifest.fingerprint(),
            "content": manifest.content(),
            **{f"{part}_pictures": parts[part] for part in ("train", "validation", "test")},
        },
        versions={"python": platform.python_version(), **versions()},
    )


def bare(graph: bytes, recipe: Recipe, classes: tuple[str, ...]) -> Bundle:
    """A graph that nothing is known of yet: a bundle fit for logits alone."""
    return Bundle(
        name=recipe.name,
        classes=classes,
        size=recipe.size,
        prepare=recipe.prepare,
        calibration=Calibration.none(len(classes)),
        prevalence=dict.fromkeys(classes, 1 / len(classes)),
        data={},
        versions={},
        model=graph,
        card="",
    )


def versions() -> dict[str, str]:
    """Of the libraries that train and export, those that are installed."""
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except ModuleNotFoundError:  # TensorFlow comes under either of two names
            continue
    return found


def logits_of(engine: Engine, pixels: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """From the graph that ships, not from the Keras model: what is judged is what scores."""
    blocks = np.array_split(rows, max(1, len(rows) // judging.BATCH))
    return np.concatenate([engine.logits(pixels[block]) for block in blocks])


def _calibration(
    prepared: Prepared, rows: NDArray[np.int64], logits: NDArray[np.float32]
) -> tuple[Calibration, list[str]]:
    """Fitted on the validation pictures of the studied set; and what the reader must know of it."""
    studied = judging.views_of(prepared.manifest, rows, prepared.classes, logits)[VALIDATION]
    chosen = np.isin(np.array(prepared.manifest.column("image_id"), dtype=object)[rows], studied.image_ids)
    return fitted_calibration(logits[chosen], studied.truth)


def fitted_calibration(logits: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[Calibration, list[str]]:
    """A temperature alone, and in a sentence why not to trust it where the pictures do not determine one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TemperatureAtBound)
        calibration = Calibration.fit(logits, truth, bias=False)
    return calibration, [str(each.message) for each in caught]


def shares_of(scores: Scores) -> dict[str, float]:
    """Each class's share of labelled pictures."""
    shares = class_shares(scores.probabilities, scores.truth)
    return dict(zip(scores.classes, shares.tolist(), strict=True))


def curves_of(history: History) -> Curves:
    """A history as reports read it."""
    names = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    return Curves(*(history.column(name) for name in names))


def cost_of(fitted: Fitted) -> Cost:
    """What a training took; memory is that of this process so far, and unknown where another one trained."""
    history = fitted.history
    return Cost(
        seconds=sum(history.column("seconds")),
        images_per_second=float(np.median(history.column("images_per_second"))),
        parameters=fitted.model.count_params(),
        peak_mib=_peak_mib() if fitted.trained else math.nan,
        epochs=len(history),
        best_epoch=history.best.number if history.best else None,
    )


def _peak_mib() -> float:
    try:
        import resource
    except ModuleNotFoundError:  # Windows does not tell
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _plain(cost: Cost) -> dict[str, float | int | None]:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value for name, value in asdict(cost).items()
    }

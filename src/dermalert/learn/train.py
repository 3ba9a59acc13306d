"""The training loop.

Comes in: pixels, targets, the rows to train and to validate on, a recipe. Goes out: the model of the best
validation epoch and its curves; and in the run folder, all it takes to go on after an interruption.
It splits nothing, decodes nothing, judges nothing beyond validation loss, and never sees a test picture.

A run is a function of its recipe and data: the order of the pictures and what augmentation makes of them come from
the seed and the epoch, weights and dropout from the seed, and sums are made in a fixed order. So a run that was
killed and resumed gives, on the same machine with the same number of threads, the weights of one that was not, bit
for bit.

The loss that the curves show is the plain cross-entropy, whatever the recipe minimises, so that curves compare.

    run/training.json    the recipe as run, and a fingerprint of the data
    run/history.json     the curves, rewritten after each epoch
    run/checkpoint.npz   weights, optimizer and curves after the last whole epoch
    run/best-0007.npz    weights after the best validation epoch so far
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dermalert.errors import DataError, RunError
from dermalert.learn import balance, networks
from dermalert.learn.augment import Augmented, Augmenter
from dermalert.learn.checkpoint import read_arrays, write_arrays, write_text
from dermalert.learn.history import Epoch, History
from dermalert.learn.listeners import Listener
from dermalert.learn.pipeline import batches
from dermalert.learn.recipes import Recipe
from dermalert.learn.step import Labels, Step
from dermalert.learn.together import together

# Below this gain, bfloat16's coarser arithmetic buys too little; timing noise is of this order too.
_WORTHWHILE = 1.15


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from.

    Attributes:
        pixels: uint8 (N, H, W, 3), usually a `DecodedCache`'s.
        targets: int64 (N,) class indices, or bool (N, C), the classes that each label may stand for.
        train: int64 (T,) rows to learn from.
        validation: int64 (V,) rows that decide when to stop and which epoch is kept.
    """

    pixels: NDArray[np.uint8]
    targets: NDArray[Any]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]


@dataclass(frozen=True)
class Fitted:
    """A trained network.

    Attributes:
        model: keras.Model in float32 with the kept epoch's weights, whatever the precision it was trained in,
            averaging as many views as the recipe says; float32 or uint8 (N, H, W, 3) in [0, 255] to logits (N, C).
        history: the curves of all epochs.
        recipe: as run, with the precision decided.
        trained: whether this very call trained an epoch, or all were there already.
        shown: int64 (C,), how many pictures of each class, exact labels only, an epoch learns from.
    """

    model: Any
    history: History
    recipe: Recipe
    trained: bool
    shown: NDArray[np.int64]


@dataclass(frozen=True)
class _Lesson:
    """What a recipe makes of the data, the same in every epoch.

    Attributes:
        allowed: float32 (N, C), 1 for each class that a label may stand for.
        classes: int64 (N,), the one class of an exact label, else -1.
        weight: float32 (N,), how much a picture counts in what is minimised.
        offset: float32 (C,) or None, added to the logits in the loss.
        augmenter: None where training pictures stay as they are.
    """

    allowed: NDArray[np.float32]
    classes: NDArray[np.int64]
    weight: NDArray[np.float32]
    offset: NDArray[np.float32] | None
    augmenter: Augmenter | None

    @classmethod
    def of(cls, data: TrainingData, allowed: NDArray[np.float32], recipe: Recipe) -> _Lesson:
        classes = np.where(allowed.sum(axis=1) == 1, allowed.argmax(axis=1), -1).astype(np.int64)
        weight = np.ones(len(allowed), np.float32)
        if recipe.balance == "class-weights":
            weight[data.train] = balance.class_weights(classes, data.train)[data.train]
        adjusted = recipe.loss == "logit-adjusted"
        offset = balance.log_prior(classes, data.train, allowed.shape[1]) if adjusted else None
        augmenter = Augmenter(recipe.augment, size=recipe.size, seed=recipe.seed) if recipe.augment else None
        return cls(allowed, classes, weight, offset, augmenter)

    def order(self, train: NDArray[np.int64], recipe: Recipe, epoch: int) -> NDArray[np.int64]:
        """The rows of an epoch, in order."""
        random = np.random.default_rng((recipe.seed, epoch))
        if recipe.balance == "sampling":
            return balance.balanced_order(train, self.classes, random)
        if recipe.balance == "tempered":
            kinds = np.unique(self.allowed, axis=0, return_inverse=True)[1].astype(np.int64)
            return balance.tempered_order(train, kinds, random)
        return random.permutation(train)

    def shown(self, train: NDArray[np.int64], recipe: Recipe) -> NDArray[np.int64]:
        """int64 (C,): pictures of each class in an epoch."""
        classes = self.classes[self.order(train, recipe, 1)]
        return np.bincount(classes[classes >= 0], minlength=self.allowed.shape[1])

    def change(self, epoch: int) -> Callable[[NDArray[np.uint8], int], Augmented]:
        """What is done to each batch of an epoch, by its number."""
        if self.augmenter is None:
            return lambda pixels, _: Augmented(pixels, np.arange(len(pixels)), np.ones(len(pixels), np.float32))
        augmenter = self.augmenter
        return lambda pixels, batch: augmenter(pixels, epoch=epoch, batch=batch)

    def labels(self, rows: NDArray[np.int64], made: Augmented) -> Labels:
        return Labels(self.allowed[rows], self.allowed[rows[made.partner]], made.share, self.weight[rows])


def fit(
    data: TrainingData,
    recipe: Recipe,
    run: Path,
    *,
    classes: int,
    resume: bool = False,
    epochs: int | None = None,
    listeners: Sequence[Listener] = (),
    progress: bool = True,
) -> Fitted:
    """Trains until validation stops getting better, and gives the best validation epoch.

    Args:
        data: rows of `train` and `validation` must not overlap. Filling up rare classes (`balance: augmentor`) is
            done before, by `balance.fill_up`.
        recipe: what to do.
        run: the run folder; made if missing.
        classes: C, the number of classes.
        resume: go on from the last whole epoch in `run`; starts at the beginning if there is none.
        epochs: in place of the recipe's.
        listeners: are told of each epoch.
        progress: whether a bar is shown on stderr.

    Raises:
        DataError: the arrays do not fit together.
        RunError: `run` holds a run and `resume` is off; or it holds one of another recipe or data; or training
            was interrupted with Ctrl-C, or diverged.
        MissingExtra: Keras or TensorFlow is not installed.
    """
    group = together()
    allowed = _checked_targets(data, classes)
    recipe = replace(recipe, epochs=epochs or recipe.epochs)
    recipe = _begin(data, allowed, recipe, run, classes, resume)
    lesson = _Lesson.of(data, allowed, recipe)
    step = _step(recipe, classes, lesson)
    history = _restore(step, run)
    done_before = len(history)
    if group:
        group.check_alike(done_before)
    for listener in listeners:
        listener.begin(recipe)
    try:
        while len(history) < recipe.epochs and not history.exhausted(recipe.patience):
            epoch = _epoch(step, data, lesson, recipe, len(history) + 1, progress)
            history = History((*history.epochs, epoch))
            _save(step, history, run)
            for listener in listeners:
                listener.epoch(epoch)
    except KeyboardInterrupt:
        raise RunError(_how_to_go_on(len(_history(run)), run)) from None
    for listener in listeners:
        listener.end(history)
    model, trained = _kept_model(recipe, classes, history, run), len(history) > done_before
    return Fitted(model, history, recipe, trained, lesson.shown(data.train, recipe))


def _step(recipe: Recipe, classes: int, lesson: _Lesson) -> Step:
    model = networks.build(recipe, classes)
    stages, rates = networks.learning(model, recipe)
    return Step(
        model,
        stages=stages,
        rates=rates,
        focal=recipe.loss == "focal",
        offset=lesson.offset,
        together=together(),
    )


def fastest_precision(data: TrainingData, recipe: Recipe, *, classes: int) -> str:
    """`mixed_bfloat16` where a training step of this network is clearly faster with it here, else `float32`."""
    allowed = _checked_targets(data, classes)
    rows = np.sort(np.resize(data.train, recipe.batch_size))
    pixels, labels = data.pixels[rows], Labels.plain(allowed[rows])
    names = ("float32", "mixed_bfloat16")
    steps = [Step(networks.build(replace(recipe, precision=name), classes)) for name in names]
    for step in steps:
        step.train(pixels, labels, recipe.learning_rate)
    # In turns, so that a busy moment hits both; the fastest of each, since noise only ever adds.
    seconds = np.min([[_seconds(step, pixels, labels) for step in steps] for _ in range(5)], axis=0)
    return names[int(seconds[0] > _WORTHWHILE * seconds[1])]


def _seconds(step: Step, pixels: NDArray[np.uint8], labels: Labels) -> float:
    start = time.perf_counter()
    step.train(pixels, labels, 1e-3)
    return time.perf_counter() - start


def _checked_targets(data: TrainingData, classes: int) -> NDArray[np.float32]:
    """float32 (N, C), 1 for each class that a label may stand for, once it is sure that everything fits together."""
    count = len(data.pixels)
    if not len(data.train) or not len(data.validation):
        raise DataError(f"{len(data.train)} training and {len(data.validation)} validation pictures: both are needed.")
    rows = np.concatenate([data.train, data.validation])
    if rows.min() < 0 or rows.max() >= count:
        raise DataError(f"Rows from {rows.min()} to {rows.max()} are asked for; there are {count} pictures.")
    if np.intersect1d(data.train, data.validation).size:
        raise DataError("Some pictures are both in training and in validation.")
    if data.targets.ndim == 1:
        if data.targets.shape != (count,) or not ((data.targets >= 0) & (data.targets < classes))[rows].all():
            raise DataError(
                f"Targets of shape {data.targets.shape} are not class numbers 0 to {classes - 1} for {count} pictures."
            )
        one_hot: NDArray[np.float32] = np.eye(classes, dtype=np.float32)[np.clip(data.targets, 0, classes - 1)]
        return one_hot
    fits = data.targets.shape == (count, classes) and data.targets.dtype == np.bool_
    if not fits or not data.targets[rows].any(axis=1).all():
        raise DataError(
            f"Targets of shape {data.targets.shape} and type {data.targets.dtype} do not say for each of {count} "
            f"pictures which of {classes} classes it may be: bool, and true for one at least."
        )
    return data.targets.astype(np.float32)


def refuse_overwriting(run: Path, resume: bool) -> None:
    """Asked before anything costly is done.

    Raises:
        RunError: the folder holds a run, and nobody asked to go on with it; or it holds something else.
    """
    if (run / "training.json").exists() and not resume:
        raise RunError(f"{run} holds a training run. Go on with it with --resume, or name another folder.")
    if (run / "manifest.parquet").exists() and not (run / "training.json").exists():
        raise RunError(f"{run} holds a manifest.parquet of something else. Name another folder.")


def _begin(
    data: TrainingData, allowed: NDArray[np.float32], recipe: Recipe, run: Path, classes: int, resume: bool
) -> Recipe:
    """Claims the run folder, or checks that it holds this very run; the recipe with its precision decided."""
    about = run / "training.json"
    fingerprint = _fingerprint(data, allowed)
    refuse_overwriting(run, resume)
    if about.exists():
        try:
            stored = json.loads(about.read_text(encoding="utf-8"))
            as_run = Recipe.from_json(json.dumps(stored["recipe"]))
            asked = stored["asked_precision"]
        except (ValueError, KeyError, TypeError, RunError) as error:
            raise RunError(f"{about}: damaged ({error}). Train again into another folder.") from None
        # A constant rate does not ask how many epochs there will be.
        epochs = recipe.epochs if recipe.schedule == "constant" else as_run.epochs
        if training_part(replace(as_run, epochs=epochs, precision=asked)) != training_part(recipe):
            raise RunError(f"{run} was begun with another recipe. Resume it with the same one, or name another folder.")
        if stored["data"] != fingerprint:
            raise RunError(f"{run} was begun on other pictures, labels or another split. Name another folder.")
        return replace(recipe, precision=as_run.precision)
    run.mkdir(parents=True, exist_ok=True)
    asked = recipe.precision
    if asked == "auto":
        # Machines that train together must not each come to a decision of their own.
        decided = "float32" if together() else fastest_precision(data, recipe, classes=classes)
        recipe = replace(recipe, precision=decided)
    stored = {"recipe": json.loads(recipe.to_json()), "asked_precision": asked, "classes": classes, "data": fingerprint}
    write_text(about, json.dumps(stored, indent=2))
    return recipe


def training_part(recipe: Recipe) -> Recipe:
    """The recipe without what changes no weight: two that agree in it train to the same network."""
    return replace(recipe, name="", summary="", views=1, keep="best")


def _fingerprint(data: TrainingData, allowed: NDArray[np.float32]) -> str:
    digest = hashlib.sha256(repr(data.pixels.shape).encode())
    for array in (allowed, data.train, data.validation):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _restore(step: Step, run: Path) -> History:
    file = run / "checkpoint.npz"
    if not file.exists():
        return History()
    state, about = read_arrays(file)
    step.restore(state)
    return History.from_json(about["history"])


def _history(run: Path) -> History:
    file = run / "checkpoint.npz"
    return History.from_json(read_arrays(file)[1]["history"]) if file.exists() else History()


def _rate(recipe: Recipe, progress: float) -> float:
    """The learning rate when this share of all `recipe.epochs` is done."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def _epoch(step: Step, data: TrainingData, lesson: _Lesson, recipe: Recipe, number: int, progress: bool) -> Epoch:
    order = lesson.order(data.train, recipe, number)
    start = time.perf_counter()
    with tqdm(
        total=len(order), desc=f"epoch {number}/{recipe.epochs}", unit="picture", disable=not progress, leave=True
    ) as bar:
        loss, hits, done = 0.0, 0, 0
        for rows, made in batches(data.pixels, order, recipe.batch_size, change=lesson.change(number)):
            batch_loss, batch_hits = step.train(
                made.pixels,
                lesson.labels(rows, made),
                _rate(recipe, (number - 1 + done / len(order)) / recipe.epochs),
                head_only=number <= recipe.frozen_epochs,
            )
            loss, hits, done = loss + batch_loss, hits + batch_hits, done + len(rows)
            if not np.isfinite(batch_loss):
                raise RunError(f"The loss became {batch_loss} in epoch {number}. Lower the learning rate.")
            bar.set_postfix(loss=f"{loss / done:.3f}", accuracy=f"{hits / done:.3f}", refresh=False)
            bar.update(len(rows))
        trained = time.perf_counter() - start
        validation_loss, validation_accuracy = _validate(step, data, lesson.allowed, recipe.batch_size)
        bar.set_postfix(
            loss=f"{loss / done:.3f}",
            accuracy=f"{hits / done:.3f}",
            validation_loss=f"{validation_loss:.3f}",
            validation_accuracy=f"{validation_accuracy:.3f}",
        )
    return Epoch(
        number=number,
        train_loss=loss / done,
        train_accuracy=hits / done,
        validation_loss=validation_loss,
        validation_accuracy=validation_accuracy,
        seconds=time.perf_counter() - start,
        images_per_second=done / trained,
    )


def _validate(step: Step, data: TrainingData, allowed: NDArray[np.float32], batch_size: int) -> tuple[float, float]:
    loss, hits = 0.0, 0
    for rows, pixels in batches(data.pixels, np.sort(data.validation), batch_size, change=lambda pixels, _: pixels):
        batch_loss, batch_hits = step.test(pixels, Labels.plain(allowed[rows]))
        loss, hits = loss + batch_loss, hits + batch_hits
    return loss / len(data.validation), hits / len(data.validation)


def _save(step: Step, history: History, run: Path) -> None:
    """After an epoch: first the new best, then the checkpoint that counts on it, then what is not needed any more."""
    state = step.state()
    if history.best is history.epochs[-1]:
        weights = {name: array for name, array in state.items() if name.startswith("weight_")}
        write_arrays(_best_file(run, history), weights, {"epoch": len(history)})
    write_arrays(run / "checkpoint.npz", state, {"history": history.to_json()})
    write_text(run / "history.json", history.to_json())
    for old in run.glob("best-*.npz"):
        if old != _best_file(run, history):
            old.unlink()


def _best_file(run: Path, history: History) -> Path:
    if history.best is None:
        raise RunError("Validation never gave a finite loss. Lower the learning rate.")
    return run / f"best-{history.best.number:04d}.npz"


def _kept_model(recipe: Recipe, classes: int, history: History, run: Path) -> Any:
    arrays, _ = read_arrays(run / "checkpoint.npz" if recipe.keep == "last" else _best_file(run, history))
    weights = {name: array for name, array in arrays.items() if name.startswith("weight_")}
    model = networks.build(replace(recipe, precision="float32"), classes)
    for variable, name in zip(model.variables, sorted(weights), strict=True):
        variable.assign(weights[name])
    return networks.as_scored(model, recipe.views)


def _how_to_go_on(done: int, run: Path) -> str:
    kept = {0: "no epoch was finished yet", 1: "epoch 1 is saved"}.get(done, f"epochs 1 to {done} are saved")
    return f"Training was stopped; {kept} in {run}. Go on with the same command and --resume."

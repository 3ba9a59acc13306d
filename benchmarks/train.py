"""Training throughput: the tutorial's pipeline and Dermalert's, on the same pictures.

Comes in: a folder of class folders (`--data`; by default it draws one). Goes out: a table of images per second,
time to the first step, peak memory and final validation accuracy of both, and their ratios.
Both train the same network on the same split for the same number of epochs, each run in a process of its own
started by this one, in turns, so that a busy moment of the machine hits both.

    python benchmarks/train.py --data isic9/Train --epochs 8 --seeds 3
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import psutil  # type: ignore[import-untyped]

Figures = dict[str, Any]
SIZE = (180, 180)
BATCH = 32
SPLIT_SEED = 123


def tutorial(data: Path, epochs: int, seed: int) -> Figures:
    """https://www.tensorflow.org/tutorials/images/classification, float32, as it stands there."""
    start = time.perf_counter()
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    training, validation = _tutorial_sets(data)
    classes, count = len(training.class_names), len(training.file_paths)
    training = training.cache().shuffle(1000).prefetch(buffer_size=tf.data.AUTOTUNE)
    validation = validation.cache().prefetch(buffer_size=tf.data.AUTOTUNE)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            layers.Rescaling(1.0 / 255),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(classes),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first_step = 0.0
            self.training: list[float] = []
            self.whole: list[float] = []

        def on_epoch_begin(self, *_: object, **__: object) -> None:
            self.began = time.perf_counter()

        def on_train_batch_end(self, *_: object, **__: object) -> None:
            self.first_step = self.first_step or time.perf_counter() - start

        def on_test_begin(self, *_: object, **__: object) -> None:
            self.training.append(time.perf_counter() - self.began)

        def on_epoch_end(self, *_: object, **__: object) -> None:
            self.whole.append(time.perf_counter() - self.began)

    clock = Clock()
    curves = model.fit(training, validation_data=validation, epochs=epochs, verbose=0, callbacks=[clock]).history
    return {
        "images_per_second": [count / seconds for seconds in clock.training],
        "epoch_seconds": clock.whole,
        "first_step_seconds": clock.first_step,
        "final_accuracy": curves["val_accuracy"][-1],
        "best_loss": min(curves["val_loss"]),
    }


def ours(epochs: int, seed: int, split: Path, scratch: Path) -> Figures:
    """The plain recipe through `dermalert.learn`; validation watches and does not stop it."""
    start = time.perf_counter()
    import numpy as np

    from dermalert.learn import step
    from dermalert.learn.pipeline import DecodedCache
    from dermalert.learn.recipes import recipe_named
    from dermalert.learn.train import TrainingData, fit

    parts = json.loads(split.read_text())
    files = [Path(name) for name in (*parts["training"], *parts["validation"])]
    names = sorted({file.parent.name for file in files})
    ids = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    cache = DecodedCache.build(files, ids, size=SIZE, folder=scratch / "cache", progress=False)
    count = len(parts["training"])
    pictures = TrainingData(
        pixels=cache.pixels,
        targets=np.array([names.index(file.parent.name) for file in files]),
        train=np.arange(count),
        validation=np.arange(count, len(files)),
    )
    recipe = replace(recipe_named("plain"), seed=seed, patience=epochs)
    steps: list[tuple[int, float]] = []
    learn = step.Step.train

    def timed(self: step.Step, *batch: Any, **options: Any) -> tuple[float, int]:
        result = learn(self, *batch, **options)
        steps.append((id(self), time.perf_counter() - start))
        return result

    setattr(step.Step, "train", timed)  # noqa: B010 -- the clock belongs here, not in the product
    run = Path(tempfile.mkdtemp(dir=scratch))
    fitted = fit(pictures, recipe, run, classes=len(names), epochs=epochs)
    history = fitted.history
    return {
        "images_per_second": history.column("images_per_second"),
        "epoch_seconds": history.column("seconds"),
        # The first step of the run itself, after those that only measured which precision is faster.
        "first_step_seconds": next(seconds for model, seconds in steps if model == steps[-1][0]),
        "final_accuracy": history.epochs[-1].validation_accuracy,
        "best_loss": min(history.column("validation_loss")),
        "precision": fitted.recipe.precision,
    }


def write_split(data: Path, split: Path) -> None:
    """The tutorial's own 80/20 split, for both."""
    training, validation = _tutorial_sets(data)
    split.write_text(json.dumps({"training": training.file_paths, "validation": validation.file_paths}))


def _tutorial_sets(data: Path) -> tuple[Any, Any]:
    import keras

    return tuple(
        keras.utils.image_dataset_from_directory(
            data, validation_split=0.2, subset=part, seed=SPLIT_SEED, image_size=SIZE, batch_size=BATCH, verbose=False
        )
        for part in ("training", "validation")
    )


def measured(arguments: Sequence[str]) -> Figures:
    """Runs one side in a process of its own, watching its memory."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        with (Path(folder) / "log").open("w+") as log:
            command = [sys.executable, __file__, *arguments, "--answer", str(answer)]
            child = subprocess.Popen(command, stdout=log, stderr=log)
            peak = [0]
            watcher = threading.Thread(target=_watch, args=(child, peak))
            watcher.start()
            status = child.wait()
            watcher.join()
            if status:
                log.seek(0)
                raise SystemExit(f"{' '.join(arguments)} failed:\n{log.read()[-3000:]}")
        figures: Figures = json.loads(answer.read_text())
    return {**figures, "run_seconds": time.perf_counter() - began, "peak_mib": peak[0] / 2**20}


def _watch(child: subprocess.Popen[bytes], peak: list[int]) -> None:
    process = psutil.Process(child.pid)
    while child.poll() is None:
        try:
            peak[0] = max(peak[0], process.memory_info().rss)
        except psutil.NoSuchProcess:
            return
        time.sleep(0.05)


def compare(data: Path, epochs: int, seeds: int) -> None:
    """Measures both sides in turns and prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        split = scratch / "split.json"
        common = ["--data", str(data), "--epochs", str(epochs), "--split", str(split), "--scratch", str(scratch)]
        subprocess.run([sys.executable, __file__, "--side", "split", *common], check=True, stderr=subprocess.DEVNULL)
        parts = json.loads(split.read_text())
        print(f"{len(parts['training'])} training and {len(parts['validation'])} validation pictures, {epochs} epochs")
        sides: dict[str, list[Figures]] = {"tutorial": [], "ours": []}
        for seed in range(seeds):
            for side, runs in sides.items():
                runs.append(measured(["--side", side, "--seed", str(seed), *common]))
                print(f"  seed {seed} {side:8} {steady(runs[-1]):6.0f} images/s", file=sys.stderr)
    _print_table(sides["tutorial"], sides["ours"])


def steady(run: Figures) -> float:
    """Images per second in the median epoch, the first left out: it fills caches and compiles."""
    rates: list[float] = run["images_per_second"][1:]
    return median(rates)


def _print_table(theirs: list[Figures], mine: list[Figures]) -> None:
    print(f"ours trains in {mine[0]['precision']}, the tutorial in float32")
    print(f"{'':44}{'tutorial':>10}{'ours':>10}{'ratio':>8}")

    def row(title: str, one: float, other: float, ratio: float | None, form: str = ".1f") -> None:
        last = "" if ratio is None else f"{ratio:.2f}"
        print(f"{title:44}{one:>10{form}}{other:>10{form}}{last:>8}")

    a, b = median(map(steady, theirs)), median(map(steady, mine))
    row("training images/s, median steady epoch", a, b, b / a, ".0f")
    a, b = (median(median(run["epoch_seconds"][1:]) for run in runs) for runs in (theirs, mine))
    row("seconds an epoch, with validation", a, b, a / b, ".2f")
    a, b = (median(run["run_seconds"] for run in runs) for runs in (theirs, mine))
    row("seconds the whole process, with imports", a, b, a / b)
    a, b = theirs[0]["first_step_seconds"], mine[0]["first_step_seconds"]
    row("seconds to the first step, nothing cached", a, b, a / b)
    if len(mine) > 1:
        a, b = (median(run["first_step_seconds"] for run in runs[1:]) for runs in (theirs, mine))
        row("seconds to the first step, later runs", a, b, a / b)
    a, b = (max(run["peak_mib"] for run in runs) for runs in (theirs, mine))
    row("peak resident memory, MiB", a, b, a / b, ".0f")
    for title, key in (
        ("validation accuracy after the last epoch", "final_accuracy"),
        ("lowest validation loss", "best_loss"),
    ):
        a, b = (mean(run[key] for run in runs) for runs in (theirs, mine))
        row(f"{title}, mean", a, b, None, ".3f")
        if len(mine) > 1:
            a, b = (stdev(run[key] for run in runs) for runs in (theirs, mine))
            row("  standard deviation over seeds", a, b, None, ".3f")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of class folders; drawn if not given")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    for name, kind in (("side", str), ("seed", int), ("split", Path), ("scratch", Path), ("answer", Path)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="two epochs of few drawn pictures: whether it still runs")
    asked = parser.parse_args()
    if asked.side == "split":
        write_split(asked.data, asked.split)
    elif asked.side == "tutorial":
        asked.answer.write_text(json.dumps(tutorial(asked.data, asked.epochs, asked.seed)))
    elif asked.side == "ours":
        asked.answer.write_text(json.dumps(ours(asked.epochs, asked.seed, asked.split, asked.scratch)))
    elif asked.data is not None:
        compare(asked.data.resolve(), asked.epochs, asked.seeds)
    else:
        from dermalert.drawn import draw_class_folders

        with tempfile.TemporaryDirectory() as folder:
            draw_class_folders(Path(folder), per_class=4 if asked.quick else 100, seed=0, faults=False)
            compare(Path(folder), *((2, 1) if asked.quick else (asked.epochs, asked.seeds)))


if __name__ == "__main__":
    main()

"""`dermalert study`: several recipes trained on one audited, group-safe split, and one comparison that a reader trusts.

out/plan.json                  what was asked, so that --resume goes on with the same
out/manifest.parquet           the studied set, split; out/pooled.parquet with --pool: all sets
out/decoded/                   decoded pictures, for all arms
out/arms/NAME/seed-K.json      the recipe of one training, as `dermalert train --from` reads it
out/arms/NAME/seed-K/          its run folder
out/study.html, study.json     the comparison

Each training runs in a process of its own: its memory is measured, and one that fails takes no other with it.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import signal
import subprocess
import sys
from codecs import getincrementaldecoder
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.bundle.format import Bundle
from dermalert.errors import DataError, MissingExtra, RefusedFile, RunError
from dermalert.intake.decode import load
from dermalert.intake.manifest import Manifest
from dermalert.intake.pool import concatenated, pool
from dermalert.intake.split import split
from dermalert.judge.study import (
    CLEAN_TEST,
    DONE,
    FAILED,
    RAW_TEST,
    SKIPPED,
    VALIDATION,
    Arm,
    ArmRun,
    Cost,
    Leak,
    Study,
)
from dermalert.judge.study_page import write_study
from dermalert.learn import augment, balance, prepare
from dermalert.learn.diagnose import diagnose
from dermalert.learn.history import History
from dermalert.learn.recipes import AUGMENT_SEARCH, RECIPES, Recipe, differences, recipe_named
from dermalert.learn.train import training_part
from dermalert.stages import judging
from dermalert.stages.leak import leak_shown
from dermalert.stages.training import curves_of
from dermalert.taxonomy import MELANOMA

BASELINE = "plain"
STAGED = ("plain", "augmented", "balanced", "transfer")
GROUPS = {
    "balancing": ("balanced", "class-weights", "balanced-sampling", "focal", "logit-adjusted"),
    "augment-search": ("augmented", *AUGMENT_SEARCH),
    "all": tuple(RECIPES),
}
SHOWN = 4  # what an augmentation makes of one picture, so often


@dataclass(frozen=True)
class Plan:
    """What a study was asked for.

    Attributes:
        data, pool: the studied set and those pooled with it.
        recipes: names, the baseline first.
        repeats: trainings of each recipe, with seeds from `seed` on.
        epochs: at most so many, in place of the recipes' numbers.
    """

    data: Path
    pool: tuple[Path, ...]
    recipes: tuple[str, ...]
    repeats: int
    epochs: int | None
    seed: int

    def arms(self) -> dict[str, list[Recipe]]:
        """The recipe of each training."""
        return {
            name: [self._recipe(name, self.seed + repeat) for repeat in range(self.repeats)] for name in self.recipes
        }

    def _recipe(self, name: str, seed: int) -> Recipe:
        recipe = recipe_named(name)
        return replace(recipe, seed=seed, epochs=min(self.epochs or recipe.epochs, recipe.epochs))


def expanded(names: Iterable[str]) -> tuple[str, ...]:
    """Recipe names with the groups among them (`balancing`, `augment-search`, `all`) written out, the baseline first.

    Raises:
        RunError: there is no such recipe or group.
    """
    asked = [BASELINE, *names]
    found = dict.fromkeys(each for name in asked for each in GROUPS.get(name, (name,)))
    for name in found:
        if name not in RECIPES:
            raise RunError(f"There is no recipe {name!r}. Known: {', '.join(RECIPES)}; groups: {', '.join(GROUPS)}.")
    return tuple(found)


def run_study(
    plan: Plan,
    out: Path,
    *,
    show_leak: bool = False,
    resume: bool = False,
    table: Path | None = None,
    columns: Mapping[str, str] | None = None,
    resamples: int = 1000,
    workers: int | None = None,
    command: str,
    made: datetime,
) -> Study:
    """Trains every arm and writes the comparison into `out`.

    Args:
        show_leak: train with altered copies of every class twice more: split first, and as most notebooks do.
        resume: go on with an interrupted study; more recipes or repeats may be asked for than before.
        table, columns: as `intake.sources.list_data`, for the studied set.

    Raises:
        RunError: `out` holds a study and `resume` is off, or one of other data; or it was stopped with Ctrl-C.
        DataError: the data cannot be read or divided.
    """
    asked = _claimed(plan, out, resume)
    manifest, refused = _prepared(plan, out, asked, table, columns, workers)
    notes: list[str] = []
    arms = [_arm(name, recipes, plan, out, resamples, notes) for name, recipes in plan.arms().items()]
    leak = _leak(plan, manifest, out, resamples, notes) if show_leak else None
    study = _study(manifest, refused, arms, leak, notes, resamples)
    write_study(out, study, samples=_samples(manifest, plan), command=command, made=made)
    return study


def _leak(plan: Plan, manifest: Manifest, out: Path, resamples: int, notes: list[str]) -> Leak | None:
    """The leak; where it cannot be shown, `notes` is told why, and the arms are not lost for it."""
    recipe = plan.arms()[BASELINE][0]
    try:
        return leak_shown(manifest, recipe, out / "leak", cache=out / "decoded", resamples=resamples)
    except (DataError, MissingExtra) as error:
        notes.append(f"The leak could not be shown: {error}")
        return None


def _claimed(plan: Plan, out: Path, resume: bool) -> str:
    """What plan.json is to say, once it is sure that `out` is free or holds this very study."""
    data, *pool = (str(path.resolve()) for path in (plan.data, *plan.pool))
    asked = json.dumps({"data": data, "pool": pool, "seed": plan.seed, "epochs": plan.epochs}, indent=1) + "\n"
    file = out / "plan.json"
    if not file.exists() and (out / "manifest.parquet").exists():
        raise RunError(f"{out} holds a manifest.parquet of something else. Name another folder.")
    if file.exists() and not resume:
        raise RunError(f"{out} holds a study. Go on with it with --resume, or name another folder.")
    if file.exists() and file.read_text(encoding="utf-8") != asked:
        raise RunError(f"{out} was begun on other data, or with another seed or number of epochs.")
    out.mkdir(parents=True, exist_ok=True)
    return asked


def _prepared(
    plan: Plan, out: Path, asked: str, table: Path | None, columns: Mapping[str, str] | None, workers: int | None
) -> tuple[Manifest, tuple[RefusedFile, ...]]:
    """The studied set, audited and split; read again where an earlier start left it."""
    file, told = out / "manifest.parquet", out / "refused.json"
    if file.exists():
        return Manifest.read(file), tuple(RefusedFile(*each) for each in json.loads(told.read_text(encoding="utf-8")))
    others = [judging.labelled_manifest(path, workers=workers)[0] for path in plan.pool]
    against = concatenated(others) if others else None
    manifest, refused = judging.labelled_manifest(
        plan.data, table=table, columns=columns, against=against, workers=workers
    )
    if others:
        pooled = pool([manifest, *others], seed=plan.seed)
        pooled.write(out / "pooled.parquet")
        studied = np.array(pooled.column("source"), dtype=object) == pooled.column("source")[0]
        manifest = pooled.where(studied)
    elif not any(manifest.column("split")):
        manifest = split(manifest, seed=plan.seed)
    (out / "plan.json").write_text(asked, encoding="utf-8")
    told.write_text(json.dumps([(each.path, each.reason, each.mend) for each in refused]), encoding="utf-8")
    manifest.write(file)
    return manifest, refused


def _arm(name: str, recipes: Sequence[Recipe], plan: Plan, out: Path, resamples: int, notes: list[str]) -> Arm:
    """Trains what is not yet trained and reads back what came out; `notes` is told of repeats that failed."""
    recipe = recipes[0]
    changes = differences(recipe, plan.arms()[BASELINE][0])
    adds_to = "augmented" if name in AUGMENT_SEARCH else ""
    arm = partial(Arm, name, recipe.summary, recipe.to_json(), changes, adds_to=adds_to)
    if recipe.pooled and not plan.pool:
        return arm(state=SKIPPED, why="It learns from other data sets too; none was given with --pool.")
    manifest = out / ("pooled.parquet" if recipe.pooled else "manifest.parquet")
    runs: list[ArmRun] = []
    for each in recipes:
        folder = out / "arms" / name / f"seed-{each.seed}"
        why = _unlike(each, folder) if _finished(folder) else _train(each, manifest, folder, out, resamples)
        if why is not None and not runs:
            return arm(state=FAILED, why=why)
        if why is not None:
            notes.append(f"{name} has fewer trainings than the others: seed {each.seed} failed: {why}")
            break
        runs.append(read_run(folder, each, resamples=resamples))
    first = out / "arms" / name / f"seed-{recipe.seed}"
    return arm(runs=runs, training_counts=_training_facts(first)["shown"])


def _finished(folder: Path) -> bool:
    """Whether a run folder is whole: its report is written last."""
    return (folder / "report.html").exists()


def _unlike(recipe: Recipe, folder: Path) -> str | None:
    """Why a finished training is not one of this recipe; None where it is."""
    other = Recipe.from_json(folder.with_suffix(".json").read_text(encoding="utf-8"))
    if replace(other, summary=recipe.summary) == recipe:
        return None
    return f"{folder} holds a training of another recipe of this name. Remove it, or name another folder for the study."


def _training_facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["training"]
    return facts


def _train(recipe: Recipe, manifest: Path, folder: Path, out: Path, resamples: int) -> str | None:
    """Runs `dermalert train`; why it failed, or None."""
    file = folder.with_suffix(".json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(recipe.to_json() + "\n", encoding="utf-8")
    _borrow(recipe, folder, out)
    print(f"== {recipe.name}, seed {recipe.seed}", file=sys.stderr)
    # The recipe's own seed serves; --resume begins where there is nothing to go on with.
    options = {"--from": file, "--out": folder, "--cache": out / "decoded", "--resamples": resamples}
    command = [sys.executable, "-m", "dermalert.cli", "train", str(manifest), "--resume"]
    return _run([*command, *(str(word) for pair in options.items() for word in pair)])


def _run(command: Sequence[str]) -> str | None:
    """Runs a command whose stderr is passed on as it comes; its last line if it failed."""
    # Our own interpreter, arguments as a list: no shell reads them.
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:  # noqa: S603
        assert child.stderr is not None
        decode = getincrementaldecoder("utf-8")(errors="replace").decode
        tail = ""
        try:
            while chunk := child.stderr.read1(1 << 16):  # type: ignore[attr-defined]
                text = decode(chunk)
                sys.stderr.write(text)
                sys.stderr.flush()
                tail = (tail + text)[-4096:]
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
            child.wait()
            print(file=sys.stderr)  # below the bar that was cut off
            raise RunError("The study was stopped. Go on with the same command and --resume.") from None
    if child.returncode == 0:
        return None
    lines = tail.replace("\r", "\n").strip().splitlines()
    return lines[-1].removeprefix("dermalert: ") if lines else f"It ended with status {child.returncode}."


def _borrow(recipe: Recipe, folder: Path, out: Path) -> None:
    """Copies the network of a finished training that differs in nothing but how it is scored or called."""
    for file in sorted(out.glob("arms/*/*.json")):
        done = file.with_suffix("")
        if done == folder or folder.exists() or not _finished(done):
            continue
        other = Recipe.from_json(file.read_text(encoding="utf-8"))
        if training_part(other) == training_part(recipe):
            aside = folder.with_suffix(".partial")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            for kept in ("training.json", "history.json", "checkpoint.npz", *(p.name for p in done.glob("best-*.npz"))):
                shutil.copy(done / kept, aside / kept)
            aside.replace(folder)


def read_run(folder: Path, recipe: Recipe, *, resamples: int) -> ArmRun:
    """A finished run folder as a comparison needs it.

    Raises:
        DataError: its files do not fit together.
    """
    bundle = Bundle.load(folder / "bundle")
    manifest = Manifest.read(folder / "manifest.parquet")
    rows, probabilities = _predictions(folder, manifest, bundle.classes)
    scores = judging.views_of(manifest, rows, bundle.classes, probabilities)
    history = History.from_json((folder / "history.json").read_text(encoding="utf-8"))
    diagnosis = diagnose(history)
    return ArmRun(
        seed=recipe.seed,
        evaluations=judging.judged(scores, bundle, resamples=resamples, seed=0),
        scores=scores,
        cost=_cost(folder),
        curves=curves_of(history),
        verdict=diagnosis.verdict,
        sentences=diagnosis.sentences,
        suggestions=diagnosis.suggestions,
    )


def _predictions(folder: Path, manifest: Manifest, classes: tuple[str, ...]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The rows that a run's predictions.csv tells of, ascending, and their probabilities, float64 (M, C)."""
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        told = {row["image_id"]: row for row in csv.DictReader(stream)}
    ids = manifest.column("image_id")
    rows = np.array([row for row, image_id in enumerate(ids) if image_id in told], np.int64)
    if not len(rows) == len(told) > 0:
        raise DataError(f"{folder}: predictions.csv and manifest.parquet do not fit. Train again into another folder.")
    columns = [f"p_{name.replace(' ', '_')}" for name in classes]
    return rows, np.array([[float(told[ids[row]][column]) for column in columns] for row in rows])


def _cost(folder: Path) -> Cost:
    told: dict[str, Any] = _training_facts(folder)["cost"]
    measured = {name: math.nan if told[name] is None else told[name] for name in ("images_per_second", "peak_mib")}
    return Cost(**{**told, **measured})


def _study(
    manifest: Manifest,
    refused: Sequence[RefusedFile],
    arms: Sequence[Arm],
    leak: Leak | None,
    notes: Sequence[str],
    resamples: int,
) -> Study:
    judged_on = next((arm.runs[0].scores for arm in arms if arm.state == DONE), {VALIDATION: None})
    return Study(
        name=manifest.column("source")[0],
        baseline=BASELINE,
        arms=arms,
        views=[view for view in (VALIDATION, RAW_TEST, CLEAN_TEST) if view in judged_on],
        class_counts=judging.data_summary(manifest, ()).counts,
        refused=refused,
        notes=notes,
        leak=leak,
        seed=0,
        resamples=resamples,
    )


def _samples(manifest: Manifest, plan: Plan) -> dict[str, list[NDArray[np.uint8]]]:
    """What augmentation, filling up and preparation of the study's recipes make of a melanoma that trains.

    The other pictures, of the next diagnoses, are what it is blended with.
    """
    recipes = [each for several in plan.arms().values() for each in several]
    pictures = _one_a_class(manifest, recipes[0].size)
    strengths = {name: strength for recipe in recipes for name, strength in recipe.augment.items()}
    shown = dict(augment.examples(strengths, pictures, count=SHOWN, seed=plan.seed)) if strengths else {}
    if any(recipe.balance == "augmentor" for recipe in recipes):
        shown["Augmentor"] = balance.examples(pictures[0], count=SHOWN, seed=plan.seed)
    return shown | prepare.examples(list(dict.fromkeys(n for r in recipes for n in r.prepare)), pictures[0])


def _one_a_class(manifest: Manifest, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 (K, H, W, 3): the first training picture of melanoma, then of three other diagnoses."""
    first: dict[str, Path] = {}
    for path, word, part in zip(manifest.paths(), manifest.column("diagnosis"), manifest.column("split"), strict=True):
        if part == "train":
            first.setdefault(word, path)
    chosen = [first[word] for word in sorted(first, key=lambda word: (word != MELANOMA, word))][:SHOWN]
    return np.stack([pixels for path in chosen if (pixels := _pixels(path, size)) is not None])


def _pixels(path: Path, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    try:
        return load(path, size=size).pixels
    except RefusedFile:  # gone since it trained; the page does without
        return None

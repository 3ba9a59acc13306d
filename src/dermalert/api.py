"""The public functions: what the command line does, for scripts and notebooks.

Comes in: paths and values. Goes out: the values that the stages work with, and the files that they write.
It computes nothing. As in `cli`, heavy imports stand inside the functions, so that `score` waits for no training
framework. Progress goes to stderr.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from dermalert.bundle.format import Bundle
    from dermalert.intake.audit import AuditReport
    from dermalert.intake.manifest import Manifest
    from dermalert.judge.evaluation import Evaluation
    from dermalert.judge.study import Study
    from dermalert.learn.recipes import Recipe
    from dermalert.score.batch import Finding
    from dermalert.stages.explaining import Explained
    from dermalert.stages.similarity import Similar

PathLike: TypeAlias = str | os.PathLike[str]


def load_manifest(
    data: PathLike,
    *,
    table: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    workers: int | None = None,
) -> Manifest:
    """The manifest of a data set: one row a picture, with the audit's groups and proposals. Writes nothing.

    Args:
        data: a folder of class folders, a folder with a CSV table, the table, or a `manifest.parquet`, which is
            read as it is.
        table: the CSV that describes the pictures, if it is not found by itself.
        columns: `image`, `diagnosis`, `lesion_id`, `patient_id`, `age`, `sex`, `site` or `split` -> the name of
            that column in your table.
        workers: decoding threads; by default one a core.

    Raises:
        DataError: nothing there can be read as a data set.
    """
    from dermalert.stages.judging import labelled_manifest

    return labelled_manifest(Path(data), table=_path(table), columns=columns, workers=workers)[0]


def audit(
    data: PathLike,
    *,
    out: PathLike | None = None,
    against: PathLike | None = None,
    table: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> AuditReport:
    """What is wrong with a data set before a model is trained on it.

    Args:
        data, table, columns, workers: as for `load_manifest`, but `data` is no manifest.
        out: folder for `audit.json`, `audit.html` and `manifest.parquet`; by default nothing is written.
        against: another data set that may hold the same pictures or lesions.
        seed: of the shift check.

    Returns:
        the findings; `report.manifest` is the audited manifest, `report.refused` the files left out and why.

    Raises:
        DataError: nothing there can be read as a data set.
    """
    from dermalert.stages.auditing import audited, run_audit

    options: dict[str, Any] = {"against": _path(against), "table": _path(table)}
    options |= {"columns": columns, "seed": seed, "workers": workers}
    if out is None:
        return audited(Path(data), **options)
    told = _call("audit", data, out=out, against=against, table=table, columns=columns, seed=seed)
    return run_audit(Path(data), Path(out), **options, command=told, made=_now())


def train(
    data: PathLike,
    *,
    out: PathLike,
    recipe: PathLike | Recipe = "plain",
    network: str | None = None,
    weights: PathLike | None = None,
    epochs: int | None = None,
    resume: bool = False,
    seed: int | None = None,
    table: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    cache: PathLike | None = None,
    log: str | Iterable[str] = (),
    resamples: int = 1000,
    workers: int | None = None,
) -> Mapping[str, Evaluation]:
    """Splits, trains, judges, and writes the run folder with its `bundle/` and `report.html`.

    Args:
        data, table, columns, workers: as for `load_manifest`.
        out: the run folder.
        recipe: a recipe, its name, or the path of a `recipe.json`: `plain` is a name, `plain.json` a file.
        network: `plain-cnn`, `mobilenetv2`, `efficientnet-lite0`, `efficientnet-lite2` or `keras/NAME` of
            keras.applications, in place of the recipe's.
        weights: `imagenet`, `none` or a file of weights: what a backbone starts from, in place of the recipe's.
        epochs: at most so many, in place of the recipe's number.
        resume: go on with the interrupted run in `out`.
        seed: of everything by chance, in place of the recipe's.
        cache: where decoded pictures are kept for later runs; by default `decoded/` beside the run folder.
        log: `tensorboard`, `mlflow` or `mlflow=URI`, one or several: who else is told of each epoch.
        resamples: for the intervals.

    Returns:
        an evaluation for each set of pictures judged: validation, and test as given and clean.

    Raises:
        RunError: no such recipe, or none in the file; or `out` holds a run and `resume` is off, or one of another
            recipe or data; or training was interrupted.
        DataError: the data cannot be read, or not be divided.
        MissingExtra: Keras and TensorFlow are not installed.
    """
    from dermalert.stages.training import run_train

    told = _call(
        "train",
        data,
        out=out,
        recipe=recipe,
        network=network,
        weights=weights,
        epochs=epochs,
        resume=resume,
        seed=seed,
        table=table,
        columns=columns,
        resamples=resamples,
    )
    chosen = _recipe(recipe)
    changed = replace(
        chosen,
        network=network or chosen.network,
        weights=chosen.weights if weights is None else os.fspath(weights),
        seed=chosen.seed if seed is None else seed,
    )
    return run_train(
        Path(data),
        changed,
        Path(out),
        resume=resume,
        epochs=epochs,
        table=_path(table),
        columns=columns,
        cache=_path(cache),
        log=[log] if isinstance(log, str) else list(log),
        resamples=resamples,
        workers=workers,
        command=told,
        made=_now(),
    )


def study(
    data: PathLike,
    *,
    out: PathLike,
    recipes: str | Iterable[str] = ("plain", "augmented", "balanced", "transfer"),
    pool: PathLike | Iterable[PathLike] = (),
    repeats: int = 1,
    epochs: int | None = None,
    show_leak: bool = False,
    resume: bool = False,
    seed: int = 0,
    resamples: int = 1000,
    table: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    workers: int | None = None,
) -> Study:
    """Trains several recipes on one audited split, and compares them on one page.

    Every arm sees the same training, validation and test pictures. Each training runs in a process of its own.

    Args:
        data, table, columns, workers: as for `load_manifest`.
        out: folder for `study.html`, `study.json` and the run folders below `arms/`.
        recipes: names; `balancing`, `augment-search` and `all` stand for several. `plain` is always among them.
        pool: other data sets that the arm `pooled` learns from as well.
        repeats: trainings of each recipe, with seeds from `seed` on.
        epochs: at most so many an arm.
        show_leak: train twice more, with copies of every class: split first, and as most notebooks do.
        resume: go on with an interrupted study, or add arms to a finished one.
        resamples: for the intervals.

    Returns:
        what the page shows; an arm that failed is in it, with the reason.

    Raises:
        RunError: no such recipe; or `out` holds a study and `resume` is off, or one of other data; or it was
            interrupted.
        DataError: the data cannot be read, or not be divided.
    """
    from dermalert.stages.study import Plan, expanded, run_study

    names = [recipes] if isinstance(recipes, str) else list(recipes)
    others = [pool] if isinstance(pool, str | os.PathLike) else list(pool)
    told = _call(
        "study",
        data,
        out=out,
        recipes=names,
        pool=others or None,
        repeats=repeats,
        epochs=epochs,
        show_leak=show_leak,
        resume=resume,
        seed=seed,
        resamples=resamples,
        table=table,
        columns=columns,
    )
    asked = expanded(names)
    plan = Plan(Path(data), tuple(map(Path, others)), asked, repeats, epochs, seed)
    return run_study(
        plan,
        Path(out),
        show_leak=show_leak,
        resume=resume,
        table=_path(table),
        columns=columns,
        resamples=resamples,
        workers=workers,
        command=told,
        made=_now(),
    )


def evaluate(
    bundle: PathLike,
    data: PathLike,
    *,
    out: PathLike,
    table: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    prevalence: float = 0.02,
    masks: PathLike | None = None,
    robustness: int = 0,
    seed: int = 0,
    resamples: int = 1000,
    workers: int | None = None,
) -> Mapping[str, Evaluation]:
    """A bundle judged on labelled pictures that it was not trained on.

    Args:
        bundle: the `bundle/` folder of a training run.
        data, table, columns, workers: as for `load_manifest`.
        out: folder for `metrics.json`, `report.html` and `predictions.csv`.
        prevalence: the share of melanomas among the lesions of a clinic, in (0, 1), for its decision curve.
        masks: a folder of lesion masks named like their pictures: how much of the evidence lies inside.
        robustness: judge so many of the pictures under 22 corruptions, too; 0 for none.
        seed, resamples: of the intervals.

    Returns:
        an evaluation of all labelled pictures as given and, where the audit proposes to drop some, one without them.

    Raises:
        BundleError: the bundle cannot be used.
        DataError: nothing there is labelled, or a label stands for no class of the model.
    """
    from dermalert.stages.judging import run_evaluate

    options = {"prevalence": prevalence, "masks": masks, "robustness": robustness, "seed": seed, "resamples": resamples}
    told = _call("evaluate", bundle, data, out=out, table=table, columns=columns, **options)
    return run_evaluate(
        Path(bundle),
        Path(data),
        Path(out),
        table=_path(table),
        columns=columns,
        prevalence=prevalence,
        masks=_path(masks),
        robustness=robustness,
        seed=seed,
        resamples=resamples,
        workers=workers,
        command=told,
        made=_now(),
    )


def score(
    paths: PathLike | Iterable[PathLike],
    bundle: Bundle | PathLike | None = None,
    *,
    operating_point: str | None = None,
    prevalence: float | None = None,
    workers: int | None = None,
) -> Iterator[Finding]:
    """One finding a picture, in order, as they come. A file that cannot be used gives one that says why.

    Args:
        paths: pictures, folders (walked), patterns, manifests (`*.parquet`), lists (`*.csv`), archives and URLs; or
            one of them.
        bundle: a bundle, or the folder that it lies in; by default the one that ships.
        operating_point: the name of the one that decides on alerts; by default the bundle's first.
        prevalence: the share of melanomas among the lesions there, in (0, 1): adjusts the probabilities by Bayes' rule.
            Alerts and sets stay: they are decided on the probabilities as calibrated.
        workers: decoding threads; by default one a core.

    Raises:
        BundleError: the bundle cannot be used, or has no such operating point.
        DataError: a path does not exist, a list among them cannot be read, or the probabilities cannot be adjusted.
    """
    from dermalert.intake.given import given_at
    from dermalert.score import batch

    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    return batch.score(
        given_at(os.fspath(path) for path in several),
        _bundle(bundle),
        workers=workers,
        point=operating_point,
        prevalence=prevalence,
    )


def explain(
    paths: PathLike | Iterable[PathLike],
    bundle: Bundle | PathLike | None = None,
    *,
    out: PathLike,
    diagnosis: str = "melanoma",
    mask: PathLike | None = None,
) -> list[Explained]:
    """Evidence maps: where in each picture the evidence for a diagnosis lies, as PNG and as an array.

    Args:
        paths, bundle: as for `score`.
        out: the PNG file, for one picture; otherwise the folder of the PNGs.
        diagnosis: a class of the model, or another word for it.
        mask: the lesion's mask, for one picture; or a folder of masks named like their pictures.

    Returns:
        what was written for each picture; one that cannot be used is told on stderr and left out.

    Raises:
        BundleError: the bundle cannot be used.
        DataError: nothing there can be explained, the model does not know the diagnosis, or `out` would replace a
            picture.
    """
    from dermalert.stages.explaining import run_explain

    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    model = _bundle(bundle)
    return list(run_explain([*map(Path, several)], model, Path(out), diagnosis=diagnosis, mask=_path(mask)))


def similar(
    picture: PathLike,
    bundle: Bundle | PathLike | None = None,
    *,
    among: PathLike,
    k: int = 5,
    out: PathLike | None = None,
    index: PathLike | None = None,
    workers: int | None = None,
) -> Similar:
    """The pictures of a collection that the model sees as most like one picture.

    Args:
        bundle: as for `score`.
        among: a folder of pictures, a table or a manifest.
        k: how many.
        out: an HTML page with the pictures.
        index: folder where features are kept for the next time; by default in your cache folder.
        workers: decoding threads; by default one a core.

    Raises:
        RefusedFile: the picture cannot be used.
        BundleError: the bundle cannot be used, or its network gives no features to compare by.
        DataError: no picture there to compare with.
    """
    from dermalert.stages.similarity import kept_by_default, run_similar

    told = _call("similar", picture, among=among, k=k, out=out)
    return run_similar(
        Path(picture),
        Path(among),
        _bundle(bundle),
        k=k,
        index=_path(index) or kept_by_default(),
        out=_path(out),
        workers=workers,
        command=told,
        made=_now(),
    )


def _bundle(given: Bundle | PathLike | None) -> Bundle:
    from dermalert.bundle.format import Bundle

    if given is None:
        return Bundle.shipped()
    return given if isinstance(given, Bundle) else Bundle.load(Path(given))


def _path(given: PathLike | None) -> Path | None:
    return None if given is None else Path(given)


def _recipe(given: PathLike | Recipe) -> Recipe:
    from dermalert.learn.recipes import Recipe, recipe_from, recipe_named

    if isinstance(given, Recipe):
        return given
    if isinstance(given, str) and not given.endswith(".json"):
        return recipe_named(given)
    return recipe_from(Path(given))


def _call(name: str, *paths: PathLike, **options: Any) -> str:
    """The call as a reader would type it to have a page again."""
    given = {option: value for option, value in options.items() if value is not None}
    told = [repr(_plain(path)) for path in paths] + [f"{option}={_plain(value)!r}" for option, value in given.items()]
    return f"dermalert.{name}({', '.join(told)})"


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _now() -> datetime:
    return datetime.now(UTC)

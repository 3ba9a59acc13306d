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
    from dermalert.learn.recipes import Recipe
    from dermalert.score.batch import Finding

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
    from dermalert.intake import audit as auditing
    from dermalert.intake.sources import list_data
    from dermalert.stages.auditing import examine, run_audit, suspect

    if out is not None:
        told = _call("audit", data, out=out, against=against, table=table, columns=columns, seed=seed)
        return run_audit(
            Path(data),
            Path(out),
            against=_path(against),
            table=_path(table),
            columns=columns,
            seed=seed,
            workers=workers,
            command=told,
            made=_now(),
        )
    listing = list_data(Path(data), table=_path(table), columns=columns)
    ours = examine(listing, workers=workers)
    theirs = None if against is None else examine(list_data(Path(against)), workers=workers).manifest
    suspected = suspect(ours.manifest, workers)
    return auditing.audit(ours, kind=listing.kind, against=theirs, suspected=suspected, seed=seed)


def train(
    data: PathLike,
    *,
    out: PathLike,
    recipe: str | Recipe = "plain",
    epochs: int | None = None,
    resume: bool = False,
    seed: int | None = None,
    table: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    cache: PathLike | None = None,
    resamples: int = 1000,
    workers: int | None = None,
) -> Mapping[str, Evaluation]:
    """Splits, trains, judges, and writes the run folder with its `bundle/` and `report.html`.

    Args:
        data, table, columns, workers: as for `load_manifest`.
        out: the run folder.
        recipe: a recipe or its name.
        epochs: at most so many, in place of the recipe's number.
        resume: go on with the interrupted run in `out`.
        seed: of everything by chance, in place of the recipe's.
        cache: where decoded pictures are kept for later runs; by default `decoded/` beside the run folder.
        resamples: for the intervals.

    Returns:
        an evaluation for each set of pictures judged: validation, and test as given and clean.

    Raises:
        RunError: no such recipe; or `out` holds a run and `resume` is off, or one of another recipe or data; or
            training was interrupted.
        DataError: the data cannot be read, or not be divided.
        MissingExtra: Keras and TensorFlow are not installed.
    """
    from dermalert.learn.recipes import recipe_named
    from dermalert.stages.training import run_train

    told = _call(
        "train",
        data,
        out=out,
        recipe=recipe,
        epochs=epochs,
        resume=resume,
        seed=seed,
        table=table,
        columns=columns,
        resamples=resamples,
    )
    chosen = recipe_named(recipe) if isinstance(recipe, str) else recipe
    return run_train(
        Path(data),
        chosen if seed is None else replace(chosen, seed=seed),
        Path(out),
        resume=resume,
        epochs=epochs,
        table=_path(table),
        columns=columns,
        cache=_path(cache),
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
    seed: int = 0,
    resamples: int = 1000,
    workers: int | None = None,
) -> Mapping[str, Evaluation]:
    """A bundle judged on labelled pictures that it was not trained on.

    Args:
        bundle: the `bundle/` folder of a training run.
        data, table, columns, workers: as for `load_manifest`.
        out: folder for `metrics.json`, `report.html` and `predictions.csv`.
        seed, resamples: of the intervals.

    Returns:
        an evaluation of all labelled pictures as given and, where the audit proposes to drop some, one without them.

    Raises:
        BundleError: the bundle cannot be used.
        DataError: nothing there is labelled, or a label stands for no class of the model.
    """
    from dermalert.stages.judging import run_evaluate

    told = _call("evaluate", bundle, data, out=out, table=table, columns=columns, seed=seed, resamples=resamples)
    return run_evaluate(
        Path(bundle),
        Path(data),
        Path(out),
        table=_path(table),
        columns=columns,
        seed=seed,
        resamples=resamples,
        workers=workers,
        command=told,
        made=_now(),
    )


def score(
    paths: PathLike | Iterable[PathLike], bundle: Bundle | PathLike, *, workers: int | None = None
) -> Iterator[Finding]:
    """One finding a picture, in order, as they come. A file that cannot be used gives one that says why.

    Args:
        paths: pictures, folders (walked) and manifests (`*.parquet`); or one of them.
        bundle: a bundle, or the folder that it lies in.
        workers: decoding threads; by default one a core.

    Raises:
        BundleError: the bundle cannot be used.
        DataError: a manifest among the paths cannot be read.
    """
    from dermalert.bundle.format import Bundle
    from dermalert.score import batch

    model = bundle if isinstance(bundle, Bundle) else Bundle.load(Path(bundle))
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    return batch.score(batch.pictures_at(map(Path, several)), model, workers=workers)


def _path(given: PathLike | None) -> Path | None:
    return None if given is None else Path(given)


def _call(name: str, *paths: PathLike, **options: Any) -> str:
    """The call as a reader would type it to have a page again."""
    given = {option: value for option, value in options.items() if value is not None}
    told = [repr(_plain(path)) for path in paths] + [f"{option}={_plain(value)!r}" for option, value in given.items()]
    return f"dermalert.{name}({', '.join(told)})"


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _now() -> datetime:
    return datetime.now(UTC)

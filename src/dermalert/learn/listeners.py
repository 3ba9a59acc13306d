"""Listeners: a run's curves in a tool that the user already has, off unless asked for.

Comes in: a recipe, then one `Epoch` after another, then the `History`. Goes out: what TensorBoard or MLflow shows.
The run folder has the curves whether anyone listens or not. Nothing leaves the machine unless the user names a server.

A run that is resumed goes on with the same curves: every epoch stands in them once, at the step of its number, and
`end` writes the epochs that an interruption kept from being told.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from dermalert.errors import MissingExtra, RunError
from dermalert.learn.backend import backend
from dermalert.learn.checkpoint import write_text
from dermalert.learn.history import Epoch, History
from dermalert.learn.recipes import Recipe

NAMES = ("tensorboard", "mlflow", "mlflow=URI")

# TensorBoard's plugins: what they take, and its number among the data classes of summary.proto.
_PLUGINS = {"scalars": ("float32", 1), "text": ("string", 2)}


class Listener(Protocol):
    """Is told of a run as it goes."""

    def begin(self, recipe: Recipe) -> None:
        """Before the first epoch, and again whenever the run is resumed."""

    def epoch(self, epoch: Epoch) -> None:
        """After each epoch."""

    def end(self, history: History) -> None:
        """Once, after the last epoch."""


def listeners_named(names: Sequence[str], run: Path) -> list[Listener]:
    """The listeners of a run.

    Args:
        names: `tensorboard`, which writes into `run`; `mlflow`, which does so too; or `mlflow=URI`, a tracking store
            or server of the user's.
        run: the run folder.

    Raises:
        RunError: an unknown name.
        MissingExtra: MLflow or TensorFlow is not installed.
    """
    return [_named(name, run) for name in names]


def _named(name: str, run: Path) -> Listener:
    kind, given, uri = name.partition("=")
    if kind == "mlflow" and bool(given) == bool(uri):
        return MLflow(run, uri or None)
    if name == "tensorboard":
        return TensorBoard(run / "tensorboard")
    raise RunError(f"There is no listener {name!r}. Known: {', '.join(NAMES)}.")


class TensorBoard:
    """Event files for TensorBoard, as Keras lays them out: training and validation are one plot with two curves.

    Show them with `tensorboard --logdir FOLDER`; TensorBoard itself is not needed to write them.
    """

    def __init__(self, folder: Path) -> None:
        self._tf = backend().tf
        self._folder = folder
        self._writers: dict[str, Any] = {}
        self._told: set[int] = set()

    def begin(self, recipe: Recipe) -> None:
        """Finds the epochs that are written already, and writes the recipe if there are none."""
        self._told = set(self._steps()) - {0}
        if not self._told:
            text = "\n".join(f"    {line}" for line in recipe.to_json().splitlines())  # indented: code in Markdown
            self._write("train", "recipe", text, step=0, plugin="text")

    def epoch(self, epoch: Epoch) -> None:
        """Writes its figures, unless they are there."""
        if epoch.number in self._told:
            return
        for name, value in _figures(epoch).items():
            part, _, rest = name.partition("_")
            curve, tag = (part, rest) if part in ("train", "validation") else ("train", name)
            self._write(curve, tag, value, step=epoch.number, plugin="scalars")
        for writer in self._writers.values():
            writer.flush()
        self._told.add(epoch.number)

    def end(self, history: History) -> None:
        """Writes what is missing, and closes the files."""
        for epoch in history.epochs:
            self.epoch(epoch)
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _write(self, curve: str, tag: str, value: float | str, *, step: int, plugin: str) -> None:
        # tf.summary.scalar and .text do the same, and need TensorBoard installed.
        v1 = self._tf.compat.v1
        kind, data_class = _PLUGINS[plugin]
        metadata = v1.SummaryMetadata(plugin_data=v1.SummaryMetadata.PluginData(plugin_name=plugin))
        metadata.data_class = data_class
        if curve not in self._writers:
            self._writers[curve] = self._tf.summary.create_file_writer(str(self._folder / curve))
        with self._writers[curve].as_default(step=step):
            self._tf.summary.write(tag, self._tf.constant(value, kind), metadata=metadata)

    def _steps(self) -> Iterator[int]:
        for file in sorted(self._folder.glob("validation/events.*")):
            try:
                for record in self._tf.data.TFRecordDataset(str(file)):
                    yield int(self._tf.compat.v1.Event.FromString(record.numpy()).step)
            except self._tf.errors.DataLossError:  # the run was killed while it wrote the last one
                continue


class MLflow:
    """A run in an MLflow tracking store: by default an SQLite file of its own in the run folder.

    Show it with `mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db`; that needs the whole of MLflow.
    """

    EXPERIMENT = "dermalert"

    def __init__(self, run: Path, uri: str | None = None) -> None:
        mlflow, self._failures = _mlflow()
        self._entities = mlflow.entities
        self._note = run / "mlflow.json"
        self._name = run.resolve().name
        self._place = _without_password(uri) if uri else "mlflow.db"
        self._artifacts = None if uri else (run.resolve() / "mlflow-artifacts").as_uri()
        self._id = ""
        self._told: set[int] = set()
        run.mkdir(parents=True, exist_ok=True)
        store = uri or f"sqlite:///{(run.resolve() / self._place).as_posix()}"
        try:
            self._client = mlflow.tracking.MlflowClient(tracking_uri=store, registry_uri=store)
        except self._failures as error:
            raise RunError(self._refused(error)) from None

    def begin(self, recipe: Recipe) -> None:
        """Goes on with the MLflow run that `mlflow.json` in the run folder names, or starts one.

        Raises:
            RunError: the store cannot be used or reached. Once training goes on, that is only said on stderr.
        """
        try:
            self._id = self._kept() or self._made(recipe)
            history = self._client.get_metric_history(self._id, "validation_loss")
        except self._failures as error:
            raise RunError(self._refused(error)) from None
        self._told = {metric.step for metric in history}
        write_text(self._note, json.dumps({"store": self._place, "run_id": self._id}, indent=2))

    def epoch(self, epoch: Epoch) -> None:
        """Sends its figures, unless they are there."""
        try:
            self._tell(epoch)
        except self._failures as error:
            tqdm.write(self._refused(error), file=sys.stderr)

    def end(self, history: History) -> None:
        """Sends what is missing, tags the best epoch, and closes the MLflow run."""
        try:
            for epoch in history.epochs:
                self._tell(epoch)
            if history.best:
                self._client.set_tag(self._id, "best_epoch", str(history.best.number))
            self._client.set_terminated(self._id)
        except self._failures as error:
            tqdm.write(self._refused(error), file=sys.stderr)

    def _tell(self, epoch: Epoch) -> None:
        if epoch.number in self._told:
            return
        now = int(time.time() * 1000)
        figures = _figures(epoch).items()
        metrics = [self._entities.Metric(name, value, now, epoch.number) for name, value in figures]
        self._client.log_batch(self._id, metrics=metrics)
        self._told.add(epoch.number)

    def _kept(self) -> str | None:
        """The run of the note, open again; None if there is no note, or it is of another store."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            kept = str(note["run_id"]) if note["store"] == self._place else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self._note}: not readable ({error!r}). Delete it to start new curves.") from None
        if kept:
            self._client.update_run(kept, status="RUNNING")
        return kept

    def _made(self, recipe: Recipe) -> str:
        found = self._client.get_experiment_by_name(self.EXPERIMENT)
        home = found.experiment_id if found else self._client.create_experiment(self.EXPERIMENT, self._artifacts)
        made: str = self._client.create_run(home, run_name=f"{self._name} ({recipe.name})").info.run_id
        values = {name: str(value) for name, value in asdict(recipe).items() if value not in ("", (), {})}
        self._client.log_batch(made, params=[self._entities.Param(*each) for each in values.items()])
        return made

    def _refused(self, error: Exception) -> str:
        reason = " ".join(str(error).split())[:300]
        return f"MLflow at {self._place} does not take the curves, the run folder does: {reason}"


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/]*@", "//", uri, count=1)


def _figures(epoch: Epoch) -> dict[str, float]:
    figures: dict[str, float] = {name: float(value) for name, value in asdict(epoch).items() if value is not None}
    del figures["number"]
    return {name: value for name, value in figures.items() if math.isfinite(value) or name.endswith("loss")}


def _mlflow() -> tuple[Any, tuple[type[Exception], ...]]:
    """The module, and what it raises when a store cannot be used."""
    # MLflow tells its makers of its use unless told not to before it is imported, and is patient with dead servers.
    for name, value in {
        "DISABLE_TELEMETRY": "true",
        "HTTP_REQUEST_MAX_RETRIES": "2",
        "HTTP_REQUEST_TIMEOUT": "20",
    }.items():
        os.environ.setdefault(f"MLFLOW_{name}", value)
    try:
        import mlflow.entities
        import mlflow.exceptions
        import mlflow.tracking
        import sqlalchemy.exc  # without it MLflow knows no SQLite
    except ModuleNotFoundError:
        raise MissingExtra("Logging to MLflow", "mlflow") from None
    for name in ("mlflow.store.db.utils", "alembic"):  # they tell how they make their tables
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow, (mlflow.exceptions.MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError)

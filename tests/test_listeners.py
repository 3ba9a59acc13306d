"""Listeners are told each epoch once, however often a run was interrupted, and need no network."""

from __future__ import annotations

import json
import math
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dermalert.errors import MissingExtra, RunError
from dermalert.learn import listeners
from dermalert.learn.backend import backend
from dermalert.learn.history import Epoch, History
from dermalert.learn.listeners import MLflow, TensorBoard, listeners_named
from dermalert.learn.recipes import recipe_named

RECIPE = recipe_named("plain")
FIRST = Epoch(1, 2.0, 0.25, 2.5, 0.5, 1.5, 100.0)
EPOCHS = tuple(replace(FIRST, number=number, validation_loss=3.0 - 0.5 * number) for number in (1, 2, 3))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def events(folder: Path) -> Iterator[Any]:
    tf = backend().tf
    for file in sorted(folder.glob("events.*")):
        for record in tf.data.TFRecordDataset(str(file)):
            yield tf.compat.v1.Event.FromString(record.numpy())


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    tf = backend().tf
    return [
        (event.step, float(tf.make_ndarray(value.tensor)))
        for event in events(folder)
        for value in event.summary.value
        if value.tag == tag and value.metadata.plugin_data.plugin_name == "scalars"
    ]


def test_tensorboard_shows_training_and_validation_as_two_curves_of_one_plot(tmp_path: Path) -> None:
    (listener,) = listeners_named(["tensorboard"], tmp_path)
    listener.begin(RECIPE)
    for epoch in EPOCHS:
        listener.epoch(epoch)
    listener.end(History(EPOCHS))
    folder = tmp_path / "tensorboard"
    assert curve(folder / "train", "loss") == [(1, 2.0), (2, 2.0), (3, 2.0)]
    assert curve(folder / "validation", "loss") == [(1, 2.5), (2, 2.0), (3, 1.5)]
    assert curve(folder / "validation", "accuracy") == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert curve(folder / "train", "images_per_second")[0] == (1, 100.0)


def test_tensorboard_is_told_the_recipe_once(tmp_path: Path) -> None:
    for _ in range(2):
        listener = TensorBoard(tmp_path)
        listener.begin(RECIPE)
        listener.epoch(FIRST)
    texts = [value for event in events(tmp_path / "train") for value in event.summary.value if value.tag == "recipe"]
    assert len(texts) == 1
    assert b'"network": "plain-cnn"' in texts[0].tensor.string_val[0]


def test_resumed_curves_in_tensorboard_go_on_and_repeat_nothing(tmp_path: Path) -> None:
    interrupted = TensorBoard(tmp_path)
    interrupted.begin(RECIPE)
    interrupted.epoch(EPOCHS[0])
    resumed = TensorBoard(tmp_path)
    resumed.begin(RECIPE)
    resumed.epoch(EPOCHS[0])  # it was told before its checkpoint was written, and is run again
    resumed.epoch(EPOCHS[2])  # its checkpoint was written before it was told
    resumed.end(History(EPOCHS))
    assert sorted(curve(tmp_path / "validation", "loss")) == [(1, 2.5), (2, 2.0), (3, 1.5)]


def test_an_event_file_that_was_cut_off_is_read_to_where_it_ends(tmp_path: Path) -> None:
    interrupted = TensorBoard(tmp_path)
    interrupted.begin(RECIPE)
    for epoch in EPOCHS[:2]:
        interrupted.epoch(epoch)
    (file,) = (tmp_path / "validation").glob("events.*")
    file.write_bytes(file.read_bytes()[:-7])
    resumed = TensorBoard(tmp_path)
    resumed.begin(RECIPE)
    resumed.end(History(EPOCHS))


def test_a_loss_that_diverged_is_shown_as_such(tmp_path: Path) -> None:
    listener = TensorBoard(tmp_path)
    listener.begin(RECIPE)
    listener.epoch(replace(FIRST, validation_loss=math.nan))
    ((step, loss),) = curve(tmp_path / "validation", "loss")
    assert step == 1
    assert math.isnan(loss)


def test_an_unknown_listener_is_refused_with_those_there_are(tmp_path: Path) -> None:
    for name in ("wandb", "mlflow=", "tensorboard=here"):
        with pytest.raises(RunError, match="Known: tensorboard, mlflow, mlflow=URI"):
            listeners_named([name], tmp_path)
    assert listeners_named([], tmp_path) == []


def test_without_mlflow_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtra, match=r"pip install '\S*\[mlflow\]'"):
        listeners_named(["mlflow"], tmp_path)


def test_a_password_in_the_address_is_not_repeated() -> None:
    assert listeners._without_password("https://me:secret@host:5000/path") == "https://host:5000/path"
    assert listeners._without_password("sqlite:////data/mlflow.db") == "sqlite:////data/mlflow.db"


@pytest.fixture
def mlflow() -> Any:
    reason = "MLflow is not installed: pip install 'dermalert[mlflow]' to test what it is told"
    pytest.importorskip("sqlalchemy", reason=reason)
    pytest.importorskip("mlflow.tracking", reason=reason)
    return sys.modules["mlflow"]


def stored(mlflow: Any, uri: str) -> tuple[Any, dict[str, list[tuple[int, float]]]]:
    """The only run of the store and its curves."""
    client = mlflow.tracking.MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name(MLflow.EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return run, {name: [(metric.step, metric.value) for metric in metrics] for name, metrics in history.items()}


def test_mlflow_keeps_recipe_and_curves_below_the_run_folder(mlflow: Any, tmp_path: Path) -> None:
    (listener,) = listeners_named(["mlflow"], tmp_path / "my run")
    listener.begin(RECIPE)
    for epoch in EPOCHS:
        listener.epoch(epoch)
    listener.end(History(EPOCHS))
    run, curves = stored(mlflow, f"sqlite:///{tmp_path / 'my run' / 'mlflow.db'}")
    assert curves["validation_loss"] == [(1, 2.5), (2, 2.0), (3, 1.5)]
    assert set(curves) == {name for name in vars(FIRST) if name != "number"}
    assert run.data.params["network"] == "plain-cnn"
    assert run.data.tags["best_epoch"] == "3"
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith((tmp_path / "my run").as_uri())
    assert json.loads((tmp_path / "my run" / "mlflow.json").read_text())["run_id"] == run.info.run_id


def test_resumed_curves_in_mlflow_go_on_and_repeat_nothing(mlflow: Any, tmp_path: Path) -> None:
    interrupted = MLflow(tmp_path)
    interrupted.begin(RECIPE)
    interrupted.epoch(EPOCHS[0])
    resumed = MLflow(tmp_path)
    resumed.begin(replace(RECIPE, epochs=50))
    resumed.epoch(EPOCHS[0])
    resumed.epoch(EPOCHS[2])
    resumed.end(History(EPOCHS))
    run, curves = stored(mlflow, f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert sorted(curves["validation_loss"]) == [(1, 2.5), (2, 2.0), (3, 1.5)]
    assert run.info.status == "FINISHED"


def test_a_run_folder_that_was_moved_keeps_its_curves(mlflow: Any, tmp_path: Path) -> None:
    interrupted = MLflow(tmp_path / "here")
    interrupted.begin(RECIPE)
    interrupted.epoch(EPOCHS[0])
    (tmp_path / "here").rename(tmp_path / "there")
    resumed = MLflow(tmp_path / "there")
    resumed.begin(RECIPE)
    resumed.end(History(EPOCHS))
    _, curves = stored(mlflow, f"sqlite:///{tmp_path / 'there' / 'mlflow.db'}")
    assert sorted(curves["validation_loss"]) == [(1, 2.5), (2, 2.0), (3, 1.5)]


def test_several_runs_share_a_store_that_the_user_names(mlflow: Any, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'shared.db'}"
    for name in ("one", "two"):
        (listener,) = listeners_named([f"mlflow={uri}"], tmp_path / name)
        listener.begin(RECIPE)
        listener.end(History(EPOCHS))
    client = mlflow.tracking.MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name(MLflow.EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["one (plain)", "two (plain)"]
    assert not (tmp_path / "one" / "mlflow.db").exists()


def test_a_server_in_the_environment_is_not_used(mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.invalid:5000")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://tracking.invalid:5000")
    listener = MLflow(tmp_path)
    listener.begin(RECIPE)
    listener.end(History(EPOCHS))
    stored(mlflow, f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_a_store_that_cannot_be_used_stops_a_run_before_it_starts(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match="does not take the curves"):
        MLflow(tmp_path, "magic://store").begin(RECIPE)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RunError, match=r"MLflow at http://tracking\.invalid:5000 does not take the curves"):
        MLflow(tmp_path, "http://me:secret@tracking.invalid:5000").begin(RECIPE)


def test_a_store_that_fails_later_stops_nothing_and_is_told_the_rest_at_the_end(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = MLflow(tmp_path)
    listener.begin(RECIPE)

    def fail(*_: object, **__: object) -> None:
        raise mlflow.exceptions.MlflowException("the server sleeps")

    with monkeypatch.context() as broken:
        broken.setattr(listener._client, "log_batch", fail)
        listener.epoch(EPOCHS[0])
    assert "the server sleeps" in capsys.readouterr().err
    listener.epoch(EPOCHS[1])
    listener.end(History(EPOCHS))
    _, curves = stored(mlflow, f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert sorted(curves["validation_loss"]) == [(1, 2.5), (2, 2.0), (3, 1.5)]


def test_a_damaged_note_is_named(mlflow: Any, tmp_path: Path) -> None:
    (tmp_path / "mlflow.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"mlflow\.json: not readable"):
        MLflow(tmp_path).begin(RECIPE)

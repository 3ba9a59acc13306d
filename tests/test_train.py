"""The training loop: reproducible, resumable after any death, and honest about which epoch it keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dermalert.errors import DataError, RunError
from dermalert.learn import networks, train
from dermalert.learn.backend import backend
from dermalert.learn.checkpoint import read_arrays
from dermalert.learn.history import Epoch, History
from dermalert.learn.recipes import Recipe, recipe_named
from dermalert.learn.step import Labels, Step

CLASSES = 3
RECIPE = replace(
    recipe_named("plain"), size=(24, 20), batch_size=8, epochs=3, precision="float32", dropout=0.25, seed=11
)


def drawn_data(count: int = 60, seed: int = 0) -> train.TrainingData:
    """Pictures whose colour tells their class, with noise."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, CLASSES, count)
    pixels = rng.integers(0, 120, (count, 20, 24, 3)).astype(np.uint8)
    pixels[np.arange(count), :, :, targets] += 100
    rows = rng.permutation(count).astype(np.int64)
    return train.TrainingData(pixels, targets, rows[: count * 3 // 4], rows[count * 3 // 4 :])


def fit(run: Path, recipe: Recipe = RECIPE, **options: object) -> train.Fitted:
    data = options.pop("data", drawn_data())
    return train.fit(data, recipe, run, classes=CLASSES, progress=False, **options)  # type: ignore[arg-type]


def checkpoint(run: Path) -> dict[str, np.ndarray]:
    return read_arrays(run / "checkpoint.npz")[0]


def assert_same_run(one: Path, other: Path) -> None:
    first, second = checkpoint(one), checkpoint(other)
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert np.array_equal(array, second[name]), name
    curves = [json.loads((run / "history.json").read_text()) for run in (one, other)]
    for epoch in (*curves[0]["epochs"], *curves[1]["epochs"]):
        del epoch["seconds"], epoch["images_per_second"]
    assert curves[0] == curves[1]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, train.Fitted]:
    run = tmp_path_factory.mktemp("unbroken")
    return run, fit(run)


def test_the_same_seed_gives_the_same_weights_to_the_last_bit(
    unbroken: tuple[Path, train.Fitted], tmp_path: Path
) -> None:
    fit(tmp_path / "again")
    assert_same_run(unbroken[0], tmp_path / "again")


def test_another_seed_gives_other_weights(unbroken: tuple[Path, train.Fitted], tmp_path: Path) -> None:
    fit(tmp_path / "other", replace(RECIPE, seed=12, epochs=1))
    assert not np.array_equal(checkpoint(unbroken[0])["weight_000"], checkpoint(tmp_path / "other")["weight_000"])


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import test_train
    from dermalert.learn import step
    from dermalert.learn.recipes import Recipe

    learn, steps = step.Step.train, 0

    def learn_and_die(self, *batch, **options):
        global steps
        steps += 1
        if steps == int(sys.argv[2]):
            os.kill(os.getpid(), int(sys.argv[3]))
        return learn(self, *batch, **options)

    step.Step.train = learn_and_die
    test_train.fit(Path(sys.argv[1]), Recipe.from_json(sys.argv[4]))
"""


def run_until(
    run: Path, at_step: int, death: signal.Signals, recipe: Recipe = RECIPE
) -> subprocess.CompletedProcess[str]:
    """Trains in a process of its own that gets the signal in the middle of the given step."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(run), str(at_step), str(int(death)), recipe.to_json()],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("at_step", [3, 9], ids=["in the first epoch", "in the second epoch"])
def test_a_run_killed_in_the_middle_of_an_epoch_resumes_to_the_result_of_an_unbroken_one(
    unbroken: tuple[Path, train.Fitted], tmp_path: Path, at_step: int
) -> None:
    run = tmp_path / "killed"
    assert run_until(run, at_step, signal.SIGKILL).returncode == -signal.SIGKILL
    resumed = fit(run, resume=True)
    assert_same_run(unbroken[0], run)
    for one, other in zip(unbroken[1].model.get_weights(), resumed.model.get_weights(), strict=True):
        assert np.array_equal(one, other)


# Everything at once that draws by chance or weighs: what could differ after a resume.
EVERYTHING = replace(
    RECIPE,
    augment={"flip": 0.5, "rotate": 0.5, "zoom": 0.2, "colour": 0.2, "mixup": 0.4},
    balance="sampling",
    loss="logit-adjusted",
    schedule="cosine",
)


def test_a_killed_run_with_augmentation_sampling_and_a_schedule_resumes_to_the_same_weights(tmp_path: Path) -> None:
    fit(tmp_path / "whole", EVERYTHING)
    assert run_until(tmp_path / "killed", 9, signal.SIGKILL, EVERYTHING).returncode == -signal.SIGKILL
    fit(tmp_path / "killed", EVERYTHING, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_ctrl_c_keeps_the_last_whole_epoch_and_says_how_to_go_on(
    unbroken: tuple[Path, train.Fitted], tmp_path: Path
) -> None:
    run = tmp_path / "stopped"
    stopped = run_until(run, 9, signal.SIGINT)
    assert "epoch 1 is saved" in stopped.stderr
    assert "--resume" in stopped.stderr
    fit(run, resume=True)
    assert_same_run(unbroken[0], run)


def test_resuming_a_finished_run_gives_its_model_again(unbroken: tuple[Path, train.Fitted]) -> None:
    run, fitted = unbroken
    again = fit(run, resume=True)
    assert again.history == fitted.history
    for one, other in zip(fitted.model.get_weights(), again.model.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_more_epochs_can_be_asked_for_when_resuming(unbroken: tuple[Path, train.Fitted], tmp_path: Path) -> None:
    fit(tmp_path / "run", epochs=1)
    fit(tmp_path / "run", epochs=3, resume=True)
    assert_same_run(unbroken[0], tmp_path / "run")


def test_a_run_folder_is_never_overwritten(unbroken: tuple[Path, train.Fitted]) -> None:
    with pytest.raises(RunError, match="--resume"):
        fit(unbroken[0])


def test_a_run_is_not_resumed_with_another_recipe_or_other_data(unbroken: tuple[Path, train.Fitted]) -> None:
    with pytest.raises(RunError, match="another recipe"):
        fit(unbroken[0], replace(RECIPE, learning_rate=0.5), resume=True)
    with pytest.raises(RunError, match="other pictures, labels or another split"):
        fit(unbroken[0], data=drawn_data(seed=1), resume=True)


def test_a_schedule_that_ends_at_the_last_epoch_is_not_resumed_with_another_number_of_them(tmp_path: Path) -> None:
    falling = replace(RECIPE, schedule="cosine")
    fit(tmp_path, falling, epochs=1)
    with pytest.raises(RunError, match="another recipe"):
        fit(tmp_path, falling, epochs=3, resume=True)


def test_a_folder_with_somebody_elses_manifest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.parquet").write_bytes(b"mine")
    with pytest.raises(RunError, match="something else"):
        fit(tmp_path)


def test_a_damaged_checkpoint_is_named_and_not_guessed_around(tmp_path: Path) -> None:
    fit(tmp_path, epochs=1)
    file = tmp_path / "checkpoint.npz"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"checkpoint\.npz: not a readable checkpoint"):
        fit(tmp_path, resume=True)


def test_the_model_is_that_of_the_best_validation_epoch(tmp_path: Path) -> None:
    fitted = fit(tmp_path, replace(RECIPE, epochs=6, learning_rate=0.02))
    data = drawn_data()
    logits = fitted.model(data.pixels[data.validation], training=False).numpy().astype(np.float64)
    chosen = logits[np.arange(len(logits)), data.targets[data.validation]]
    loss = float((np.log(np.exp(logits).sum(axis=1)) - chosen).mean())
    assert fitted.history.best is not None
    assert loss == pytest.approx(min(fitted.history.column("validation_loss")), rel=1e-4)


def test_the_last_epochs_weights_are_kept_where_the_recipe_says_so(tmp_path: Path) -> None:
    fitted = fit(tmp_path, replace(RECIPE, keep="last", learning_rate=0.02))
    last = [array for name, array in sorted(checkpoint(tmp_path).items()) if name.startswith("weight_")]
    for one, other in zip(fitted.model.variables, last, strict=True):
        assert np.array_equal(one.numpy(), other)


def test_training_stops_once_validation_no_longer_gets_better(tmp_path: Path) -> None:
    data = drawn_data(count=24)
    shuffled = replace(data, targets=np.random.default_rng(5).permutation(data.targets))
    fitted = fit(tmp_path, replace(RECIPE, epochs=60, patience=2, learning_rate=0.01), data=shuffled)
    assert len(fitted.history) < 60
    assert fitted.history.best is not None
    assert len(fitted.history) - fitted.history.best.number == 2


def test_it_learns_what_can_be_learned(tmp_path: Path) -> None:
    fitted = fit(tmp_path, replace(RECIPE, epochs=8, dropout=0.0))
    assert max(fitted.history.column("validation_accuracy")) > 0.9


def test_labels_that_allow_one_class_train_as_class_numbers_do(
    unbroken: tuple[Path, train.Fitted], tmp_path: Path
) -> None:
    data = drawn_data()
    fit(tmp_path / "run", data=replace(data, targets=np.eye(CLASSES, dtype=bool)[data.targets]))
    assert_same_run(unbroken[0], tmp_path / "run")


def step_of(logits: list[float], **options: object) -> Step:
    """A step on a network that says the same of every picture."""
    keras = backend().keras
    inputs = keras.Input((4, 4, 3))
    said = keras.layers.Dense(
        len(logits), kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(0.0)
    )(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, said)
    model.layers[-1].bias.assign(logits)
    return Step(model, **options)  # type: ignore[arg-type]


ONE = np.zeros((1, 4, 4, 3), np.uint8)


def test_a_coarse_label_is_worth_the_probability_of_all_its_classes_together() -> None:
    probabilities = np.array([0.5, 0.3, 0.2])
    step = step_of(np.log(probabilities).tolist())
    for allowed in ([1, 0, 0], [0, 1, 1], [1, 1, 1]):
        mask = np.array([allowed], np.float32)
        loss, hits = step.test(ONE, Labels.plain(mask))
        assert loss == pytest.approx(-np.log(probabilities @ allowed), abs=1e-6)
        assert hits == allowed[0]


def test_a_blended_picture_is_worth_the_blend_of_both_labels() -> None:
    step = step_of(np.log([0.5, 0.3, 0.2]).tolist())
    own, other = np.eye(3, dtype=np.float32)[[0]], np.eye(3, dtype=np.float32)[[2]]
    labels = Labels(own, other, np.array([0.75], np.float32), np.ones(1, np.float32))
    assert step.test(ONE, labels)[0] == pytest.approx(-0.75 * np.log(0.5) - 0.25 * np.log(0.2), abs=1e-6)


def moved(step: Step, weight: float = 1.0) -> np.ndarray:
    """How a step with a small rate changes what the network says of the first class's picture."""
    before = step.state()["weight_001"].copy()
    own = np.eye(len(before), dtype=np.float32)[[0]]
    step.train(ONE, Labels(own, own, np.ones(1, np.float32), np.full(1, weight, np.float32)), 1e-3)
    return step.state()["mean_001"] / (1 - 0.9)


def test_the_focal_loss_learns_little_from_what_is_known_and_weights_scale_what_is_learned() -> None:
    surely = np.log([0.9, 0.05, 0.05]).tolist()
    plain, focal = moved(step_of(surely)), moved(step_of(surely, focal=True))
    assert np.allclose(plain, [-0.1, 0.05, 0.05], atol=1e-6)
    assert 0 < np.abs(focal).max() < 0.1 * np.abs(plain).max()
    assert np.allclose(moved(step_of(surely), weight=3.0), 3 * plain, atol=1e-6)


def test_logit_adjustment_asks_more_of_rare_classes() -> None:
    alike = [0.0, 0.0, 0.0]
    rare = step_of(alike, offset=np.log(np.array([0.1, 0.1, 0.8], np.float32)))
    assert np.allclose(moved(rare), [-0.9, 0.1, 0.8], atol=1e-6)


def test_only_the_head_learns_while_the_backbone_is_frozen(tmp_path: Path) -> None:
    recipe = replace(RECIPE, network="mobilenetv2", size=(32, 32), frozen_epochs=1, epochs=2, depth_decay=0.5)
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3)).astype(np.uint8)
    data = train.TrainingData(pixels, np.arange(24) % CLASSES, np.arange(16), np.arange(16, 24))
    model = networks.build(recipe, CLASSES)
    fit(tmp_path / "frozen", recipe, data=data, epochs=1)
    after = checkpoint(tmp_path / "frozen")
    head = {id(variable) for variable in networks.stages(model)[0]}
    for index, variable in enumerate(model.variables):
        same = np.array_equal(after[f"weight_{index:03d}"], variable.numpy())
        assert same == (id(variable) not in head) or "seed" in variable.path, variable.path
    fit(tmp_path / "frozen", recipe, data=data, epochs=2, resume=True)
    thawed = checkpoint(tmp_path / "frozen")
    deepest = {id(variable) for variable in networks.stages(model)[-1]}
    for index, variable in enumerate(model.variables):
        if id(variable) in deepest and variable.ndim == 4:
            assert not np.array_equal(thawed[f"weight_{index:03d}"], after[f"weight_{index:03d}"]), variable.path


def test_deeper_stages_learn_slower() -> None:
    keras = backend().keras
    inputs = keras.Input((4, 4, 3))
    middle = keras.layers.Dense(3, name="deep")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(middle))
    stages = [model.get_layer(name).trainable_variables for name in ("head", "deep")]
    step = Step(model, stages=stages, rates=[1.0, 0.01])
    before = step.state()
    step.train(np.full((2, 4, 4, 3), 9, np.uint8), Labels.plain(np.eye(3, dtype=np.float32)[[0, 1]]), 0.1)
    change = {name: np.abs(array - before[name]).max() for name, array in step.state().items() if "weight" in name}
    deep, head = change["weight_000"], change["weight_002"]
    assert head == pytest.approx(0.1, rel=0.01)
    assert deep == pytest.approx(0.001, rel=0.01)


def test_averaged_views_say_the_same_of_a_picture_and_its_mirror_image(tmp_path: Path) -> None:
    data = drawn_data()
    one = fit(tmp_path / "one", replace(RECIPE, epochs=1)).model
    four = fit(tmp_path / "four", replace(RECIPE, epochs=1, views=4)).model
    pictures = data.pixels[:5].astype(np.float32)
    views = [pictures, pictures[:, ::-1], pictures[:, :, ::-1], pictures[:, ::-1, ::-1]]
    expected = np.mean([one(view) for view in views], axis=0)
    for view in views:
        assert np.allclose(four(view), expected, atol=1e-4)


def test_a_run_may_be_scored_in_another_way_without_training_again(tmp_path: Path) -> None:
    fit(tmp_path, replace(RECIPE, epochs=1))
    again = fit(tmp_path, replace(RECIPE, epochs=1, views=4, name="other"), resume=True)
    assert again.recipe.views == 4
    assert len(again.history) == 1


class _Notebook:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def begin(self, recipe: Recipe) -> None:
        self.told.append(recipe.name)

    def epoch(self, epoch: Epoch) -> None:
        self.told.append(epoch.number)

    def end(self, history: History) -> None:
        self.told.append(history)


def test_listeners_are_told_of_each_epoch_once_and_of_the_end(tmp_path: Path) -> None:
    first, second = _Notebook(), _Notebook()
    fit(tmp_path, epochs=1, listeners=[first])
    fitted = fit(tmp_path, epochs=3, resume=True, listeners=[second])
    assert first.told[:2] == ["plain", 1]
    assert second.told == ["plain", 2, 3, fitted.history]


def test_an_epoch_that_samples_shows_every_class_equally_often(tmp_path: Path) -> None:
    data = drawn_data()
    rare = replace(data, targets=np.where(np.arange(60) < 50, 0, data.targets))
    assert np.ptp(fit(tmp_path, replace(RECIPE, epochs=1, balance="sampling"), data=rare).shown) <= 1


def test_bfloat16_training_hands_on_a_float32_model(tmp_path: Path) -> None:
    fitted = fit(tmp_path, replace(RECIPE, precision="mixed_bfloat16", epochs=1))
    assert fitted.recipe.precision == "mixed_bfloat16"
    assert {layer.compute_dtype for layer in fitted.model.layers} == {"float32"}


def test_the_precision_that_was_measured_is_the_one_a_resumed_run_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, precision="auto", epochs=1)
    monkeypatch.setattr(train, "fastest_precision", lambda *_, **__: "mixed_bfloat16")
    fit(tmp_path, recipe)
    monkeypatch.setattr(train, "fastest_precision", lambda *_, **__: "float32")
    assert fit(tmp_path, recipe, epochs=2, resume=True).recipe.precision == "mixed_bfloat16"


def test_the_faster_precision_is_one_of_the_two() -> None:
    assert train.fastest_precision(drawn_data(), RECIPE, classes=CLASSES) in ("float32", "mixed_bfloat16")


def test_pictures_in_both_training_and_validation_are_refused(tmp_path: Path) -> None:
    data = drawn_data()
    with pytest.raises(DataError, match="both in training and in validation"):
        fit(tmp_path, data=replace(data, validation=data.train[:5]))


@pytest.mark.parametrize(
    "targets",
    [np.full(60, CLASSES), np.zeros((60, CLASSES), bool), np.ones((60, CLASSES), np.float32), np.zeros(59, int)],
)
def test_targets_that_do_not_fit_are_refused(tmp_path: Path, targets: np.ndarray) -> None:
    with pytest.raises(DataError, match="Targets"):
        fit(tmp_path, data=replace(drawn_data(), targets=targets))


def test_a_history_survives_its_json() -> None:
    epoch = Epoch(1, 2.0, 0.25, float("nan"), 0.5, 1.5, 100.0)
    history = History((epoch, replace(epoch, number=2, validation_loss=1.0)))
    read = History.from_json(history.to_json())
    assert read.to_json() == history.to_json()
    assert read.best is not None
    assert read.best.number == 2

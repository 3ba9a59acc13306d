"""PyTorch in place of TensorFlow: the same network and step, and a training that changes from one to the other."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermalert.errors import MissingExtra, RunError
from dermalert.learn import members, networks, torch_step
from dermalert.learn.backend import backend
from dermalert.learn.step import Labels, Step
from test_members import MEMBERS, RECIPE, SIZE, lesson

# Not imported here: it would stay in every process that collects this file, with half a gigabyte.
pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed: `make torch` installs it")
FROZEN = 3
STILL = replace(RECIPE, frozen_stages=FROZEN, dropout=0.0)


def pictures(count: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def both_steps(
    network: str = "mobilenetv2", **changes: Any
) -> tuple[tuple[Any, Step], tuple[Any, torch_step.TorchStep]]:
    weights = {"mobilenetv2": "imagenet"}.get(network, "none")
    recipe = replace(STILL, network=network, weights=weights, **changes)
    offset = np.log(np.array([0.2, 0.3, 0.5], np.float32))
    made = []
    for divided, step in (
        (networks.divided, lambda upper, **more: Step(upper, takes="float32", **more)),
        (
            lambda model, stages: torch_step.divided(model, stages, "cpu"),
            lambda upper, **more: torch_step.TorchStep(upper, device="cpu", **more),
        ),
    ):
        model = networks.build(recipe, 3)
        trunk, upper = divided(model, FROZEN)
        stages, rates = networks.learning(model, recipe)
        made.append((trunk, step(upper, stages=stages, rates=rates, offset=offset)))
    return made[0], made[1]


@pytest.mark.parametrize("network", ["mobilenetv2", "efficientnet-lite0"])
@pytest.mark.parametrize("size", [(SIZE, SIZE), (75, 60)])
def test_it_computes_what_the_keras_model_does(network: str, size: tuple[int, int]) -> None:
    (trunk, _), (lower, _) = both_steps(network, size=size)
    pixels = np.random.default_rng(3).integers(0, 256, (2, size[1], size[0], 3), dtype=np.uint8)
    expected = trunk(pixels).numpy()
    found = lower(pixels).permute(0, 2, 3, 1).numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_pictures_are_prepared_as_the_recipe_says() -> None:
    plain, prepared = both_steps(), both_steps(prepare=("shades-of-gray",))
    pixels = (pictures() * [0.4, 0.7, 1.0]).astype(np.uint8)
    expected = prepared[0][0](pixels).numpy()
    assert np.abs(prepared[1][0](pixels).permute(0, 2, 3, 1).numpy() - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(plain[0][0](pixels).numpy() - expected).max() > 1e-2 * np.abs(expected).max()


def test_steps_lead_to_the_same_weights_and_the_same_figures() -> None:
    (trunk, keras_step), (lower, torch_one) = both_steps()
    start = keras_step.state()
    for number in range(4):
        pixels, labels = pictures(seed=number), Labels.plain(np.eye(3, dtype=np.float32)[[0, 1, 2, 2, 1, 0]])
        told = keras_step.train(trunk(pixels), labels, 1e-3)
        found = torch_one.train(lower(pixels), labels, 1e-3)
        assert found[0] == pytest.approx(told[0], rel=1e-3)
        assert found[1] == told[1]
    expected, state = keras_step.state(), torch_one.state()
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        moved = np.abs(array - start[name]).astype(np.float64)
        off = np.abs(state[name].astype(np.float64) - array)
        # Where a gradient is nearly nothing, its sign is chance, and so is Adam's first step: a share may be off.
        assert np.mean(off > 0.05 * moved.max() + 1e-7) < 0.02, name


def test_a_coarse_label_counts_by_all_its_classes() -> None:
    (trunk, keras_step), (lower, torch_one) = both_steps()
    labels = Labels.plain(np.array([[1, 1, 0]] * 6, np.float32))
    told = keras_step.train(trunk(pictures()), labels, 1e-3)
    assert torch_one.train(lower(pictures()), labels, 1e-3) == pytest.approx(told, rel=1e-3)


def test_dropout_is_drawn_anew_each_step_and_the_same_again(tmp_path: Path) -> None:
    first, second = (both_steps(dropout=0.5)[1] for _ in range(2))
    labels = Labels.plain(np.eye(3, dtype=np.float32)[[0, 1, 2, 2, 1, 0]])
    losses = [[step.train(lower(pictures()), labels, 0.0)[0] for _ in range(3)] for lower, step in (first, second)]
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 3


def test_dropout_leaves_out_its_share_and_keeps_the_mean() -> None:
    layer, torch = backend().keras.layers.Dropout(0.3), torch_step.pytorch()
    drop = torch_step._dropout(layer, torch.Generator("cpu").manual_seed(1))
    ones = torch.ones(200, 200)
    dropped = drop(ones, ones, True)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
    assert bool((drop(ones, ones, False) == 1).all())


def test_a_state_is_a_copy() -> None:
    _, (lower, step) = both_steps()
    labels = Labels.plain(np.eye(3, dtype=np.float32)[[0, 1, 2, 2, 1, 0]])
    step.train(lower(pictures()), labels, 1e-2)
    state = step.state()
    before = {name: array.copy() for name, array in state.items()}
    step.train(lower(pictures()), labels, 1e-2)
    assert all(np.array_equal(before[name], array) for name, array in state.items())
    assert not all(np.array_equal(array, step.state()[name]) for name, array in state.items())


def test_a_step_after_a_change_of_framework_is_the_other_s_step() -> None:
    (trunk, keras_step), (lower, torch_one) = both_steps()
    labels = Labels.plain(np.eye(3, dtype=np.float32)[[0, 1, 2, 2, 1, 0]])
    for number in range(3):
        keras_step.train(trunk(pictures(seed=number)), labels, 1e-3)
    start = keras_step.state()
    torch_one.restore(start)
    keras_step.train(trunk(pictures(seed=9)), labels, 1e-3)
    torch_one.train(lower(pictures(seed=9)), labels, 1e-3)
    expected, found = keras_step.state(), torch_one.state()
    for name, array in expected.items():
        moved = np.abs(array - start[name]).astype(np.float64).max()
        assert np.abs(found[name].astype(np.float64) - array).max() <= 0.05 * moved + 1e-7, name


def test_a_state_of_another_network_is_refused() -> None:
    _, (_, step) = both_steps()
    state = step.state()
    with pytest.raises(RunError, match="another network"):
        step.restore({name: array for name, array in state.items() if name != "mean_003"})


def test_other_networks_are_refused() -> None:
    keras = backend().keras
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.MaxPooling2D()])
    with pytest.raises(RunError, match="MaxPooling2D"):
        torch_step._Network(model, "cpu")


def fit(run: Path, framework: str, dropout: float = 0.0, **options: Any) -> dict[str, list[np.ndarray]]:
    pixels, allowed, strata = lesson()
    models = members.fit_members(
        pixels,
        allowed,
        strata,
        MEMBERS,
        replace(RECIPE, epochs=2, dropout=dropout),
        run,
        shown=(32, 32),
        framework=framework,
        progress=False,
        **options,
    )
    return {name: [each.numpy() for each in model.trainable_variables] for name, model in models.items()}


def test_a_training_that_broke_off_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch_step, "best_device", lambda: "cpu")
    whole = fit(tmp_path / "whole", "torch", dropout=0.3)
    assert "no GPU" in capsys.readouterr().err
    resumed = broken_off_and_resumed(tmp_path / "broken", ("torch", "torch"), monkeypatch, dropout=0.3)
    for name, arrays in whole.items():
        assert all(np.array_equal(one, other) for one, other in zip(arrays, resumed[name], strict=True))


@pytest.mark.parametrize("order", [("tensorflow", "torch"), ("torch", "tensorflow")])
def test_one_framework_goes_on_with_what_the_other_began(
    order: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(tmp_path / "whole", "tensorflow")
    resumed = broken_off_and_resumed(tmp_path / "broken", order, monkeypatch)
    start = [each.numpy() for each in networks.build(RECIPE, 3).trainable_variables]
    for name, arrays in whole.items():
        for before, one, other in zip(start, arrays, resumed[name], strict=True):
            moved = np.abs(one - before).max()
            assert np.mean(np.abs(one - other) > 0.1 * moved + 1e-7) < 0.02


def broken_off_and_resumed(
    run: Path, order: tuple[str, str], monkeypatch: pytest.MonkeyPatch, **options: Any
) -> dict[str, list[np.ndarray]]:
    write = members.write_arrays

    def write_and_stop(file: Path, *more: Any) -> None:
        write(file, *more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(members, "write_arrays", write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            fit(run, order[0], **options)
    return fit(run, order[1], resume=True, **options)


def test_without_pytorch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    torch_step.pytorch.cache_clear()
    try:
        with pytest.raises(MissingExtra, match=r"\[gpu\]"):
            torch_step.best_device()
    finally:
        torch_step.pytorch.cache_clear()

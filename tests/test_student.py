"""The student: it says what its teachers say together, and goes on after an interruption."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermalert.errors import RunError
from dermalert.learn import networks, student, torch_step
from dermalert.learn.backend import backend
from test_members import RECIPE, lesson

SHOWN = (32, 32)
STILL = replace(RECIPE, augment={"flip": 0.5}, learning_rate=3e-3, backbone_rate=0.3)


@pytest.fixture(scope="module")
def teachers() -> list[Any]:
    """Networks of one trunk that differ above it, as folds do after a training."""
    found = []
    for seed in range(2):
        model, random = networks.build(STILL, 3), np.random.default_rng(seed)
        upper = networks.learning(model, STILL)[0]
        for variable in (each for stage in upper for each in stage):
            value = variable.numpy()
            variable.assign(value + 0.3 * (value.std() + 0.01) * random.normal(size=value.shape).astype(np.float32))
        found.append(model)
    return found


def taught(teachers: list[Any], run: Path, *, epochs: int = 2, **options: Any) -> Any:
    pixels, _, strata = lesson()
    rows = np.arange(20)
    options = {"shown": SHOWN, "epochs": epochs, "progress": False, **options}
    return student.fit_student(teachers, pixels, rows, strata, STILL, run, **options)


def weights(model: Any) -> list[np.ndarray]:
    return [each.numpy() for each in model.trainable_variables]


def apart(model: Any, teachers: list[Any]) -> float:
    """Mean divergence of the model from what the teachers say together, in nats."""
    pixels = lesson()[0].astype(np.float32)
    tf = backend().tf
    given = tf.nn.log_softmax(np.mean([each(pixels) for each in teachers], axis=0)).numpy()
    own = tf.nn.log_softmax(model(pixels)).numpy()
    return float((np.exp(given) * (given - own)).sum(axis=1).mean())


def test_it_comes_nearer_to_what_its_teachers_say_together(teachers: list[Any], tmp_path: Path) -> None:
    mean = student.mean_weights(teachers, STILL)
    learnt = taught(teachers, tmp_path, shown=STILL.size, epochs=10)
    assert apart(learnt, teachers) < 0.5 * apart(mean, teachers)


def test_what_is_frozen_in_the_teachers_stays(teachers: list[Any], tmp_path: Path) -> None:
    learnt = taught(teachers, tmp_path)
    names = [each.path for each in learnt.trainable_variables]
    for name, before, after in zip(names, weights(teachers[0]), weights(learnt), strict=True):
        frozen = any(f"stage{number}_" in name for number in range(1, 5))
        assert np.allclose(before, after, rtol=1e-6, atol=0) == frozen, name


def test_a_training_that_broke_off_goes_on_to_the_same_weights(
    teachers: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(taught(teachers, tmp_path / "whole"))
    write = student.write_arrays

    def broken(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(student, "write_arrays", broken)
    with pytest.raises(KeyboardInterrupt):
        taught(teachers, tmp_path / "broken")
    monkeypatch.setattr(student, "write_arrays", write)
    again = weights(taught(teachers, tmp_path / "broken", resume=True))
    assert all(np.array_equal(one, other) for one, other in zip(whole, again, strict=True))
    with pytest.raises(RunError, match="other teachers, pictures or epochs"):
        taught(teachers, tmp_path / "broken", epochs=4, resume=True)
    teachers = teachers[::-1]
    with pytest.raises(RunError, match="other teachers, pictures or epochs"):
        taught(teachers, tmp_path / "broken", resume=True)


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed: `make torch` installs it")
def test_either_framework_teaches_alike(teachers: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_step, "best_device", lambda: "cpu")
    start = weights(student.mean_weights(teachers, STILL))
    one, other = (weights(taught(teachers, tmp_path / each, framework=each)) for each in ("tensorflow", "torch"))
    for before, mine, theirs in zip(start, one, other, strict=True):
        moved = np.abs(mine - before).max()
        assert np.mean(np.abs(mine - theirs) > 0.1 * moved + 1e-7) < 0.02

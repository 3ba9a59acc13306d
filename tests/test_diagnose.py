"""The reading of curves, on curves whose answer is known."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert.learn.diagnose import (
    DIVERGED,
    GOOD,
    IMPROVING,
    OVERFITTING,
    TOO_SHORT,
    UNDERFITTING,
    UNSTABLE,
    diagnose,
)
from dermalert.learn.history import Epoch, History

EPOCHS = np.arange(20)


def history(train: object, validation: object) -> History:
    pairs = zip(np.asarray(train, float), np.asarray(validation, float), strict=True)
    return History(
        tuple(
            Epoch(number, float(t), math.exp(-t), float(v), math.exp(-v), 1.0, 100.0)
            for number, (t, v) in enumerate(pairs, 1)
        )
    )


FALLING = 0.6 + 1.6 * np.exp(-EPOCHS / 3)
CURVES = {
    "memorised: validation falls, then climbs": (
        2.2 * np.exp(-EPOCHS / 5),
        1.3 + 0.9 * np.exp(-EPOCHS / 2) + 0.06 * np.maximum(0, EPOCHS - 6),
        OVERFITTING,
    ),
    "memorised: validation levels far above training": (
        0.1 + 2.1 * np.exp(-EPOCHS / 4),
        1.3 + 0.9 * np.exp(-EPOCHS / 2),
        OVERFITTING,
    ),
    "nothing learned": (2.15 - 0.005 * np.sqrt(EPOCHS), 2.16 - 0.004 * np.sqrt(EPOCHS), UNDERFITTING),
    "a little learned, then stuck": (
        1.85 + 0.35 * np.exp(-EPOCHS / 2),
        1.9 + 0.3 * np.exp(-EPOCHS / 2),
        UNDERFITTING,
    ),
    "cut short on the way down": (2.2 - 0.07 * EPOCHS, 2.25 - 0.065 * EPOCHS, IMPROVING),
    "levelled off together": (FALLING, FALLING + 0.06, GOOD),
}


@pytest.mark.parametrize("curve", CURVES)
def test_curves_with_a_known_answer_get_it(curve: str) -> None:
    train, validation, answer = CURVES[curve]
    said = diagnose(history(train, validation))
    assert said.verdict == answer
    assert said.sentences
    assert said.suggestions


@pytest.mark.parametrize("curve", CURVES)
def test_the_answer_withstands_noise(curve: str) -> None:
    train, validation, answer = CURVES[curve]
    right = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        noisy = history(train + rng.normal(0, 0.01, 20), validation + rng.normal(0, 0.03, 20))
        right += diagnose(noisy).verdict == answer
    assert right >= 90


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("epoch", [4, 11, 18])
def test_one_unlucky_epoch_changes_nothing(curve: str, epoch: int) -> None:
    train, validation, answer = CURVES[curve]
    struck = validation.copy()
    struck[epoch] += 0.8
    assert diagnose(history(train, struck)).verdict == answer


def test_wild_swings_are_called_unstable() -> None:
    swings = 1.5 + np.where(EPOCHS % 2, 0.9, -0.6)
    assert diagnose(history(FALLING, swings)).verdict == UNSTABLE


def test_a_loss_that_is_no_number_is_called_diverged_with_its_epoch() -> None:
    said = diagnose(history([2.0, 3.0, math.nan], [2.0, 9.0, math.inf]))
    assert said.verdict == DIVERGED
    assert "epoch 3" in said.sentences[0]
    assert said.best_epoch == 1


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_up_to_three_epochs_are_too_short_to_tell(count: int) -> None:
    said = diagnose(history(FALLING[:count], FALLING[:count]))
    assert said.verdict == TOO_SHORT
    assert said.best_epoch == (count or None)


def test_the_best_epoch_is_the_one_with_the_lowest_validation_loss() -> None:
    train, validation, _ = CURVES["memorised: validation falls, then climbs"]
    assert diagnose(history(train, validation)).best_epoch == int(validation.argmin()) + 1


losses = st.floats(0, 1e6) | st.sampled_from([math.nan, math.inf])


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(losses, losses), max_size=40))
def test_every_history_gets_a_verdict_in_words(pairs: list[tuple[float, float]]) -> None:
    said = diagnose(history([t for t, _ in pairs], [v for _, v in pairs]))
    assert said.verdict
    assert all(sentence.endswith(".") for sentence in (*said.sentences, *said.suggestions))


def test_reading_curves_needs_no_training_framework() -> None:
    code = (
        "import sys, dermalert.learn.diagnose, dermalert.learn.recipes;"
        "sys.exit(any(name in sys.modules for name in ('keras', 'tensorflow', 'torch', 'jax')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Members: what each learns from, what stays as it was, and going on after an interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dermalert.errors import RunError
from dermalert.learn import members, networks
from dermalert.learn.recipes import Recipe

SIZE = 64
RECIPE = Recipe(
    name="tiny",
    network="mobilenetv2",
    weights="imagenet",
    size=(SIZE, SIZE),
    batch_size=8,
    epochs=2,
    precision="float32",
    frozen_stages=4,
    backbone_rate=0.1,
    balance="tempered",
    loss="logit-adjusted",
    schedule="cosine",
    keep="last",
    augment={"flip": 0.5, "zoom": 0.2, "degrade": 0.3},
)


def lesson(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (24, SIZE, SIZE, 3), dtype=np.uint8)
    classes = np.arange(24) % 3
    pixels[classes == 1] //= 2
    return pixels, np.eye(3, dtype=bool)[classes], classes.astype(np.int64)


MEMBERS = {"fold 1": np.arange(0, 12), "fold 2": np.arange(6, 24)}


def fit(run: Path, pixels: np.ndarray, **options: bool) -> dict[str, list[np.ndarray]]:
    _, allowed, strata = lesson()
    models = members.fit_members(
        pixels, allowed, strata, MEMBERS, RECIPE, run, shown=(32, 32), progress=False, **options
    )
    return {name: [each.numpy() for each in model.trainable_variables] for name, model in models.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[np.ndarray]]:
    return fit(tmp_path_factory.mktemp("members"), lesson()[0])


def test_a_member_learns_nothing_from_rows_that_are_not_its_own(
    tmp_path: Path, trained: dict[str, list[np.ndarray]]
) -> None:
    other = lesson()[0]
    other[12:] = lesson(seed=1)[0][12:]
    again = fit(tmp_path, other)
    assert all(np.array_equal(a, b) for a, b in zip(trained["fold 1"], again["fold 1"], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(trained["fold 2"], again["fold 2"], strict=True))


def test_frozen_stages_stay_and_the_others_learn(trained: dict[str, list[np.ndarray]]) -> None:
    model = networks.build(RECIPE, 3)
    names = [f"{each.path}" for each in model.trainable_variables]
    for name, before, after in zip(names, model.trainable_variables, trained["fold 2"], strict=True):
        frozen = any(f"stage{number}_" in name for number in range(1, 5))
        assert np.array_equal(before.numpy(), after) == frozen, name


def test_training_that_broke_off_goes_on_to_the_same_weights(
    tmp_path: Path, trained: dict[str, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = members.write_arrays

    def broken(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(members, "write_arrays", broken)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, lesson()[0])
    monkeypatch.setattr(members, "write_arrays", write)
    with pytest.raises(RunError, match="--resume"):
        fit(tmp_path, lesson()[0])
    again = fit(tmp_path, lesson()[0], resume=True)
    assert all(np.array_equal(a, b) for name in MEMBERS for a, b in zip(trained[name], again[name], strict=True))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"augment": {"mixup": 0.2}}, "must not see"),
        ({"frozen_stages": 0}, "frozen_stages"),
        ({"precision": "auto"}, "float32"),
        ({"balance": "sampling"}, "tempered"),
    ],
)
def test_what_members_cannot_do_is_said(tmp_path: Path, change: dict[str, object], why: str) -> None:
    pixels, allowed, strata = lesson()
    with pytest.raises(RunError, match=why):
        members.fit_members(pixels, allowed, strata, MEMBERS, replace(RECIPE, **change), tmp_path, shown=(32, 32))

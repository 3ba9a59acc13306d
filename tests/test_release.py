"""The release: who learns from what, what is fitted on what, and that the bundle it leaves can score.

Training is left out here (tests/test_members.py has it): untrained networks stand in, and logits that know a little.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermalert.bundle.format import Bundle
from dermalert.drawn import draw_class_folders
from dermalert.errors import RunError
from dermalert.intake.split import group_numbers
from dermalert.judge.categories import in_categories
from dermalert.judge.conformal import categories_of
from dermalert.judge.scores import Scores
from dermalert.learn import networks
from dermalert.learn.recipes import RELEASE, Recipe
from dermalert.stages import gathering, release, retrieval
from dermalert.stages.gathering import FOLDS, HELD_OUT, Photographs
from dermalert.taxonomy import NAMES

RECIPE = replace(RELEASE, size=(64, 64), epochs=1)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sets")
    draw_class_folders(folder / "first", per_class=22, test_per_class=3, seed=1, faults=False)
    draw_class_folders(folder / "second", per_class=22, test_per_class=0, seed=2, faults=False)
    return folder / "first", folder / "second"


@pytest.fixture(scope="module")
def shots(sets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    folder = tmp_path_factory.mktemp("gathered")
    pooled = gathering.pooled_sets(sets[0], [sets[1]], folder / "pooled.parquet")
    return gathering.gather(pooled, RECIPE, folder / "decoded")


def test_no_lesion_is_learnt_from_by_who_judges_it_and_none_of_the_test_part_at_all(shots: Photographs) -> None:
    groups = group_numbers(shots.manifest)
    assert set(shots.parts) == {HELD_OUT, *FOLDS}
    judged = {name: shots.parts == name for name in FOLDS}
    judged |= {f"without {name}": shots.alone(name) for name in set(shots.collections)}
    assert judged.keys() == shots.members().keys()
    for name, rows in shots.members().items():
        assert judged[name].any()
        assert not np.isin(groups[rows], groups[judged[name]]).any()
        assert not np.isin(groups[rows], groups[shots.parts == HELD_OUT]).any()
    assert not any("Test" in path for path in shots.manifest.column("path"))
    assert {"Test", "Train"} <= {path.split("/")[1] for path in shots.pooled.column("path")}


def test_what_was_learnt_from_is_known_by_lesion(shots: Photographs) -> None:
    hashes = np.array(shots.manifest.column("sha256"))
    assert set(hashes[shots.parts != HELD_OUT]) <= shots.learnt_from()
    assert not set(hashes[shots.parts == HELD_OUT]) & shots.learnt_from()
    tests = np.array(shots.pooled.column("split"), dtype=object) == "test"
    assert not set(np.array(shots.pooled.column("sha256"))[tests]) & shots.learnt_from()


def test_other_sets_than_those_pooled_before_are_refused(sets: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "pooled.json").write_text(json.dumps([str(sets[0])]))
    (tmp_path / "pooled.parquet").touch()
    with pytest.raises(RunError, match="other data sets"):
        gathering.pooled_sets(*sets[:1], [sets[1]], tmp_path / "pooled.parquet")


def test_every_fold_and_the_part_held_out_hold_every_kind_of_label_of_every_collection(shots: Photographs) -> None:
    for stratum in np.unique(shots.strata):
        assert set(shots.parts[shots.strata == stratum]) == {HELD_OUT, *FOLDS}


def stand_in(
    _: Any, allowed: np.ndarray, __: Any, members: dict[str, Any], recipe: Recipe, *rest: Any, **more: Any
) -> Any:
    return {name: networks.build(recipe, allowed.shape[1]) for name in members}


def student_of(shots: Photographs, teachers: list[Any], _: Any, rows: np.ndarray, *rest: Any, **more: Any) -> Any:
    assert len(teachers) == len(FOLDS)
    assert set(shots.parts[rows]) == set(FOLDS)  # of the lesions held out it is shown none
    assert len(set(rows)) == (shots.parts != HELD_OUT).sum()
    return teachers[0]


@pytest.fixture(scope="module")
def made(shots: Photographs, sets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release") / "run"
    out.mkdir()
    shots.pooled.write(out / "pooled.parquet")
    (out / "pooled.json").write_text(json.dumps([str(each) for each in sets]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release, "fit_members", stand_in)
        patch.setattr(release, "fit_student", partial(student_of, shots))
        patch.setattr(release, "export_onnx", only_what_ships)
        patch.setattr(release, "_logits", knowing)
        patch.setattr(
            release, "carried_over", lambda calibration, *_: calibration
        )  # untrained networks agree in nothing
        release.run_release(sets[0], [sets[1]], out, RECIPE, resamples=20, made=datetime.now(UTC))
    return out


exported = release.export_onnx


def only_what_ships(model: Any, *, size: tuple[int, int]) -> bytes:
    return exported(model, size=size) if len(model.outputs) > 1 else b""


def knowing(_: bytes, shots: Photographs, __: Recipe) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=shots.allowed.shape)
    return (noise + 2.0 * shots.allowed).astype(np.float32)


def test_the_bundle_has_all_that_a_score_comes_with(made: Path) -> None:
    bundle = Bundle.load(made / "bundle")
    assert bundle.classes == NAMES
    assert [point.name for point in bundle.operating_points] == ["screening", "balanced", "specific"]
    assert bundle.conformal is not None
    assert bundle.gate is not None
    assert bundle.reference is not None  # of the lesions held out
    assert 10 < bundle.reference.measures["melanoma"].counts.sum() <= 2 * 9 * 22 / 5
    assert bundle.licence == ""  # what these pictures may be used for, nobody has said
    assert len(bundle.learnt) > 300
    assert sum(bundle.prevalence.values()) == pytest.approx(1)
    assert 0.3 < bundle.calibration.temperature < 0.8  # the stand-ins' logits are that much too small
    assert len(bundle.model) < 6_000_000


def test_the_figures_tell_every_view_apart(made: Path) -> None:
    told = json.loads((made / "metrics.json").read_text())
    assert set(told["evaluations"]) == {
        "out of fold",
        "out of fold, first",
        "out of fold, second",
        "first, never seen",
        "second, never seen",
        "held out",
        "held out, first",
        "held out, second",
        "test of first",
        "test of first, clean",
    }
    out_of_fold = told["evaluations"]["out of fold"]
    held_out = told["evaluations"]["held out"]
    assert out_of_fold["figures"]["melanoma_auc"]["value"] > 0.8  # by logits that know
    assert held_out["pictures"] + out_of_fold["pictures"] == 2 * 9 * 22
    assert set(told["gate"]["held_out"]) == {"first", "second"}
    assert set(told["sources"]) == {"melanoma", "nevus"}
    assert told["similar"]["shown"] == 5
    assert 0 <= told["similar"]["categories"]["melanoma"]["alike"]["value"] <= 1
    assert told["seven_categories"]["out of fold"]["macro_auc"]["value"] > 0.8


def test_categories_sum_what_coarse_labels_join_and_even_out_what_is_common() -> None:
    classes = ("actinic keratosis", "nevus", "squamous cell carcinoma")
    probabilities = np.array([[0.2, 0.6, 0.2], [0.05, 0.9, 0.05]])
    truth = np.array([[True, False, True], [True, True, False]])
    scores = Scores(("a", "b"), classes, probabilities, truth, np.arange(2))
    plain = in_categories(scores, {})
    assert plain.classes == ("akiec", "nevus")
    assert plain.image_ids == ("a",)  # the other's label leaves its category open
    assert plain.probabilities == pytest.approx(np.array([[0.4, 0.6]]))
    even = in_categories(scores, dict(zip(classes, (0.1, 0.8, 0.1), strict=True)))
    assert even.probabilities == pytest.approx(np.array([[2 / 2.75, 0.75 / 2.75]]))


def test_similar_pictures_are_counted_by_the_one_category_that_a_label_allows() -> None:
    allowed = np.zeros((3, len(NAMES)), dtype=bool)
    allowed[0, NAMES.index("melanoma")] = True
    allowed[1, [NAMES.index("actinic keratosis"), NAMES.index("squamous cell carcinoma")]] = True
    allowed[2, [NAMES.index("nevus"), NAMES.index("seborrheic keratosis")]] = True
    melanoma, akiec, several = retrieval.category_of(allowed)
    names = list(categories_of(NAMES))
    assert (names[melanoma], names[akiec], several) == ("melanoma", "akiec", -1)


def test_held_out_photographs_are_asked_about_among_those_learnt_from(
    shots: Photographs, monkeypatch: pytest.MonkeyPatch
) -> None:
    category = retrieval.category_of(shots.allowed)
    seen: list[np.ndarray] = []

    def told(engine: Any, shots: Photographs, rows: np.ndarray) -> np.ndarray:
        seen.append(rows)
        return np.eye(len(NAMES) + 1, dtype=np.float32)[category[rows]]

    monkeypatch.setattr(retrieval, "_embedded", told)
    found = retrieval.alike(None, shots, resamples=20)  # type: ignore[arg-type]  # nothing is embedded here
    assert set(shots.parts[seen[0]]) == {HELD_OUT}
    assert HELD_OUT not in set(shots.parts[seen[1]])
    assert found["among"] == len(seen[1])
    shares = [each["by_chance"] for each in found["categories"].values()]
    assert sum(shares) == pytest.approx(1)
    assert all(each["alike"]["value"] == 1 for each in found["categories"].values())
    assert sum(each["pictures"] for each in found["categories"].values()) == len(seen[0])


def test_precision_is_the_share_of_the_five_most_similar() -> None:
    turned = np.linspace(0, 1, 8)
    among = np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)
    given = np.array([1, 1, 0, 1, 0, 1, 1, 1])
    asked = np.array([[1, 0], [1, 0]], np.float32)
    assert retrieval.precision(asked, among, np.array([1, 0]), given).tolist() == [0.6, 0.4]

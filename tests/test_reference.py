"""The reference of a bundle: what is usual, in a few kilobytes, and read back only if it makes sense."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.graphs import CLASSES, bundle, paint

from dermalert.bundle.format import FACTS, REFERENCE, Bundle
from dermalert.bundle.reference import AXES, AXIS_NAMES, MEASURES, Binned, Reference, projected
from dermalert.errors import BundleError, DataError
from dermalert.stages.reference import reference_of

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("usual")
    colours = RANDOM.integers(0, 256, (60, 3)).tolist()
    paths = [paint(folder / f"{number}.png", tuple(colour)) for number, colour in enumerate(colours)]
    return reference_of(bundle(), paths)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_every_picture_falls_into_one_bin(values: list[float]) -> None:
    column = np.array(values)
    spread = Binned.of(column)
    assert spread.counts.sum() == len(values)
    assert (spread.count(column) == spread.counts).all()


def test_a_measure_without_ties_is_cut_into_tenths() -> None:
    assert Binned.of(RANDOM.permutation(1000) / 7).counts.tolist() == pytest.approx([100] * 10, abs=1)


def test_what_most_pictures_share_is_a_bin_of_its_own() -> None:
    spread = Binned.of(np.array([0.2] * 3 + [0.7] * 17))
    assert spread.count(np.array([0.69])).tolist() != spread.count(np.array([0.7])).tolist()
    assert spread.count(np.array([0.71])).tolist() != spread.count(np.array([0.7])).tolist()


def test_it_holds_all_that_the_model_gives(usual: Reference) -> None:
    without_gate = set(MEASURES) - {"ood", "quality"}
    assert set(usual.measures) == without_gate | set(AXIS_NAMES)
    assert all(spread.counts.sum() == 60 for spread in usual.measures.values())
    assert usual.diagnoses.sum() == 60
    assert usual.projection.shape == (3, AXES)


def test_the_directions_do_not_depend_on_a_features_scale() -> None:
    embedding = RANDOM.normal(size=(500, 40))
    scaled = embedding * RANDOM.uniform(0.01, 100, 40)
    plain, other = (Reference.of({}, each, [], CLASSES).measures for each in (embedding, scaled))
    for name in AXIS_NAMES:
        np.testing.assert_allclose(plain[name].edges, other[name].edges, rtol=1e-4, atol=1e-4)


def test_an_embedding_of_another_model_is_refused(usual: Reference) -> None:
    with pytest.raises(DataError, match="another model"):
        projected(np.zeros((2, 5)), usual.projection)


def test_a_bundle_brings_it_back_as_it_was(usual: Reference, tmp_path: Path) -> None:
    bundle(reference=usual).save(tmp_path / "b")
    found = Bundle.load(tmp_path / "b").reference
    assert found is not None
    assert found.to_arrays().keys() == usual.to_arrays().keys()
    for name, array in usual.to_arrays().items():
        np.testing.assert_array_equal(found.to_arrays()[name], array)
    assert (tmp_path / "b" / REFERENCE).stat().st_size < 20_000
    bundle().save(tmp_path / "without")
    assert Bundle.load(tmp_path / "without").reference is None


SPOILT: dict[str, Callable[[dict[str, Any]], object]] = {
    "an array missing": lambda arrays: arrays.pop("melanoma edges"),
    "an unknown measure": lambda arrays: arrays.update({"height edges": np.ones(1), "height counts": np.ones(2, int)}),
    "falling edges": lambda arrays: arrays.update({"melanoma edges": arrays["melanoma edges"][::-1]}),
    "edges of NaN": lambda arrays: arrays.update({"melanoma edges": arrays["melanoma edges"] * np.nan}),
    "counts below 0": lambda arrays: arrays.update({"melanoma counts": -arrays["melanoma counts"]}),
    "no pictures": lambda arrays: arrays.update({"melanoma counts": 0 * arrays["melanoma counts"]}),
    "other classes": lambda arrays: arrays.update({"diagnoses": np.ones(7, np.int64)}),
    "a projection that is infinite": lambda arrays: arrays.update(
        {"projection": arrays["projection"] + np.float32(np.inf)}
    ),
    "too few directions": lambda arrays: arrays.update({"projection": arrays["projection"][:, :3]}),
    "objects": lambda arrays: arrays.update({"diagnoses": np.array([{}], dtype=object)}),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_what_is_no_reference_is_refused_whatever_its_hash(
    usual: Reference, tmp_path: Path, spoil: Callable[[dict[str, Any]], object]
) -> None:
    bundle(reference=usual).save(tmp_path)
    arrays = usual.to_arrays()
    spoil(arrays)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    (tmp_path / REFERENCE).write_bytes(stream.getvalue())
    facts = json.loads((tmp_path / FACTS).read_text())
    facts["files"][REFERENCE] = hashlib.sha256(stream.getvalue()).hexdigest()
    (tmp_path / FACTS).write_text(json.dumps(facts))
    with pytest.raises(BundleError, match=REFERENCE):
        Bundle.load(tmp_path)

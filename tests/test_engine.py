"""The engine: what scores is the graph in the bundle and nothing else, and only where it fits the bundle's facts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from dermalert.errors import BundleError, ClusterError
from dermalert.judge.calibration import Calibration
from dermalert.score.engine import Engine
from graphs import SIZE, WEIGHTS, bundle, graph


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE[1], SIZE[0], 3)).astype(np.uint8)


def test_logits_are_what_the_graph_says_of_the_pixels_as_they_are() -> None:
    pixels = pictures(5)
    expected = pixels.astype(np.float64).mean(axis=(1, 2)) @ WEIGHTS
    found = Engine(bundle()).logits(pixels)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-4)


def test_a_gpu_that_is_not_there_is_never_replaced_by_the_cores() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime knows CUDA")
    with pytest.raises(ClusterError, match="Install onnxruntime-gpu"):
        Engine(bundle(), gpu=True)


def test_probabilities_are_the_softmax_of_the_logits_over_the_temperature_and_the_biases() -> None:
    engine, pixels = Engine(bundle(calibration=Calibration(2.0, (0.0, 0.5, -0.5)))), pictures(5)
    odds = np.exp(engine.logits(pixels).astype(np.float64) / 2 + [0.0, 0.5, -0.5])
    found = engine.probabilities(pixels)
    assert found.dtype == np.float64
    assert np.allclose(found, odds / odds.sum(axis=1, keepdims=True), rtol=1e-9)
    assert np.allclose(found.sum(axis=1), 1)


def test_only_the_outputs_asked_for_come_and_each_is_what_it_says() -> None:
    engine, pixels = Engine(bundle()), pictures(5)
    found = engine.run(pixels, "evidence", "embedding", "texture")
    assert list(found) == ["evidence", "embedding", "texture"]
    assert all(values.dtype == np.float32 and len(values) == 5 for values in found.values())
    np.testing.assert_allclose(found["evidence"].mean(axis=(1, 2)), engine.logits(pixels), rtol=1e-4)
    np.testing.assert_allclose(found["embedding"], pixels.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["texture"][:, 3:], pixels.std(axis=(1, 2)), rtol=1e-3)


def test_what_a_graph_does_not_give_is_known_beforehand_and_refused_by_name() -> None:
    engine = Engine(bundle(model=graph(outputs=("logits",))))
    assert [engine.has(name) for name in ("logits", "embedding", "evidence", "texture")] == [True, False, False, False]
    with pytest.raises(BundleError, match=r"'mean colour': its model gives no embedding, only logits\. Train"):
        engine.run(pictures(1), "logits", "embedding")


def test_a_picture_scores_the_same_alone_in_a_batch_and_on_any_number_of_threads() -> None:
    pixels = pictures(9)
    together = Engine(bundle()).logits(pixels)
    for threads in (1, 2):
        engine = Engine(bundle(), threads=threads)
        alone = np.concatenate([engine.logits(one[None]) for one in pixels])
        assert np.allclose(together, alone, atol=1e-5)


def test_one_engine_may_be_shared_by_threads() -> None:
    engine, pixels = Engine(bundle()), pictures(8)
    expected = engine.logits(pixels)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: engine.logits(pixels), range(40)):
            assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "model",
    [b"", b"onnx", b"\0" * 1000, graph()[:-40], b"\x80\x04}q\0."],
    ids=["empty", "text", "zeros", "cut off", "pickle"],
)
def test_a_model_that_is_no_graph_is_refused(model: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BundleError, match=r"bundle 'mean colour': its model cannot be loaded"):
        Engine(bundle(model=model))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "model",
    [
        graph(outputs=("embedding",)),
        graph(outputs=("logits", "features")),
        graph(outputs=("logits", "logit")),
        graph(WEIGHTS[:, :2]),
        graph(np.zeros((3, 9), np.float32)),
        graph(size=(SIZE[1], SIZE[0])),
        graph(WEIGHTS[:1], channels=1),
        graph(np.zeros((4, 3), np.float32), channels=4),
        graph(pictures=1),
        graph(kind=TensorProto.DOUBLE),
        graph(kind=TensorProto.UINT8),
        graph(inputs=("pixels", "age")),
    ],
    ids=[
        "no logits",
        "an output nobody knows",
        "another one",
        "fewer classes",
        "more classes",
        "width and height changed",
        "grey",
        "four channels",
        "one picture at a time",
        "of doubles",
        "of bytes",
        "two inputs",
    ],
)
def test_a_graph_that_does_not_fit_the_facts_is_refused_before_it_is_run(model: bytes) -> None:
    with pytest.raises(BundleError, match=r"bundle 'mean colour': its model .*not as its facts say"):
        Engine(bundle(model=model))


@pytest.mark.parametrize("location", ["weights.bin", "../{here}/weights.bin", "{folder}/weights.bin"])
def test_a_graph_cannot_name_a_file_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str) -> None:
    monkeypatch.chdir(tmp_path)
    np.eye(3, dtype=np.float32).tofile("weights.bin")
    weights = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[3, 3], data_location=TensorProto.EXTERNAL)
    place = weights.external_data.add()
    place.key, place.value = "location", location.format(here=tmp_path.name, folder=tmp_path)
    with pytest.raises(BundleError, match="its model cannot be loaded"):
        Engine(bundle(model=graph(weights)))


@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_a_model_whose_outputs_are_no_numbers_is_the_bundles_fault_and_said_so(weight: float) -> None:
    engine = Engine(bundle(model=graph(np.full((3, 3), weight, np.float32))))
    with pytest.raises(BundleError, match=r"bundle 'mean colour': .*no number"):
        engine.probabilities(pictures(2))

"""The gate: what it refuses and why, how it is fitted, and that it is kept with the bundle.

The graph's features are those of a convolution drawn by chance: enough to tell cartoons of lesions from cartoons of
documents, and quick.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageFilter

from dermalert.bundle.format import Bundle
from dermalert.bundle.gate import Gate
from dermalert.drawn import draw_lesion
from dermalert.drawn.others import OTHERS, draw_other
from dermalert.errors import BundleError, DataError
from dermalert.intake.given import given_at
from dermalert.score import gate as gates
from dermalert.score.batch import Finding, score
from dermalert.score.engine import Engine
from dermalert.score.gate import judge_quality, measure_quality
from dermalert.score.output import row_of
from dermalert.stages import gating
from dermalert.taxonomy import NAMES
from graphs import CLASSES, bundle

SIZE = (64, 64)
FILTERS = 24
SOURCES = {"round": 72, "warm": 72}


def feature_graph() -> bytes:
    """Logits, embedding (the filters' means) and texture (their means and deviations) of one 5 x 5 convolution."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(FILTERS, 3, 5, 5))
    kernel[::2] -= kernel[::2].mean(axis=(1, 2, 3), keepdims=True)  # half of them see edges alone, and no light
    weights = {"kernel": kernel / 255, "head": rng.normal(size=(FILTERS, len(CLASSES)))}
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["maps"], strides=[2, 2]),
        helper.make_node("Relu", ["maps"], ["found"]),
        helper.make_node("ReduceMean", ["found"], ["embedding"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["found", "found"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["power"], axes=[2, 3], keepdims=0),
        helper.make_node("Sqrt", ["power"], ["deviation"]),
        helper.make_node("Concat", ["embedding", "deviation"], ["texture"], axis=1),
        helper.make_node("MatMul", ["embedding", "head"], ["logits"]),
    ]
    shapes = {"logits": len(CLASSES), "embedding": FILTERS, "texture": 2 * FILTERS}
    made = helper.make_graph(
        nodes,
        "features",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["pictures", *SIZE, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["pictures", n]) for name, n in shapes.items()],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    content: bytes = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    ).SerializeToString()
    return content


def lesion(seed: int, *, source: str = "round", width: int = 200, height: int = 150) -> NDArray[np.uint8]:
    pixels = draw_lesion(NAMES[seed % 9], np.random.default_rng(seed), width=width, height=height)
    return pixels if source == "round" else (pixels * np.array([1.0, 0.9, 0.8])).astype(np.uint8)


def save(pixels: NDArray[np.uint8], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture(scope="module")
def plain_bundle() -> Bundle:
    return bundle(model=feature_graph(), size=SIZE)


@pytest.fixture(scope="module")
def seen(plain_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[gating.Seen, gating.Seen]:
    """Lesions of two cameras with a view of each, and other pictures."""
    folder, engine = tmp_path_factory.mktemp("gate"), Engine(plain_bundle)
    paths, sources = [], []
    for source, count in SOURCES.items():
        for number in range(count):
            paths.append(save(lesion(number, source=source), folder / source / f"{number}.png"))
            sources.append(source)
    for kind in OTHERS:
        for number in range(3):
            save(draw_other(kind, np.random.default_rng([7, number])), folder / "others" / kind / f"{number}.png")
    (folder / "others" / "broken.png").write_bytes(b"no picture")
    return gating.see(engine, paths, sources, [path.stem for path in paths]), gating.see_others(
        engine, folder / "others"
    )


@pytest.fixture(scope="module")
def fitted(seen: tuple[gating.Seen, gating.Seen]) -> tuple[Gate, gating.Rates]:
    return gating.fit_gate(*seen)


def test_new_lesions_pass_and_other_things_do_not(
    fitted: tuple[Gate, gating.Rates], plain_bundle: Bundle, tmp_path: Path
) -> None:
    """Even of these features; the rates of a trained network stand in decision 6."""
    gated = replace(plain_bundle, gate=fitted[0])
    lesions = [save(lesion(1000 + number), tmp_path / f"lesion{number}.png") for number in range(40)]
    others = [
        save(draw_other(kind, np.random.default_rng([99, number])), tmp_path / f"{kind}{number}.png")
        for kind in OTHERS
        for number in range(4)
    ]
    refused = [finding.status == "rejected" for finding in score(given_at(lesions), gated)]
    assert np.mean(refused) <= 0.1
    assert np.mean([finding.status == "rejected" for finding in score(given_at(others), gated)]) >= 0.9


def test_a_refused_picture_has_a_reason_and_no_probability(
    fitted: tuple[Gate, gating.Rates], plain_bundle: Bundle, tmp_path: Path
) -> None:
    gated = replace(plain_bundle, gate=fitted[0])
    paths = [save(draw_other("screen", np.random.default_rng(5)), tmp_path / "screen.png")]
    paths.append(save(lesion(500), tmp_path / "lesion.png"))
    screen, scored = score(given_at(paths), gated)
    assert (screen.status, screen.probabilities, screen.alert, screen.diagnosis) == ("rejected", (), None, None)
    assert "dermatoscope" in screen.message
    assert screen.ood is not None
    assert screen.ood >= 1
    assert scored.status == "scored"
    assert scored.ood is not None
    assert 0 <= scored.ood < 1
    assert scored.quality is not None
    assert 0 < scored.quality <= 1
    assert len(scored.probabilities) == len(CLASSES)
    row = row_of(screen, CLASSES)
    assert (row["ood"], row["quality"], row["message"]) == (screen.ood, screen.quality, screen.message)


def test_without_a_gate_every_picture_is_scored(plain_bundle: Bundle, tmp_path: Path) -> None:
    page = save(draw_other("document", np.random.default_rng(0)), tmp_path / "page.png")
    (finding,) = score(given_at([page]), plain_bundle)
    assert (finding.status, finding.ood, finding.quality) == ("scored", None, None)


def test_the_strangest_source_that_was_left_out_sets_the_limits(fitted: tuple[Gate, gating.Rates]) -> None:
    """Each was refused by a gate that never saw its camera, and yet hardly a picture."""
    rates = fitted[1]
    assert set(rates.unseen) == set(rates.dermoscopic) == set(rates.varied) == set(SOURCES)
    assert max(rates.unseen.values()) <= 0.05
    assert rates.pictures["round"] == SOURCES["round"]
    assert rates.pictures["drawn"] == gating.DRAWN * len(OTHERS)


def test_a_gate_without_other_pictures_knows_the_distance_alone(seen: tuple[gating.Seen, gating.Seen]) -> None:
    gate, rates = gating.fit_gate(seen[0], None)
    assert len(gate.weights) == 0
    assert rates.others == {}
    far = {name: values + 100 for name, values in seen[0].features.items()}
    verdicts = gates.judge(gate, far, seen[0].qualities)
    assert not any(verdict.accepted for verdict in verdicts)


def test_an_unusual_picture_is_flagged_before_it_is_refused(
    fitted: tuple[Gate, gating.Rates], seen: tuple[gating.Seen, gating.Seen]
) -> None:
    one = seen[0].part(np.arange(1))
    cautious = replace(fitted[0], flag_logit=np.full(1, -1e6, np.float32))
    (verdict,) = gates.judge(cautious, one.features, one.qualities)
    assert verdict.accepted
    assert "outside the intended use" in verdict.flag


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: p * 0, "black"),
        (lambda p: p // 6 + 17, "dark"),
        (lambda p: np.full_like(p, 255), "burnt out"),
        (lambda p: np.full_like(p, 160), "even surface"),
        (lambda p: np.repeat(p.mean(axis=2, keepdims=True), 3, axis=2), "no colours"),
        (lambda p: np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(8))), "focus"),
    ],
)
def test_a_spoilt_picture_is_refused_with_what_to_do(spoil: object, reason: str) -> None:
    spoilt = np.asarray(spoil(lesion(3))).astype(np.uint8)  # type: ignore[operator]
    quality, told = judge_quality(measure_quality(spoilt, 200, 150))
    assert quality == 0
    assert reason in told
    assert "again" in told


def test_a_tiny_picture_is_refused_and_a_small_one_is_not() -> None:
    assert "Give the camera's original" in judge_quality(measure_quality(lesion(3), 63, 400))[1]
    assert judge_quality(measure_quality(lesion(3), 180, 180))[1] == ""


def test_quality_is_that_of_the_whole_picture_at_any_size() -> None:
    large, small = lesion(4, width=640, height=480), lesion(4, width=320, height=240)
    measured = [judge_quality(measure_quality(pixels, 640, 480))[0] for pixels in (large, small)]
    assert measured == pytest.approx([1, 1])


def test_a_black_rim_is_no_fault() -> None:
    pixels = np.ascontiguousarray(lesion(6, width=200, height=200))
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    pixels[np.hypot(x, y) > 0.85] = 0
    assert judge_quality(measure_quality(pixels, 200, 200))[1] == ""


def test_a_gate_is_kept_with_its_bundle(
    fitted: tuple[Gate, gating.Rates], plain_bundle: Bundle, tmp_path: Path
) -> None:
    replace(plain_bundle, gate=fitted[0]).save(tmp_path)
    kept = Bundle.load(tmp_path).gate
    assert kept is not None
    for name, array in fitted[0].to_arrays().items():
        np.testing.assert_array_equal(kept.to_arrays()[name], array)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda arrays: arrays.pop("bias"),
        lambda arrays: arrays.update(more=np.zeros(1, np.float32)),
        lambda arrays: arrays.update(bias=np.full(1, np.nan, np.float32)),
        lambda arrays: arrays.update(centre=arrays["centre"][:-1]),
        lambda arrays: arrays.update(axes=np.float32(1)),
        lambda arrays: arrays.update(distance_limits=np.zeros(2, np.float32)),
        lambda arrays: arrays.update(weights=np.array(["a"])),
    ],
)
def test_a_damaged_gate_is_refused(fitted: tuple[Gate, gating.Rates], spoil: object) -> None:
    arrays = dict(fitted[0].to_arrays())
    spoil(arrays)  # type: ignore[operator]
    with pytest.raises(DataError, match="the gate"):
        Gate.from_arrays({name: np.asarray(array) for name, array in arrays.items()})


def test_a_gate_of_another_model_is_refused(fitted: tuple[Gate, gating.Rates]) -> None:
    features = {"texture": np.zeros((1, 5), np.float32)}
    with pytest.raises(BundleError, match="another model"):
        gates.judge(fitted[0], features, [measure_quality(lesion(0), 200, 150)])


def test_the_rates_are_told_in_words(fitted: tuple[Gate, gating.Rates]) -> None:
    told = gating.told(fitted[1])
    assert "round" in told
    assert "left out" in told
    assert "%" in told


def test_a_folder_without_pictures_is_no_folder_of_others(plain_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable picture"):
        gating.see_others(Engine(plain_bundle), tmp_path)


def test_an_unknown_drawing_is_refused() -> None:
    with pytest.raises(DataError, match="document"):
        draw_other("cat", np.random.default_rng(0))


def test_a_finding_of_an_unreadable_file_has_no_quality(
    fitted: tuple[Gate, gating.Rates], plain_bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    (finding,) = score(given_at([tmp_path / "a.png"]), replace(plain_bundle, gate=fitted[0]))
    assert finding == Finding(str(tmp_path / "a.png"), "error", message=finding.message)


def test_the_shipped_gate_passes_real_pictures(shared_data: Path) -> None:
    """On every fiftieth picture; all rates stand in the model card."""
    try:
        shipped = Bundle.shipped()
    except BundleError:
        pytest.skip("no model ships yet")
    paths = sorted((shared_data / "ham10000" / "images").glob("*.jpg"))[::50]
    paths += sorted((shared_data / "isic2017" / "images").glob("*.jpg"))[::20]
    refused = [finding.status == "rejected" for finding in score(given_at(paths), shipped)]
    assert np.mean(refused) <= 0.02

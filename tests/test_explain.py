"""Evidence maps: they lie where the evidence is, add up to what the model says, and are told apart from pretty ones."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dermalert import page
from dermalert.bundle.format import Bundle
from dermalert.bundle.shuffled import with_shuffled_weights
from dermalert.cli import main
from dermalert.errors import DataError, MissingExtra
from dermalert.intake.index import index
from dermalert.intake.masks import load_mask, masks_in
from dermalert.intake.sources import list_data
from dermalert.judge.calibration import Calibration
from dermalert.judge.faithfulness import (
    EvidenceChecks,
    deletion,
    evidence_section,
    insertion,
    inside,
    likeness,
    summarized,
)
from dermalert.page.overlay import coloured, evidence_png, laid_over
from dermalert.score.engine import Engine
from dermalert.score.explain import CLASS_ACTIVATION, OCCLUSION, evidence, explain, hidden, smoothed
from dermalert.stages import explaining
from dermalert.stages.explaining import checked_evidence, run_explain
from graphs import CLASSES, bundle, paint, quality_gate
from pooled import CELL, SIZE, pooled_bundle, spotted
from reading import read

RED, GREEN = (220, 40, 40), (40, 220, 40)
BOTH_WAYS = pytest.mark.parametrize(
    "outputs", [("logits", "evidence"), ("logits",)], ids=["from the graph", "by hiding"]
)


def noise(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE[1], SIZE[0], 3)).astype(np.uint8)


def saved(file: Path, pixels: NDArray[np.uint8]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


# What a map shows


@pytest.mark.parametrize(
    "outputs", [("logits", "embedding", "evidence"), ("logits",)], ids=["from the graph", "by hiding"]
)
def test_the_evidence_lies_where_the_colour_of_the_diagnosis_does(outputs: tuple[str, ...]) -> None:
    engine = Engine(pooled_bundle(outputs=outputs))
    pixels = np.stack([spotted((1, 2, RED), (4, 0, GREEN)), spotted((3, 1, RED), (0, 3, GREEN))])
    for diagnosis, cells in (("melanoma", [(1, 2), (3, 1)]), ("nevus", [(4, 0), (0, 3)])):
        for one, (column, row) in zip(explain(engine, pixels, diagnosis), cells, strict=True):
            assert one.method == (CLASS_ACTIVATION if "evidence" in outputs else OCCLUSION)
            assert one.values.shape == (SIZE[1], SIZE[0])
            assert one.peak is not None
            across, down = one.peak
            assert (int(across * SIZE[0] // CELL), int(down * SIZE[1] // CELL)) == (column, row)


def test_class_activation_is_the_gradient_of_the_log_odds_and_adds_up_to_what_the_model_says() -> None:
    calibration = Calibration(2.0, (0.3, -0.1, -0.2))
    engine, pixels = Engine(pooled_bundle(calibration=calibration)), noise(4)
    asked = [0, 1, 2, 0]
    maps, probabilities = evidence(engine, pixels, asked)
    logits = engine.logits(pixels).astype(np.float64) - np.array([-1.0, 2.0, 0.5])  # without the head's bias
    for one, row, p, k in zip(maps, logits / 2, probabilities, asked, strict=True):
        others = np.delete(p, k) / np.delete(p, k).sum()
        assert one.mean() == pytest.approx(row[k] - np.delete(row, k) @ others, abs=1e-3)
    assert np.allclose(probabilities, engine.probabilities(pixels))


def test_what_all_classes_share_is_no_evidence_for_any_of_them() -> None:
    kernel = np.eye(3, dtype=np.float32) / 5
    common = kernel + np.array([[0.3], [-0.2], [0.1]], np.float32)  # adds one map to every class: no probability moves
    pixels = noise(3)
    plain, _ = evidence(Engine(pooled_bundle(kernel)), pixels, [0, 1, 2])
    shifted, _ = evidence(Engine(pooled_bundle(common)), pixels, [0, 1, 2])
    assert np.allclose(plain, shifted, atol=1e-3)
    assert np.ptp(plain) > 1


def test_hiding_a_window_is_measured_in_the_log_odds_that_it_costs() -> None:
    engine = Engine(pooled_bundle(outputs=("logits",)))
    (even,), _ = evidence(engine, np.full((1, SIZE[1], SIZE[0], 3), 90, np.uint8), [0])
    assert np.allclose(even, 0, atol=1e-6)  # nothing to hide


def test_a_picture_with_nothing_for_the_diagnosis_has_no_peak() -> None:
    (one,) = explain(Engine(pooled_bundle()), np.full((1, SIZE[1], SIZE[0], 3), (0, 200, 0), np.uint8), "melanoma")
    assert one.peak is None
    assert not one.speaking_for.any()


def test_a_diagnosis_that_the_model_does_not_know_is_refused_with_those_it_does() -> None:
    with pytest.raises(DataError, match=r"does not know 'dermatofibroma'\. .*melanoma, nevus, vascular lesion"):
        explain(Engine(pooled_bundle()), noise(1), "dermatofibroma")


def test_smoothing_keeps_the_peak_and_leaves_the_range_of_the_map() -> None:
    map_ = np.zeros((1, 4, 5), np.float32)
    map_[0, 2, 3] = 7
    (grown,) = smoothed(map_, SIZE)
    row, column = np.unravel_index(grown.argmax(), grown.shape)
    assert (row // CELL, column // CELL) == (2, 3)
    assert grown.min() >= 0
    assert grown.max() <= 7
    assert np.abs(np.diff(grown, axis=0)).max() < 1.5  # no step where a cell ends
    assert np.allclose(smoothed(np.full((1, 4, 5), 3, np.float32), SIZE), 3)


def test_what_hides_a_picture_keeps_its_colour_and_no_structure() -> None:
    pixels = noise(1)[0]
    cover = hidden(pixels)
    assert np.abs(cover.mean(axis=(0, 1)) - pixels.mean(axis=(0, 1))).max() < 8
    assert cover.std() < pixels.std() / 6


# Whether it can be believed


@pytest.mark.parametrize(
    "outputs", [("logits", "embedding", "evidence"), ("logits",)], ids=["from the graph", "by hiding"]
)
def test_shuffled_weights_give_another_map(outputs: tuple[str, ...]) -> None:
    random = np.random.default_rng(5)
    model = pooled_bundle(random.normal(0, 0.05, (3, 3)).astype(np.float32), outputs=outputs)
    shuffled = with_shuffled_weights(model, seed=1)
    pixels = noise(6)
    before, _ = evidence(Engine(model), pixels, [0] * 6)
    again, _ = evidence(Engine(with_shuffled_weights(model, seed=1)), pixels, [0] * 6)
    after, _ = evidence(Engine(shuffled), pixels, [0] * 6)
    assert np.array_equal(after, again)
    assert np.mean([likeness(a, b) for a, b in zip(before, after, strict=True)]) < 0.7
    assert likeness(before[0], before[0]) == pytest.approx(1)


def test_shuffling_moves_every_kernel_and_changes_no_weight() -> None:
    onnx = pytest.importorskip("onnx")
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3)
    model = onnx.load_model_from_string(with_shuffled_weights(pooled_bundle(kernel)).model)
    held = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    assert sorted(held["kernel"].ravel()) == list(range(9))
    assert not np.array_equal(held["kernel"], kernel)
    assert held["bias"].tolist() == [-1.0, 2.0, 0.5]


def test_a_map_of_what_the_model_goes_by_beats_its_opposite_in_hiding_and_in_showing() -> None:
    pixels, cover = spotted((1, 2, RED)), np.full((SIZE[1], SIZE[0], 3), 60, np.uint8)
    strength = (pixels[..., 0] > 100).astype(np.float32)

    def redness(several: NDArray[np.uint8]) -> NDArray[np.float64]:
        return several[..., 0].mean(axis=(1, 2)) / pixels[..., 0].mean()

    faithful, opposite = (deletion(pixels, s, cover, redness) for s in (strength, -strength))
    assert faithful < opposite
    shown, wrongly = (insertion(pixels, s, cover, redness) for s in (strength, -strength))
    assert shown > wrongly
    # By hand: the spot is 1/20 of the picture, hidden within the first of twelve steps.
    grey = 60 / pixels[..., 0].mean()
    assert faithful == pytest.approx(grey + (1 - grey) / 24, abs=1e-9)


def test_hiding_begins_with_the_picture_and_ends_with_nothing_of_it() -> None:
    pixels, cover = noise(1)[0], np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    seen: list[NDArray[np.uint8]] = []

    def look(several: NDArray[np.uint8]) -> NDArray[np.float64]:
        seen.append(several)
        return np.ones(len(several))

    assert deletion(pixels, np.zeros(pixels.shape[:2]), cover, look) == pytest.approx(1)
    (stages,) = seen
    assert np.array_equal(stages[0], pixels)
    assert np.array_equal(stages[-1], cover)
    left = (stages == pixels).all(axis=3).mean(axis=(1, 2))
    assert np.all(np.diff(left) < 0)
    half = (stages[6] == pixels).all(axis=2)
    assert 0.3 < half[: len(half) // 2].mean() < 0.7  # what is equally strong does not go from the top down


def test_the_share_inside_a_mask_is_that_of_the_energy() -> None:
    strength, mask = np.zeros((4, 4)), np.zeros((4, 4), bool)
    strength[0], mask[:, :2] = [3, 1, 0, 4], True
    assert inside(strength, mask) == pytest.approx(0.5)
    assert inside(np.ones((4, 4)), mask) == pytest.approx(mask.mean())
    assert np.isnan(inside(np.zeros((4, 4)), mask))
    assert np.isnan(inside(strength, np.zeros((4, 4), bool)))


def test_what_could_not_be_told_of_a_picture_does_not_count_as_0() -> None:
    n = 40
    some = np.random.default_rng(0).uniform(0.2, 0.4, n)
    within = np.where(np.arange(n) % 2, np.nan, 0.75)
    chance, middle = some + 0.2, some + 0.3
    checks = EvidenceChecks(some, chance, middle, some + 0.1, some, some, within, within - 0.5, within - 0.25, within)
    found = summarized(checks, np.arange(n), method=OCCLUSION, resamples=200)
    assert found.masked == n // 2
    assert found.figures["inside"].value == pytest.approx(0.75)
    assert found.figures["inside_gain"].value == pytest.approx(0.5)
    assert found.figures["inside_gain_centre"].value == pytest.approx(0.25)
    assert found.figures["deletion_gain_centre"].value == pytest.approx(0.3)
    assert found.figures["deletion_gain"].value == pytest.approx(0.2)
    assert found.figures["insertion_gain"].value == pytest.approx(0.1)
    json.dumps(found.to_json(), allow_nan=False)


def test_the_report_says_whether_maps_beat_chance_and_never_claims_a_check_that_was_not_made() -> None:
    random = np.random.default_rng(0)
    good, none = random.uniform(0.2, 0.4, 60), np.full(60, np.nan)
    chance, middle, no_better = good + random.uniform(0.1, 0.2, 60), good - 0.01, good + 0.1
    checks = EvidenceChecks(good, chance, middle, good, no_better, no_better, none, none, none, none)
    why = "The library is <not> installed."
    section = evidence_section(summarized(checks, np.arange(60), method=OCCLUSION, unchecked=why, resamples=200))
    assert isinstance(section, page.Section)
    assert "lowers the probability faster than an order of chance." in section.html
    assert "lowers the probability no faster than a blob in the middle, as far" in section.html
    assert "raises the probability no faster than an order of chance or a blob in the middle" in section.html
    assert "was not checked: The library is &lt;not&gt; installed." in section.html
    assert "inside the lesion" not in section.html  # no picture has a mask
    masked = replace(checks, inside=good, covered=good / 2, inside_centre=good, likeness=good)
    beside = summarized(masked, np.arange(60), method=OCCLUSION, resamples=200)
    told = evidence_section(beside).html
    assert "inside the lesion" in told
    assert "weights in disorder" in told


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Class folders of pictures whose spot is the reason for their diagnosis, with masks of the spots."""
    for word, colour in (("melanoma", RED), ("nevus", GREEN)):
        for number in range(6):
            column, row = 1 + number % 3, 1 + number // 3
            saved(tmp_path / "clinic" / word / f"{word}{number}.png", spotted((column, row, colour)))
            mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
            mask[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 255
            (tmp_path / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask).convert("1").save(tmp_path / "masks" / f"{word}{number}_segmentation.png")
    return tmp_path / "clinic"


def test_maps_of_a_model_that_goes_by_the_spot_beat_chance_and_lie_on_the_spot(
    clinic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = index(list_data(clinic)).manifest
    engine = Engine(pooled_bundle(0.6 * np.eye(3, dtype=np.float32)))
    found = checked_evidence(engine, manifest, masks=masks_in(clinic.parent / "masks"), resamples=200)
    figures = found.figures
    assert found.unchecked == ""
    assert (found.method, found.pictures, found.masked) == (CLASS_ACTIVATION, 12, 12)
    assert figures["deletion_gain"].low > 0
    assert figures["insertion_gain"].low > 0
    assert figures["covered"].value == pytest.approx(1 / 20)
    assert figures["inside"].low > 0.3
    assert figures["likeness"].value < 0.9
    monkeypatch.setattr(explaining, "SAMPLE", 5)
    few = checked_evidence(engine, manifest, resamples=200)
    one_lesion = manifest.with_columns(group=[0] * 12)
    assert checked_evidence(engine, one_lesion, resamples=200).pictures == 1
    again = checked_evidence(engine, manifest, resamples=200)
    assert (few.pictures, few.masked) == (5, 0)
    assert json.dumps(few.to_json()) == json.dumps(again.to_json())


def test_without_the_library_for_it_the_sanity_check_says_why_it_was_not_made(
    clinic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> Bundle:
        raise MissingExtra("Shuffling the weights of a model", "train")

    monkeypatch.setattr(explaining, "with_shuffled_weights", missing)
    found = checked_evidence(Engine(pooled_bundle()), index(list_data(clinic)).manifest, resamples=200)
    assert "[train]" in found.unchecked
    assert np.isnan(found.figures["likeness"].value)
    assert found.figures["deletion"].value > 0


# Masks


def test_masks_are_found_by_their_pictures_name_with_or_without_the_ending_of_isic(tmp_path: Path) -> None:
    for name in ("a.png", "b_segmentation.png", "notes.txt"):
        paint(tmp_path / name, (255, 255, 255)) if name.endswith("png") else (tmp_path / name).write_text("x")
    assert {stem: file.name for stem, file in masks_in(tmp_path).items()} == {"a": "a.png", "b": "b_segmentation.png"}
    assert load_mask(tmp_path / "a.png", (6, 4)).shape == (4, 6)
    for folder in (tmp_path / "none", tmp_path / "a.png"):
        with pytest.raises(DataError, match="there is no such folder of masks"):
            masks_in(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no masks there"):
        masks_in(tmp_path / "empty")


# The PNG


def test_the_colours_are_viridis() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    share = np.linspace(0, 1, 256)
    expected = matplotlib.colormaps["viridis"](share)[:, :3] * 255
    assert np.abs(coloured(share).astype(float) - expected).max() < 6


def test_where_there_is_no_evidence_the_picture_is_seen_as_it_is() -> None:
    pixels, share = noise(1)[0], np.zeros((SIZE[1], SIZE[0]))
    assert np.array_equal(laid_over(pixels, share), pixels)
    share[3, 5] = 1
    changed = (laid_over(pixels, share) != pixels).any(axis=2)
    assert changed.sum() == 1
    assert changed[3, 5]


def test_a_png_holds_its_text_alternative_and_no_exif() -> None:
    content = evidence_png(
        noise(1)[0],
        np.ones((4, 5)),
        heading="melanoma: 83 %",
        caption="What speaks for it",
        note="Model.",
        alt="A text é.",
    )
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert image.format == "PNG"
        assert image.info["Description"] == "A text é."
        assert "Research software" in image.info["Disclaimer"]
        assert "exif" not in image.info
        assert not image.getexif()
        assert image.width > image.height
        assert min(image.size) > 400  # a thumbnail is enlarged: the map is there to be looked at


def test_a_map_of_nothing_is_drawn_as_nothing() -> None:
    words = {"heading": "h", "caption": "c", "note": "n", "alt": "a"}
    pixels = spotted((1, 1, RED))
    with Image.open(io.BytesIO(evidence_png(pixels, np.zeros((4, 5)), **words))) as image:
        drawn = np.asarray(image.convert("RGB"))
    left, right = drawn[130:500, 24 : 24 + 512], drawn[130:500, 48 + 512 : 48 + 1024]
    assert np.array_equal(left, right)


@pytest.mark.parametrize("strength", [np.full((4, 5), np.nan), np.full((4, 5), -1.0), np.ones((4, 5, 3))])
def test_what_is_no_map_is_not_drawn(strength: NDArray[np.float64]) -> None:
    with pytest.raises(DataError, match="An evidence map is"):
        evidence_png(noise(1)[0], strength, heading="h", caption="c", note="n", alt="a")


@pytest.mark.parametrize("shape", [(300, 10, 3), (10, 300, 3), (1, 1, 3)])
def test_pictures_of_any_shape_are_drawn(shape: tuple[int, int, int]) -> None:
    content = evidence_png(np.zeros(shape, np.uint8), np.ones((2, 2)), heading="h", caption="c", note="n", alt="a")
    with Image.open(io.BytesIO(content)) as image:
        assert image.width >= 900


# The command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pooled_bundle().save(tmp_path / "bundle")
    saved(tmp_path / "new" / "a.png", spotted((1, 2, RED)))
    saved(tmp_path / "new" / "below" / "a.png", spotted((3, 1, RED)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    try:
        main(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    return 0


def test_one_picture_gives_one_png_and_a_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "new/a.png", "--bundle", "bundle", "--out", "maps/a.png") == 0
    told = capsys.readouterr().out
    assert told.startswith("new/a.png: melanoma: ")
    assert "of the width and" in told
    with Image.open(home / "maps" / "a.png") as image:
        assert "melanoma" in image.info["Description"]
    assert [file.name for file in (home / "maps").iterdir()] == ["a.png"]


def test_a_folder_gives_a_png_a_picture_and_json_says_where_the_peak_is_and_what_lies_inside_the_mask(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[2 * CELL : 3 * CELL, CELL : 2 * CELL] = 255
    saved(home / "masks" / "a.png", mask)
    arguments = ("--bundle", "bundle", "--out", "maps", "--mask", "masks", "--json", "--class", "mel")
    assert run("explain", "new", *arguments) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["map"] for row in rows] == ["maps/a.png.png", "maps/below/a.png.png"]
    assert all((home / row["map"]).is_file() for row in rows)
    first, second = rows
    assert (first["diagnosis"], first["method"]) == ("melanoma", CLASS_ACTIVATION)
    assert CELL <= first["peak"][0] <= 2 * CELL <= first["peak"][1] <= 3 * CELL
    assert first["mask_covers"] == pytest.approx(1 / 20)
    assert first["inside_mask"] > 0.3 > second["inside_mask"]


def test_a_file_that_cannot_be_used_is_told_and_the_others_go_on(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "new" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    assert run("explain", "new", "--bundle", "bundle", "--out", "maps") == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2
    assert "broken.jpg: " in told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("none.png --out x.png", "none.png: there is no such file or folder"),
        ("new/a.png --out x.jpg", "x.jpg: a map is written as PNG"),
        ("new/a.png --out new/a.png", "new/a.png: is the picture itself"),
        ("new --out x.png", "x.png: several maps need a folder"),
        ("new/a.png new/below/a.png --out maps", "two of the pictures have this name"),
        ("new/a.png --out x.png --class dermatofibroma", "does not know 'dermatofibroma'"),
        ("new/a.png --out x.png --class nonsense", "nonsense"),
        ("new --out maps --mask new/a.png", "one mask for 2 pictures"),
        ("new/a.png --out x.png --mask none", "none: there is no such file or folder"),
        ("bundle --out maps", "bundle: no pictures there"),
        ("broken.jpg --out x.png", "Not one of 1 pictures could be explained"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_clear_line_and_nothing_is_written(
    home: Path, arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "broken.jpg").write_bytes(b"")
    before = {file: file.read_bytes() for file in home.rglob("*") if file.is_file()}
    assert run("explain", *arguments.split(), "--bundle", "bundle") == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert message in told.err.splitlines()[-1]
    assert {file: file.read_bytes() for file in home.rglob("*") if file.is_file()} == before


def test_a_hostile_name_of_a_picture_does_not_reach_the_png(tmp_path: Path) -> None:
    picture = saved(tmp_path / "Jane Doe 1970\x1b[31m.png", noise(1)[0])
    list(run_explain([picture], pooled_bundle(), tmp_path / "out.png", diagnosis="nevus"))
    assert b"Jane" not in (tmp_path / "out.png").read_bytes()
    with Image.open(tmp_path / "out.png") as image:
        assert not any("Jane" in str(value) for value in image.info.values())


def test_explaining_by_the_graph_alone_knows_every_class() -> None:
    (one,) = explain(Engine(pooled_bundle()), noise(1), CLASSES[2])
    assert one.diagnosis == "vascular lesion"


def test_evaluate_reports_whether_the_maps_can_be_believed_and_how_much_lies_inside_the_masks(
    clinic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = clinic.parent
    pooled_bundle(0.6 * np.eye(3, dtype=np.float32)).save(home / "bundle")
    arguments = ("--masks", str(home / "masks"), "--out", str(home / "out"), "--resamples", "100")
    assert run("evaluate", str(home / "bundle"), str(clinic), *arguments, "--json") == 0
    told = json.loads(capsys.readouterr().out)["evidence"]
    assert told["method"] == CLASS_ACTIVATION
    assert told["masked"] == told["pictures"] > 0
    assert told["figures"]["inside"]["value"] > told["figures"]["covered"]["value"]
    reading = read((home / "out" / "report.html").read_text(encoding="utf-8"))
    assert reading.problems == []
    assert (2, "Do the evidence maps show what the model goes by?") in reading.headings


def test_masks_of_other_pictures_are_told_of(clinic: Path) -> None:
    with pytest.raises(DataError, match="None of the 1 masks is named like a picture of this set"):
        checked_evidence(Engine(pooled_bundle()), index(list_data(clinic)).manifest, masks={"other": clinic / "x.png"})


def test_a_class_that_the_model_never_names_is_not_explained(tmp_path: Path) -> None:
    shares = {"melanoma": 0.3, "nevus": 0.7, "vascular lesion": 1e-12}
    turned_off = bundle(prevalence=shares, calibration=Calibration(1.0, (5.0, 6.0, -11.0)))
    picture = saved(tmp_path / "a.png", np.full((200, 200, 3), 120, np.uint8))
    with pytest.raises(DataError, match="never names vascular lesion"):
        list(run_explain([picture], turned_off, tmp_path / "map.png", diagnosis="vascular lesion"))


def test_what_score_rejects_is_not_explained_and_told_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dark = saved(tmp_path / "dark.png", np.full((200, 200, 3), 12, np.uint8))
    lit = saved(tmp_path / "lit.png", np.random.default_rng(0).integers(60, 255, (200, 200, 3)).astype(np.uint8))
    told = list(run_explain([dark, lit], bundle(gate=quality_gate()), tmp_path / "maps", diagnosis="melanoma"))
    assert [one.path for one in told] == [lit]
    assert "dark.png: the gate rejects it. " in capsys.readouterr().err

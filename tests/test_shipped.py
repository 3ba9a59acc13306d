"""The model that ships: there, small, whole, and saying on drawn pictures what it said when it was released."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermalert.bundle.card import NOT_MEASURED
from dermalert.bundle.format import Bundle
from dermalert.drawn import NO_ARTEFACTS, draw_lesion
from dermalert.drawn.others import draw_other
from dermalert.errors import RefusedFile
from dermalert.intake.decode import load
from dermalert.judge.evaluation import evaluate
from dermalert.judge.scores import Scores
from dermalert.score.engine import Engine
from dermalert.stages.similarity import run_similar
from dermalert.taxonomy import MELANOMA, NAMES, label_of

HERE = Path(__file__).parent
KNOWN = json.loads((HERE / "shipped.json").read_text())


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(Bundle.shipped())


def drawn() -> np.ndarray:
    rng = np.random.default_rng(7)
    size = {"width": 160, "height": 160}
    return np.stack([draw_lesion(name, rng, artefacts=NO_ARTEFACTS, **size) for name in NAMES])


def test_it_has_all_that_a_score_comes_with(engine: Engine) -> None:
    bundle = engine.bundle
    assert bundle.classes == NAMES
    assert [point.name for point in bundle.operating_points] == ["screening", "balanced", "specific"]
    assert bundle.operating_points[0].sensitivity.value >= 0.95
    assert bundle.conformal is not None
    assert bundle.conformal.coverage == 0.9
    assert bundle.gate is not None
    assert all(engine.has(name) for name in ("logits", "embedding", "evidence", "texture"))


def test_it_is_small_and_says_its_licence() -> None:
    bundle = Bundle.shipped()
    releases = Path(str(files("dermalert.bundle") / "releases"))
    assert sum(file.stat().st_size for file in releases.rglob("*") if file.is_file()) <= 10_000_000
    assert bundle.licence == "CC BY-NC 4.0"
    assert "CC BY-NC 4.0" in bundle.card
    assert "Apache-2.0" in bundle.card


def test_it_says_of_drawn_pictures_what_it_said_when_it_was_released(engine: Engine) -> None:
    assert engine.logits(drawn()) == pytest.approx(np.array(KNOWN["logits"]), abs=0.02)


def test_its_sets_hold_melanoma_wherever_it_refers_and_every_class_that_it_calls(engine: Engine) -> None:
    bundle = engine.bundle
    assert bundle.conformal is not None
    given = np.random.default_rng(0).dirichlet(np.full(len(NAMES), 0.4), 2000)
    melanoma = given[:, NAMES.index(MELANOMA)]
    for probabilities, refers, found in zip(
        given, melanoma >= bundle.operating_points[0].threshold, bundle.conformal.sets(given, NAMES), strict=True
    ):
        assert not refers or MELANOMA in found
        assert any(NAMES[int(probabilities.argmax())] in bundle.conformal.categories[name] for name in found)


def test_its_card_tells_what_it_does_itself(engine: Engine) -> None:
    card = engine.bundle.card
    assert NOT_MEASURED not in card
    assert "this one, held out" in card
    assert "shades of gray" in card
    assert "never names seborrheic keratosis" in card


def test_similar_cases_of_what_score_rejects_are_not_looked_for(tmp_path: Path) -> None:
    Image.fromarray(draw_other("document", np.random.default_rng(0))).save(tmp_path / "document.png")
    with pytest.raises(RefusedFile, match="the gate rejects it"):
        run_similar(
            tmp_path / "document.png",
            tmp_path,
            Bundle.shipped(),
            k=1,
            index=tmp_path / "index",
            command="dermalert similar",
            made=datetime(2026, 3, 1, tzinfo=UTC),
        )


def test_logits_are_the_mean_of_the_evidence(engine: Engine) -> None:
    found = engine.run(drawn(), "logits", "evidence")
    bias = found["logits"] - found["evidence"].mean(axis=(1, 2))
    assert np.ptp(bias, axis=0).max() < 1e-3


def held_out(data: Path) -> list[tuple[Path, str, str]]:
    """Path, what the label is called, and lesion of each HAM10000 photograph that nothing was fitted on."""
    kept = set(KNOWN["held_out"])
    with (data / "ham10000" / "metadata.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if int(row["image_id"].removeprefix("ISIC_")) in kept]
    return [(data / "ham10000" / "images" / f"{r['image_id']}.jpg", r["dx"], r["lesion_id"]) for r in rows]


def test_its_held_out_figures_are_what_the_results_say(engine: Engine, shared_data: Path) -> None:
    pictures = held_out(shared_data)
    pixels = np.stack([load(path, size=engine.bundle.size).pixels for path, _, _ in pictures])
    probabilities = np.concatenate([engine.probabilities(block) for block in np.array_split(pixels, 30)])
    truth = np.array([[name in label_of(word).stands_for for name in NAMES] for _, word, _ in pictures])
    lesions = np.unique([lesion for _, _, lesion in pictures], return_inverse=True)[1].astype(np.int64)
    ids = tuple(path.name for path, _, _ in pictures)
    found = evaluate(Scores(ids, NAMES, probabilities, truth, lesions), operating_point=None, resamples=2)
    assert len(pictures) == len(KNOWN["held_out"])
    assert found.figures["melanoma_auc"].value == pytest.approx(KNOWN["melanoma_auc"], abs=0.002)
    assert truth[:, NAMES.index(MELANOMA)].sum() > 50

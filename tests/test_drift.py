"""Drift: a planted change is seen, and where nothing changes the alarm stays quiet at the stated rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from tests.graphs import CLASSES, bundle

from dermalert.bundle.reference import Binned
from dermalert.clinic import drift
from dermalert.clinic.drift import BASELINE, FALSE_ALARMS, WINDOW, DriftWatch, compared, reference_of, shift_of
from dermalert.clinic.schema import Case, Finding, Picture, new_id
from dermalert.clinic.store import Store
from dermalert.drawn.corruptions import corrupted
from dermalert.drawn.lesion import draw_lesion
from dermalert.errors import DataError
from dermalert.score.gate import measure_quality

BUNDLE = bundle()
DIGEST = "d" * 64
START = datetime(2026, 1, 1, tzinfo=UTC)


def findings(
    number: int, random: np.random.Generator, *, score: float = 0.0, light: float = 0.0, turn: float = 0.0
) -> list[Finding]:
    """Made-up findings; `score`, `light` and `turn` move scores, brightness and embedding by sds."""
    made = []
    embeddings = random.normal(size=(number, 20)) + turn * np.linspace(-1, 1, 20)
    for place in range(number):
        logits = random.normal([score, 0, 0])
        shares = np.exp(logits) / np.exp(logits).sum()
        made.append(
            Finding(
                case_id=new_id(),
                bundle="mean colour",
                bundle_digest=DIGEST,
                probabilities=dict(zip(CLASSES, shares.tolist(), strict=True)),
                melanoma=float(shares[0]),
                malignant=float(shares[0]),
                alert="refer" if shares[0] > 0.5 else "none",
                diagnosis=CLASSES[int(shares.argmax())],
                possible=[],
                ood=float(random.gamma(3, 0.1)),
                quality=float(min(1, random.gamma(8, 0.2))),  # 1 for most pictures, as in life
                embedding=embeddings[place].astype("<f2").tobytes(),
                brightness=float(random.normal(140 + 30 * light, 30)),
                sharpness=float(random.gamma(4, 5)),
                contrast=float(random.gamma(9, 3)),
                colour=float(random.beta(4, 6)),
                scored_at=START + timedelta(minutes=place),
            )
        )
    return made


@pytest.mark.parametrize("usual", [BASELINE, 2000], ids=["the site's own", "a bundle's"])
def test_where_nothing_changes_it_is_quiet_at_the_stated_rate(usual: int) -> None:
    random = np.random.default_rng(1)
    windows = 60
    alarms = 0
    for _ in range(windows // 30):
        reference = reference_of(findings(usual, random), BUNDLE)
        alarms += sum(compared("site", reference, BUNDLE, 1, findings(WINDOW, random)).alarm for _ in range(30))
    assert alarms <= stats.binom.ppf(0.9999, windows, FALSE_ALARMS)


def test_p_values_are_never_smaller_than_chance_would_have_them() -> None:
    random = np.random.default_rng(2)
    found = np.array([shift_of("quality", Binned.of(random.random(500)), random.random(200)).p for _ in range(600)])
    for level in (0.2, 0.05, 0.01):
        assert (found <= level).mean() <= level + 3 * math.sqrt(level * (1 - level) / len(found))


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"score": 0.8}, {"melanoma"}),
        ({"light": -0.7}, {"brightness"}),
        ({"turn": 1.0}, {"embedding"}),
    ],
    ids=["scores", "light", "features"],
)
def test_a_planted_change_is_seen_and_named(change: dict[str, float], seen: set[str]) -> None:
    random = np.random.default_rng(3)
    reference = reference_of(findings(BASELINE, random), BUNDLE)
    found = compared("site", reference, BUNDLE, 1, findings(WINDOW, random, **change))
    assert found.alarm
    assert seen <= {shift.name.split()[0] for shift in found.moved}
    if "score" not in change:
        assert not {"melanoma", "malignant", "diagnosis"} & {shift.name for shift in found.moved}


def drawn(first: int, number: int, corruption: str | None = None) -> Iterator[Finding]:
    for seed in range(first, first + number):
        pixels = draw_lesion("nevus" if seed % 3 else "melanoma", np.random.default_rng(seed), width=96, height=96)
        if corruption:
            pixels = corrupted(pixels, corruption, 3, picture=str(seed), seed=seed)
        quality = measure_quality(pixels, 96, 96)
        (made,) = findings(1, np.random.default_rng(seed))
        made.brightness, made.sharpness, made.contrast, made.colour = (
            quality.light,
            quality.sharpness,
            quality.contrast,
            quality.colour,
        )
        yield made


def test_a_camera_that_has_become_blurred_is_seen_in_its_pictures() -> None:
    reference = reference_of(list(drawn(0, 80)), BUNDLE)
    same = compared("site", reference, BUNDLE, 1, list(drawn(1000, 45)))
    blurred = compared("site", reference, BUNDLE, 2, list(drawn(1000, 45, "defocus")))
    assert not same.alarm
    assert blurred.moved[0].name == "sharpness"
    assert blurred.moved[0].size == "large"


def store_with(folder: Path, found: list[Finding], lesions: int | None = None) -> Store:
    store = Store(f"sqlite:///{folder / 'clinic.db'}")
    store.upgrade()
    with store.session() as session:
        for place, finding in enumerate(found):
            sha256 = f"{place:064x}"
            session.add(Picture(sha256=sha256, size=1, stored_at=START))
            lesion = None if lesions is None else str(place % lesions)
            finding.scored_at = START + timedelta(minutes=place)
            session.add(
                Case(
                    id=finding.case_id,
                    sha256=sha256,
                    lesion=lesion,
                    origin="api",
                    uploaded_by="somebody",
                    received_at=START,
                    status="scored",
                    finding=finding,
                )
            )
    return store


def test_a_site_is_compared_with_its_own_first_pictures_window_by_window(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    store = store_with(
        tmp_path, [*findings(BASELINE + WINDOW, random), *findings(WINDOW + 30, random, light=1.0, score=1.0)]
    )
    with store.reading() as session:
        watch = DriftWatch()
        found = watch.look(session, BUNDLE, DIGEST)
        assert watch.look(session, BUNDLE, DIGEST).latest[0] is found.latest[0]  # a window is looked at once
        assert [(each.against, each.window, each.alarm) for each in found.history] == [
            ("site", 1, False),
            ("site", 2, True),
        ]
        assert found.latest == found.history[-1:]
        assert not found.has_reference
        assert found.wanted == 0
        assert DriftWatch().look(session, BUNDLE, "e" * 64).wanted == BASELINE + WINDOW  # of a new bundle


def test_the_bundles_reference_speaks_before_the_site_has_its_own(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    known = bundle(reference=reference_of(findings(1000, random), BUNDLE))
    store = store_with(tmp_path, findings(WINDOW + 30, random, score=1.0))
    with store.reading() as session:
        found = DriftWatch().look(session, known, DIGEST)
        assert [each.against for each in found.latest] == ["bundle"]
        assert found.latest[0].alarm
        assert found.wanted == BASELINE - 30
        assert DriftWatch().look(session, BUNDLE, DIGEST).latest == ()


def test_many_pictures_of_one_lesion_count_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "BASELINE", 100)
    store = store_with(tmp_path, findings(100 + WINDOW, np.random.default_rng(6)), lesions=40)
    with store.reading() as session:
        assert DriftWatch().look(session, BUNDLE, DIGEST).latest[0].pictures == 40


def test_refused_pictures_have_no_score_and_are_compared_by_what_they_have() -> None:
    random = np.random.default_rng(7)
    reference = reference_of(findings(BASELINE, random), BUNDLE)
    window = findings(WINDOW, random)
    for each in window[20:]:
        each.melanoma = each.malignant = each.diagnosis = each.embedding = None
    names = {shift.name for shift in compared("site", reference, BUNDLE, 1, window).shifts}
    assert names == {"ood", "quality", "brightness", "sharpness", "contrast", "colour"}


def test_findings_of_another_model_are_not_compared() -> None:
    random = np.random.default_rng(8)
    reference = reference_of(findings(BASELINE, random), BUNDLE)
    window = findings(WINDOW, random)
    for each in window:
        each.embedding = np.zeros(7, "<f2").tobytes()
    with pytest.raises(DataError, match="another model"):
        compared("site", reference, BUNDLE, 1, window)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=12))
def test_the_stability_index_is_0_for_equal_shares_and_never_below(counts: list[tuple[int, int]]) -> None:
    usual, now = (np.array(column, np.int64) for column in zip(*counts, strict=True))
    assert drift.stability(usual, usual) == pytest.approx(0)
    assert drift.stability(usual, now) >= -1e-12


def counts(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


def test_the_stability_index_is_that_of_the_textbook() -> None:
    big = 1_000_000
    found = drift.stability(big * counts(5, 5), big * counts(3, 7))
    assert found == pytest.approx(-0.2 * math.log(0.6) + 0.2 * math.log(1.4), rel=1e-5)


def test_shares_of_diagnoses_are_tested_with_rare_ones_taken_together() -> None:
    assert drift.shift_of_diagnoses(counts(500, 300, 3, 2), counts(100, 60, 1, 0)).p > 0.9
    assert drift.shift_of_diagnoses(counts(500, 300, 3, 2), counts(60, 100, 1, 0)).p < 1e-6
    assert drift.shift_of_diagnoses(counts(50, 0), counts(70, 0)).p == 1

"""From a model and labelled pictures to its figures on corrupted pictures: `dermalert evaluate --robustness`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dermalert.drawn.corruptions import CORRUPTIONS, SEVERITIES, at_size, corrupted
from dermalert.intake.manifest import Manifest
from dermalert.intake.overlap import in_order
from dermalert.intake.showing import pixels_by_id
from dermalert.judge.robustness import Robustness, robustness
from dermalert.judge.scores import Scores
from dermalert.score.engine import Engine
from dermalert.score.gate import FEATURES, Quality, judge, measure_quality

EDGE = 256  # px of the longer side while a picture is corrupted
BATCH = 32


def judge_robustness(
    engine: Engine,
    manifest: Manifest,
    scores: Scores,
    *,
    pictures: int,
    resamples: int = 1000,
    seed: int = 0,
    workers: int | None = None,
) -> Robustness:
    """Corrupts some of the pictures in every way, scores them, asks the gate where there is one, and compares.

    Args:
        manifest: whose pictures `scores` are of, row by row.
        scores: their labels; their probabilities are not used, as the pictures are scored anew at `EDGE`.
        pictures: at most so many. It takes about a second of one core for each.
        seed: of the choice, the corruptions and the intervals.

    Raises:
        DataError: no picture of a melanoma, or none that is none.
        RefusedFile: a picture cannot be read any more.
    """
    rows = chosen(scores, pictures, seed)
    mask = np.isin(np.arange(len(scores)), rows)
    labelled, ids = scores.where(mask), manifest.where(mask).column("image_id")
    pixels, size = pixels_by_id(manifest.where(mask), edge=EDGE), engine.bundle.size

    def versions(image_id: str) -> tuple[NDArray[np.uint8], list[Quality]]:
        picture = pixels(image_id)
        spoilt = (
            corrupted(picture, name, severity, picture=image_id, seed=seed)
            for name in CORRUPTIONS
            for severity in SEVERITIES
        )
        seen = [at_size(each, size) for each in (picture, *spoilt)]
        return np.stack(seen), [measure_quality(each, picture.shape[1], picture.shape[0]) for each in seen]

    stream = tqdm(in_order(versions, ids, workers), total=len(ids), desc="robustness", unit="picture")
    found = [_judged(engine, *each) for each in stream]
    probabilities, refused = (np.stack(each) for each in zip(*found, strict=True))
    clean = Scores(labelled.image_ids, labelled.classes, probabilities[:, 0], labelled.truth, labelled.groups)
    return robustness(
        clean,
        _by_corruption(probabilities),
        operating_point=engine.bundle.operating_point,
        refused=None if engine.bundle.gate is None else {"": refused[:, :1].T, **_by_corruption(refused)},
        resamples=resamples,
        seed=seed,
    )


def _by_corruption(versions: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Of (M, 1 + 22 * 5, ...), the first without a corruption, to (5, M, ...) by corruption."""
    count, more = len(versions), versions.shape[2:]
    found = versions[:, 1:].reshape(count, len(CORRUPTIONS), len(SEVERITIES), *more)
    return {name: found[:, k].swapaxes(0, 1) for k, name in enumerate(CORRUPTIONS)}


def chosen(scores: Scores, pictures: int, seed: int) -> NDArray[np.int64]:
    """At most `pictures` rows, ascending, half of them melanomas as far as there are any; int64 (M,).

    Pictures whose label leaves open whether they are melanomas are not chosen. The AUC depends on how many there are
    of the rarer kind, and not on how common it is.
    """
    rows = Scores(
        scores.image_ids, scores.classes, scores.probabilities, scores.truth, np.arange(len(scores), dtype=np.int64)
    ).melanoma()
    shuffled = np.random.default_rng(seed).permutation(len(rows.positive))
    melanomas, others = (rows.groups[shuffled[rows.positive[shuffled] == kind]] for kind in (True, False))
    most = max(pictures // 2, pictures - len(others))
    kept = melanomas[:most]
    return np.sort(np.concatenate([kept, others[: pictures - len(kept)]]))


def _judged(
    engine: Engine, pixels: NDArray[np.uint8], qualities: list[Quality]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The probabilities of each picture, and whether the gate refuses it: never, where there is none."""
    gate = engine.bundle.gate
    asked = ("logits",) if gate is None else ("logits", *FEATURES)
    batches = [engine.run(pixels[start : start + BATCH], *asked) for start in range(0, len(pixels), BATCH)]
    outputs = {name: np.concatenate([each[name] for each in batches]) for name in asked}
    accepted = [True] * len(pixels) if gate is None else [each.accepted for each in judge(gate, outputs, qualities)]
    return engine.bundle.calibration.apply(outputs["logits"]), ~np.array(accepted)

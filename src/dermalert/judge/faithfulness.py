"""Faithfulness: whether evidence maps show what the model goes by, and whether that is the lesion.

Comes in: pictures, their maps, a function from pictures to probabilities, masks where there are any. Goes out:
`EvidenceFigures` with intervals over lesions, and the report's section on them. It makes no map.

- Deletion and insertion (Petsiuk, Das and Saenko, "RISE: randomized input sampling for explanation of black-box
  models", BMVC 2018): the mean probability of the diagnosis called while the picture is hidden, or shown, from the
  strongest evidence to the weakest. Beside it the same for maps of noise that are as coarse and as smooth, since an
  order of single pixels by chance leaves no structure whole, which no map can be compared with; and for one blob in the
  middle, where most lesions are: a map that is no better tells nothing that nobody would have guessed.
- The energy-based pointing game (Wang et al., "Score-CAM: score-weighted visual explanations for convolutional neural
  networks", CVPR workshops 2020): the share of the evidence inside the lesion's mask, beside the share of the picture
  that the mask covers, which is what evidence spread at random would have.
- The sanity check (Adebayo et al., NeurIPS 2018): Spearman's rank correlation of each map with that of the same network
  with shuffled weights. Near 1, the picture's edges draw the map and not what the model has learnt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from dermalert import page
from dermalert.judge.intervals import Interval, group_bootstrap_many
from dermalert.judge.wording import Measure, Row, measure

STEPS = 12  # parts in which a picture is hidden or shown

Probability = Callable[[NDArray[np.uint8]], NDArray[np.float64]]


def deletion(
    pixels: NDArray[np.uint8],
    strength: NDArray[np.floating],
    hidden: NDArray[np.uint8],
    probability: Probability,
    *,
    seed: int = 0,
) -> float:
    """The mean probability while the picture is hidden, the strongest evidence first: low where the map is faithful.

    Args:
        pixels: uint8 (H, W, 3).
        strength: float (H, W); equal values come in an order of chance.
        hidden: uint8 (H, W, 3), what stands where the picture is hidden.
        probability: uint8 (N, H, W, 3) to float64 (N,), of the diagnosis in question.
    """
    return _area(probability(_stages(pixels, hidden, strength, seed)))


def insertion(
    pixels: NDArray[np.uint8],
    strength: NDArray[np.floating],
    hidden: NDArray[np.uint8],
    probability: Probability,
    *,
    seed: int = 0,
) -> float:
    """As `deletion`, while the picture is shown out of what hides it: high where the map is faithful."""
    return _area(probability(_stages(hidden, pixels, strength, seed)))


def _stages(
    before: NDArray[np.uint8], after: NDArray[np.uint8], strength: NDArray[np.floating], seed: int
) -> NDArray[np.uint8]:
    """uint8 (STEPS + 1, H, W, 3), from `before` to `after`, the strongest pixels first."""
    by_chance = np.random.default_rng(seed).permutation(strength.size)
    order = by_chance[np.argsort(-strength.ravel()[by_chance], kind="stable")]
    place = np.empty(strength.size, dtype=np.int64)
    place[order] = np.arange(strength.size)
    changed = place.reshape(strength.shape) < (np.linspace(0, strength.size, STEPS + 1))[:, None, None]
    return np.where(changed[..., None], after, before)


def _area(probabilities: NDArray[np.float64]) -> float:
    return float(np.trapezoid(probabilities) / STEPS)


def inside(strength: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """The share of a map's energy, float (H, W) of 0 or more, inside `mask`, bool (H, W).

    NaN for a map without any energy, and for a mask that covers nothing: nothing can be said then.
    """
    energy = float(strength.sum(dtype=np.float64))
    return float(strength[mask].sum(dtype=np.float64)) / energy if energy > 0 and mask.any() else math.nan


def likeness(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Spearman's rank correlation of two maps of one shape; NaN where one is the same everywhere."""
    if not np.ptp(first) or not np.ptp(second):
        return math.nan
    return float(spearmanr(first, second, axis=None).statistic)


@dataclass(frozen=True, eq=False)
class EvidenceChecks:
    """What was found for each picture; all float64 (N,), NaN where it could not be.

    Attributes:
        deletion, insertion, inside: of its map; the last is the share of the evidence inside the lesion's mask.
        deletion_random, insertion_random: of a map of noise; `covered`: share of the picture that the mask covers.
        deletion_centre, insertion_centre, inside_centre: of a blob in the middle.
        likeness: with the map of the network with shuffled weights.
    """

    deletion: NDArray[np.float64]
    deletion_random: NDArray[np.float64]
    deletion_centre: NDArray[np.float64]
    insertion: NDArray[np.float64]
    insertion_random: NDArray[np.float64]
    insertion_centre: NDArray[np.float64]
    inside: NDArray[np.float64]
    covered: NDArray[np.float64]
    inside_centre: NDArray[np.float64]
    likeness: NDArray[np.float64]


_OF_MASKS = ("inside", "covered", "inside_centre")
_DIFFERENCES = {
    "deletion_gain": ("deletion_random", "deletion"),
    "deletion_gain_centre": ("deletion_centre", "deletion"),
    "insertion_gain": ("insertion", "insertion_random"),
    "insertion_gain_centre": ("insertion", "insertion_centre"),
    "inside_gain": ("inside", "covered"),
    "inside_gain_centre": ("inside", "inside_centre"),
}


@dataclass(frozen=True)
class EvidenceFigures:
    """How far the maps of a set of pictures can be believed.

    Attributes:
        method: how the maps were made.
        pictures, masked: looked at, and how many of them have a mask and some evidence to be inside it.
        unchecked: why the sanity check could not be made; empty where it was.
        figures: the means of `EvidenceChecks`, and by how much the map is better, paired: `deletion_gain`,
            `insertion_gain`, `inside_gain` than chance, and with `_centre` than a blob in the middle.
    """

    method: str
    pictures: int
    masked: int
    unchecked: str
    figures: Mapping[str, Interval]

    def to_json(self) -> dict[str, object]:
        """As it stands in `metrics.json`."""
        facts = {name: getattr(self, name) for name in ("method", "pictures", "masked", "unchecked")}
        return facts | {"figures": {name: interval.to_json() for name, interval in self.figures.items()}}


def summarized(
    checks: EvidenceChecks,
    groups: NDArray[np.int64],
    *,
    method: str,
    unchecked: str = "",
    resamples: int = 1000,
    seed: int = 0,
) -> EvidenceFigures:
    """The means over pictures with intervals over lesions.

    What is told of masks is told of the same pictures throughout: of those that have one, and any evidence at all.

    Args:
        groups: int64 (N,), the lesion of each picture.
    """
    columns = {field.name: getattr(checks, field.name) for field in fields(checks)}
    masked = np.isfinite([columns[name] for name in _OF_MASKS]).all(axis=0)
    columns |= {name: np.where(masked, columns[name], np.nan) for name in _OF_MASKS}
    for name, (better, worse) in _DIFFERENCES.items():
        columns[name] = columns[better] - columns[worse]
    values = np.stack(list(columns.values()), axis=1)
    known = np.isfinite(values)
    held = np.where(known, values, 0.0)

    def means(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        total = weights @ known
        mean: NDArray[np.float64] = np.where(total > 0, weights @ held / np.maximum(total, 1), np.nan)
        return mean

    intervals = group_bootstrap_many(means, groups, resamples=resamples, seed=seed)
    figures = dict(zip(columns, intervals, strict=True))
    return EvidenceFigures(method, len(values), int(masked.sum()), unchecked, figures)


def evidence_section(evidence: EvidenceFigures) -> page.Section:
    """The report's section on them."""
    rows = [_row(evidence, *told) for told in _ROWS if told[2] != "inside" or evidence.masked]
    likeness = measure(evidence.figures["likeness"], as_percent=False, bar=False)
    html = page.fragment(
        "judge/evidence.html.j2",
        evidence=evidence,
        rows=rows,
        likeness=likeness,
        verdicts=_verdicts(evidence),
    )
    return page.Section("Do the evidence maps show what the model goes by?", html)


_ROWS = (
    ("Hidden from the strongest on", "probability left; lower is better", "deletion", "deletion_random"),
    (
        "Shown from the strongest on",
        "probability reached; higher is better",
        "insertion",
        "insertion_random",
    ),
    (
        "Evidence inside the lesion",
        "beside the share of the picture that its mask covers",
        "inside",
        "covered",
    ),
)


def _row(evidence: EvidenceFigures, name: str, meaning: str, of_map: str, by_chance: str) -> Row:
    figures = evidence.figures
    cells: list[Measure] = [
        measure(figures[of_map], as_percent=True),
        measure(figures[by_chance], as_percent=True),
        measure(figures[f"{of_map}_gain"], as_percent=True, bar=False),
        measure(figures[f"{of_map}_centre"], as_percent=True),
        measure(figures[f"{of_map}_gain_centre"], as_percent=True, bar=False),
    ]
    return Row(name, meaning, cells)


_GAINS = {
    "deletion_gain": "Hiding the strongest evidence first lowers the probability",
    "insertion_gain": "Showing the strongest evidence first raises the probability",
}
_RIVALS = {"": "an order of chance", "_centre": "a blob in the middle"}


def _verdicts(evidence: EvidenceFigures) -> list[str]:
    """What the intervals allow to say."""
    told = []
    for name, what in _GAINS.items():
        beaten = [rival for end, rival in _RIVALS.items() if evidence.figures[name + end].low > 0]
        if beaten:
            told.append(f"{what} faster than {' or '.join(beaten)}.")
        if unbeaten := [rival for rival in _RIVALS.values() if rival not in beaten]:
            told.append(f"{what} no faster than {' or '.join(unbeaten)}, as far as these pictures tell.")
    return told

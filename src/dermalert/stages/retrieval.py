"""Whether the pictures that `dermalert similar` shows are of the same kind of lesion, asked of lesions held out.

Comes in: the embeddings of a release's photographs and their labels. Goes out: for each of the categories that labels
tell apart, which share of the most similar photographs that the network learnt from have the category of the photograph
asked about, beside the share by chance. Precision at K, as image retrieval has it (Manning, Raghavan and Schütze,
"Introduction to information retrieval", 2008, chapter 8).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.intake.split import group_numbers
from dermalert.judge.conformal import belonging, categories_of
from dermalert.judge.intervals import group_bootstrap
from dermalert.score.engine import Engine
from dermalert.score.similar import embed
from dermalert.stages import judging
from dermalert.stages.gathering import HELD_OUT, Photographs
from dermalert.taxonomy import NAMES

SHOWN = 5  # pictures, as `dermalert similar` shows by default


def alike(engine: Engine, shots: Photographs, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Precision at `SHOWN` by category, as it stands in `metrics.json`.

    Raises:
        BundleError: the graph gives no embedding.
    """
    category = category_of(shots.allowed)
    asked = np.flatnonzero((shots.parts == HELD_OUT) & (category >= 0))
    among = np.flatnonzero((shots.parts != HELD_OUT) & (category >= 0))
    right = precision(
        _embedded(engine, shots, asked), _embedded(engine, shots, among), category[asked], category[among]
    )
    groups, found = group_numbers(shots.manifest)[asked], {}
    for number, name in enumerate(categories_of(NAMES)):
        own = category[asked] == number
        if not own.any():
            continue
        figure = group_bootstrap(partial(_mean, right[own]), groups[own], resamples=resamples, seed=seed)
        found[name] = {
            "pictures": int(own.sum()),
            "alike": figure.to_json(),
            "by_chance": float(np.mean(category[among] == number)),
        }
    return {"shown": SHOWN, "among": len(among), "categories": found}


def category_of(allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """int64 (N,): the place in `categories_of(NAMES)` of the one category that a label allows; -1 if it allows several.

    Args:
        allowed: bool (N, C), columns as `NAMES`.
    """
    may_be = (allowed.astype(np.int64) @ belonging(NAMES, categories_of(NAMES))) > 0
    return np.where(may_be.sum(axis=1) == 1, may_be.argmax(axis=1), -1)


def precision(
    asked: NDArray[np.float32], among: NDArray[np.float32], wanted: NDArray[np.int64], given: NDArray[np.int64]
) -> NDArray[np.float64]:
    """float64 (M,): of the `SHOWN` most similar pictures, the share that has the category asked about.

    Args:
        asked, among: float32 (M, E) and (N, E), of length 1.
        wanted, given: int64 (M,) and (N,), their categories.
    """
    nearest = np.argsort(-(asked @ among.T), axis=1, kind="stable")[:, :SHOWN]
    shares: NDArray[np.float64] = np.mean(given[nearest] == wanted[:, None], axis=1)
    return shares


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> Any:
    return weights @ values / weights.sum(axis=-1)


def _embedded(engine: Engine, shots: Photographs, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    blocks = [rows[start : start + judging.BATCH] for start in range(0, len(rows), judging.BATCH)]
    return np.concatenate([embed(engine, shots.pixels[block]) for block in blocks])

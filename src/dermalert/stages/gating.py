"""Fitting the gate: what dermoscopic pictures, and other things, look like to a finished model.

Comes in: a model's engine, dermoscopic pictures with their sources, and a folder of anything else. Goes out: a `Gate`
and the rates at which it refuses, measured on pictures that it was not fitted on. How a gate judges is told in
`score.gate`.

The danger is a gate that knows three data sets and refuses the fourth. Hence three measures: every picture is also
seen as other cameras would have taken it; the limits are chosen on sources that were left out of the fit, the
strangest of them; and one rate that is told is of such sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from dermalert.bundle.gate import Gate
from dermalert.drawn.corruptions import CORRUPTIONS, at_size, corrupted
from dermalert.drawn.others import OTHERS, draw_other
from dermalert.errors import DataError, RefusedFile
from dermalert.intake.decode import load
from dermalert.intake.overlap import in_order
from dermalert.intake.sources import walk
from dermalert.score.engine import Engine
from dermalert.score.gate import (
    FEATURES,
    Quality,
    distances,
    judge,
    measure_quality,
    other_logits,
)

Floats = NDArray[np.float32]
Names = NDArray[np.str_]

REFUSED = 0.03  # of the altered views of a source that was left out of the fit
FLAGGED = 0.05  # of the same, refused ones included
AXES = 24
FAR = 2.0  # times the distance that few left-out pictures reach: where others are known, a net for what none resembles
PENALTY = 0.1  # C of the logistic regression
MOST = 3000  # pictures of a source that are fitted on
FOLDS = 5
DRAWN = 40  # of each kind of drawn other
_SEEN_AT = (256, 256)  # pixels at which pictures are varied
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Seen:
    """Pictures as a model sees them, a row a picture or view.

    Attributes:
        features: the graph's output that a gate needs: `texture` (N, T).
        qualities: (N,) of the same pixels.
        sources: (N,) where each comes from: a data set, a clinic, a package.
        groups: (N,) what must not be parted by a split: a lesion, a photograph and its crops.
        varied: (N,) whether it is an altered view of the picture.
    """

    features: Mapping[str, Floats]
    qualities: tuple[Quality, ...]
    sources: Names
    groups: Names
    varied: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.qualities)

    def part(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Seen:
        """Those rows."""
        at = np.arange(len(self))[rows]
        features = {name: values[at] for name, values in self.features.items()}
        qualities = tuple(self.qualities[row] for row in at)
        return Seen(features, qualities, self.sources[at], self.groups[at], self.varied[at])


@dataclass(frozen=True)
class Rates:
    """Shares of pictures refused, each picture judged by a gate that was not fitted on it.

    Attributes:
        dermoscopic: by source, unaltered; its lesions were left out of the fit.
        unseen: by source, unaltered; the whole source was left out. Empty where there is but one.
        varied: altered views of them, by source; the whole source was left out.
        others: by source; the whole source was left out. Empty where there are none.
        pictures: how many there were of each, by the same names, unaltered.
    """

    dermoscopic: Mapping[str, float]
    unseen: Mapping[str, float]
    varied: Mapping[str, float]
    others: Mapping[str, float]
    pictures: Mapping[str, int]


def see(
    engine: Engine,
    paths: Sequence[Path],
    sources: Sequence[str],
    groups: Sequence[str],
    *,
    views: int = 1,
    seed: int = 0,
    workers: int | None = None,
) -> Seen:
    """The pictures, each followed by `views` altered views of it: 2,000 a source are enough for a gate.

    Args:
        paths: of pictures that can be read.
        sources, groups: of each path, as in `Seen`.

    Raises:
        RefusedFile: a picture cannot be used.
        BundleError: the graph gives no texture.
    """
    size = engine.bundle.size

    def look(row: int) -> list[tuple[NDArray[np.uint8], Quality]]:
        picture = load(paths[row], size=_SEEN_AT)
        info = picture.info
        rng = np.random.default_rng([seed, row])
        shown = [picture.pixels, *(varied(picture.pixels, rng) for _ in range(views))]
        at_model = [at_size(pixels, size) for pixels in shown]
        return [(pixels, measure_quality(pixels, info.width, info.height)) for pixels in at_model]

    looks = (each for looks in in_order(look, range(len(paths)), workers) for each in looks)
    each = 1 + views
    return _seen(
        engine, looks, np.repeat(sources, each), np.repeat(groups, each), np.arange(len(paths) * each) % each > 0
    )


def see_others(engine: Engine, folder: Path, *, seed: int = 0, workers: int | None = None) -> Seen:
    """The pictures in `folder` that can be read, and drawn ones; a sub-folder is a source.

    Raises:
        DataError: no usable picture in the folder.
        BundleError: the graph gives no texture.
    """
    found = [folder / each for each in walk(folder) if isinstance(each, str)]
    size = engine.bundle.size

    def look(path: Path) -> tuple[str, NDArray[np.uint8], Quality] | None:
        try:
            picture = load(path, size=size)
        except RefusedFile:
            return None
        return (
            path.parent.name,
            picture.pixels,
            measure_quality(picture.pixels, picture.info.width, picture.info.height),
        )

    looked = [each for each in in_order(look, found, workers) if each is not None]
    if not looked:
        raise DataError(f"{folder}: no usable picture there. Give a folder of ordinary photographs, scans and screens.")
    for number, kind in enumerate(OTHERS):
        for each in range(DRAWN):
            pixels = draw_other(kind, np.random.default_rng([seed, number, each]))
            at_model = at_size(pixels, size)
            looked.append(("drawn", at_model, measure_quality(at_model, pixels.shape[1], pixels.shape[0])))
    names = np.array([source for source, _, _ in looked])
    looks = ((pixels, quality) for _, pixels, quality in looked)
    return _seen(engine, looks, names, names, np.zeros(len(names), dtype=bool))


def _seen(
    engine: Engine,
    looks: Iterator[tuple[NDArray[np.uint8], Quality]],
    sources: Names,
    groups: Names,
    varied: NDArray[np.bool_],
) -> Seen:
    found: dict[str, list[Floats]] = {name: [] for name in FEATURES}
    qualities: list[Quality] = []
    while batch := list(islice(looks, _BATCH)):
        outputs = engine.run(np.stack([pixels for pixels, _ in batch]), *FEATURES)
        for name in FEATURES:
            found[name].append(outputs[name])
        qualities.extend(quality for _, quality in batch)
    features = {name: np.concatenate(parts) for name, parts in found.items()}
    return Seen(features, tuple(qualities), sources, groups, varied)


def varied(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture as another camera in other hands might have taken it: a part of it with up to four corruptions."""
    height, width = pixels.shape[:2]
    share = rng.uniform(0.5, 1, 2)
    rows, columns = int(height * share[0]), int(width * share[1])
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    shown = pixels[top : top + rows, left : left + columns]
    names = rng.choice(list(CORRUPTIONS), int(rng.integers(0, 5)), replace=False)
    for name in names.tolist():
        shown = corrupted(shown, name, int(rng.integers(1, 4)), picture="", seed=int(rng.integers(2**31)))
    return np.ascontiguousarray(np.rot90(shown, int(rng.integers(4))))


def fit_gate(dermoscopic: Seen, others: Seen | None, *, seed: int = 0) -> tuple[Gate, Rates]:
    """The gate of these pictures, and how often it refuses.

    Every source weighs as much as any other, and all others together as much as all dermoscopic pictures.

    Args:
        others: None gives a gate that knows only the distance, which refuses less.

    Raises:
        DataError: too few dermoscopic pictures.
    """
    if len(dermoscopic) < 10 * AXES:
        raise DataError(
            f"A gate is fitted on at least {10 * AXES} views of dermoscopic pictures, not {len(dermoscopic)}."
        )
    dermoscopic = _thinned(dermoscopic, np.random.default_rng(seed))
    parts = _parts(dermoscopic)
    raw = [(_raw(dermoscopic.part(~out), others), dermoscopic.part(out)) for out in parts.values()]
    limits = _limits(raw)
    gate = _limited(_raw(dermoscopic, others), limits)
    return gate, _rates(dermoscopic, others, limits, parts, raw)


def _thinned(seen: Seen, rng: np.random.Generator) -> Seen:
    """At most `MOST` rows of a source."""
    kept = [rng.permutation(np.flatnonzero(seen.sources == name))[:MOST] for name in np.unique(seen.sources)]
    return seen.part(np.sort(np.concatenate(kept)))


def _parts(seen: Seen) -> dict[str, NDArray[np.bool_]]:
    """What is left out in turn: each source; of a single one, each fifth of its groups."""
    names = np.unique(seen.sources)
    if len(names) > 1:
        return {str(name): seen.sources == name for name in names}
    return {f"part {number + 1}": out for number, out in enumerate(_folds(seen))}


def _folds(seen: Seen) -> Iterator[NDArray[np.bool_]]:
    for _, rows in GroupKFold(min(FOLDS, len(np.unique(seen.groups)))).split(seen.sources, groups=seen.groups):
        out = np.zeros(len(seen), dtype=bool)
        out[rows] = True
        yield out


@dataclass(frozen=True)
class _Limits:
    distance: tuple[float, float]  # flagged, refused
    logit: tuple[float, float]


def _raw(dermoscopic: Seen, others: Seen | None) -> Gate:
    """The gate before its limits are known: at a distance of 1 and a logit of 0."""
    weights = _evened(dermoscopic.sources)
    texture = dermoscopic.features["texture"].astype(np.float64)
    centre = np.average(texture, axis=0, weights=weights)
    repeated = np.random.default_rng(0).choice(len(weights), len(weights), p=weights / weights.sum())
    model = PCA(min(AXES, texture.shape[1]), svd_solver="covariance_eigh").fit(texture[repeated])
    axes = model.components_ / np.sqrt(np.maximum(model.explained_variance_, 1e-12))[:, None]
    line, bias = _line(dermoscopic, others, weights) if others is not None else (np.zeros(0), 0.0)
    one = np.ones(1, np.float32)
    return Gate(
        centre.astype(np.float32),
        axes.astype(np.float32),
        np.ones(2, np.float32),
        line.astype(np.float32),
        one * np.float32(bias),
        0 * one,
    )


def _line(dermoscopic: Seen, others: Seen, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    features = np.concatenate([each.features["texture"] for each in (dermoscopic, others)]).astype(np.float64)
    weights = np.concatenate([weights / weights.sum(), np.full(len(others), 1 / len(others))]) * len(features) / 2
    centre, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    features -= centre
    features /= deviation
    truth = np.arange(len(features)) >= len(dermoscopic)
    model = LogisticRegression(C=PENALTY, max_iter=300).fit(features, truth, sample_weight=weights)
    line = model.coef_[0] / deviation
    return line, float(model.intercept_[0] - line @ centre)


def _evened(sources: Names) -> NDArray[np.float64]:
    """A weight a row so that all sources weigh alike."""
    _, at, counts = np.unique(sources, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[at])


def _limits(raw: Sequence[tuple[Gate, Seen]]) -> _Limits:
    """Of the left-out parts the strangest decides: at most `REFUSED` of its views are refused, `FLAGGED` flagged.

    The views, if there are any: what is not refused of a known camera's worse pictures is hoped for of a new camera.
    """
    raw = [(gate, out.part(out.varied) if out.varied.any() else out) for gate, out in raw]

    def at(share: float, value: Callable[[Gate, Seen], NDArray[np.float64]]) -> float:
        return max(float(np.quantile(value(gate, out), 1 - share)) for gate, out in raw)

    def distance(gate: Gate, out: Seen) -> NDArray[np.float64]:
        return distances(gate, out.features["texture"])

    def logit(gate: Gate, out: Seen) -> NDArray[np.float64]:
        return other_logits(gate, out.features["texture"])

    if not len(raw[0][0].weights):
        return _Limits((at(FLAGGED, distance), at(REFUSED, distance)), (0.0, 0.0))
    far = at(REFUSED, distance)
    return _Limits((far, FAR * far), (at(FLAGGED, logit), at(REFUSED, logit)))


def _limited(raw: Gate, limits: _Limits) -> Gate:
    flagged, refused = limits.logit
    return Gate(
        raw.centre,
        raw.axes,
        np.array(limits.distance, np.float32),
        raw.weights,
        raw.bias - np.float32(refused),
        np.array([flagged - refused], np.float32),
    )


def _rates(
    dermoscopic: Seen,
    others: Seen | None,
    limits: _Limits,
    parts: Mapping[str, NDArray[np.bool_]],
    raw: Sequence[tuple[Gate, Seen]],
) -> Rates:
    inside = np.zeros(len(dermoscopic), dtype=bool)
    for out in _folds(dermoscopic):
        inside[out] = _refused(_limited(_raw(dermoscopic.part(~out), others), limits), dermoscopic.part(out))
    outside = np.zeros(len(dermoscopic), dtype=bool)
    for out, (gate, left) in zip(parts.values(), raw, strict=True):
        outside[out] = _refused(_limited(gate, limits), left)
    plain = ~dermoscopic.varied
    several = len(np.unique(dermoscopic.sources)) > 1
    counts = _counts(dermoscopic.sources[plain])
    elsewhere: dict[str, float] = {}
    if others is not None:
        strange = np.zeros(len(others), dtype=bool)
        for out in _folds(others):
            strange[out] = _refused(_limited(_raw(dermoscopic, others.part(~out)), limits), others.part(out))
        elsewhere = _shares(strange, others.sources)
        counts |= _counts(others.sources)
    return Rates(
        _shares(inside[plain], dermoscopic.sources[plain]),
        _shares(outside[plain], dermoscopic.sources[plain]) if several else {},
        _shares(outside[~plain], dermoscopic.sources[~plain]),
        elsewhere,
        counts,
    )


def _refused(gate: Gate, seen: Seen) -> NDArray[np.bool_]:
    return np.array([not verdict.accepted for verdict in judge(gate, seen.features, seen.qualities)])


def _shares(refused: NDArray[np.bool_], sources: Names) -> dict[str, float]:
    return {str(name): float(refused[sources == name].mean()) for name in np.unique(sources)}


def _counts(sources: Iterable[str]) -> dict[str, int]:
    names, counts = np.unique(np.asarray(list(sources)), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def told(rates: Rates) -> str:
    """The rates as Markdown, for the model card; other things are told together."""
    named = [
        ("{}, lesions left out of the fit", rates.dermoscopic),
        ("{}, all of it left out", rates.unseen),
        ("{}, all of it left out, altered: cropped and up to four corruptions", rates.varied),
    ]
    rows = [
        (text.format(name), share, rates.pictures[name]) for text, shares in named for name, share in shares.items()
    ]
    if rates.others:
        counts = [rates.pictures[name] for name in rates.others]
        share = float(np.average(list(rates.others.values()), weights=counts))
        rows.append((f"not dermoscopic, {len(counts)} sources, each left out with others", share, sum(counts)))
    return "\n".join(
        [
            "| Pictures | Refused | Of |",
            "|---|---:|---:|",
            *(f"| {what} | {share:.1%} | {n} |" for what, share, n in rows),
        ]
    )

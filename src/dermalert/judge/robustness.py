"""Robustness: what is left of a model's figures on pictures that light, lens, camera or hands have spoilt.

Comes in: the scores of some pictures, the probabilities that the model gave the same pictures with each of
`drawn.corruptions` at five severities, and which of all these the gate refuses. Goes out: a `Robustness`, and the part
of the report that shows it. It spoils no picture and runs no model: `stages.robustness` does.

All figures are computed over the same resampled lesions, so a change is judged against the very pictures it came from.

`robustness` in `metrics.json`, format 1 (a figure is as in `evaluation`):

    format, resamples, seed, pictures, groups, melanomas
    clean                                 figures auc, balanced_accuracy, sensitivity, specificity, refused
    mean_auc                              by severity, 1 to 5: the mean over all corruptions
    corruptions.<name>                    cause, unit, and a list of five: severity, level, the figures, auc_change
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from dermalert import page
from dermalert.drawn.corruptions import CORRUPTIONS, SEVERITIES
from dermalert.errors import DataError
from dermalert.judge import metrics
from dermalert.judge.intervals import Interval, bootstrap_draws, interval_of
from dermalert.judge.metrics import Ranking
from dermalert.judge.operating import OperatingPoint
from dermalert.judge.scores import Scores
from dermalert.judge.wording import Measure, Row, measure

FORMAT_VERSION = 1
AT = 3  # the severity that the table with all figures shows: common in archives
FIGURES = ("auc", "balanced_accuracy", "sensitivity", "specificity", "refused")

Figures = Mapping[str, Interval]


@dataclass(frozen=True)
class Robustness:
    """A model's figures with and without corruptions.

    Attributes:
        pictures, groups, melanomas: pictures, their lesions, and the pictures of melanomas among them.
        clean: the `FIGURES` without a corruption; sensitivity and specificity only where there is an operating point,
            and the share that is refused only where there is a gate. The others are of all pictures, refused or not.
        spoilt: for each corruption, those figures and `auc_change` (from `clean`), at severities 1 to 5.
        mean_auc: the mean over all corruptions, at severities 1 to 5.
    """

    pictures: int
    groups: int
    melanomas: int
    clean: Figures
    spoilt: Mapping[str, tuple[Figures, ...]]
    mean_auc: tuple[Interval, ...]
    resamples: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Plain values only, no NaN; the module's docstring names the parts."""
        return {
            "format": FORMAT_VERSION,
            "resamples": self.resamples,
            "seed": self.seed,
            "pictures": self.pictures,
            "groups": self.groups,
            "melanomas": self.melanomas,
            "clean": _plain(self.clean),
            "mean_auc": [interval.to_json() for interval in self.mean_auc],
            "corruptions": {name: _corruption_json(name, found) for name, found in self.spoilt.items()},
        }


def robustness(
    clean: Scores,
    spoilt: Mapping[str, NDArray[np.float64]],
    *,
    operating_point: OperatingPoint | None,
    refused: Mapping[str, NDArray[np.bool_]] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Robustness:
    """The figures of every corruption and severity, with lesion-bootstrap intervals.

    Args:
        clean: of the pictures as they are.
        spoilt: for each corruption, the probabilities of the same pictures at severities 1 to 5, float64 (5, N, C).
        operating_point: the threshold of sensitivity and specificity; None to judge none.
        refused: for each corruption, which pictures the gate refuses at severities 1 to 5, bool (5, N), and as `""`
            those without a corruption, bool (1, N); None without a gate.

    Raises:
        DataError: no picture of a melanoma, or none that is none; or arrays that do not fit.
    """
    positive = clean.melanoma().positive
    if not positive.any() or positive.all():
        raise DataError(
            "Robustness takes pictures of melanomas and of other lesions; here is one kind alone. Judge without it."
        )
    _check(clean, spoilt, refused)
    threshold = operating_point.threshold if operating_point else None
    lacking = {*(() if operating_point else FIGURES[2:4]), *(() if refused else FIGURES[4:])}
    names = tuple(name for name in FIGURES if name not in lacking)

    def draws(scores: Scores, name: str, severity: int) -> _Draws:
        return _Draws.of(scores, threshold, refused[name][severity] if refused else None, resamples, seed)

    bare = draws(clean, "", 0)
    found = {
        name: [draws(replace(clean, probabilities=each), name, i) for i, each in enumerate(by_severity)]
        for name, by_severity in spoilt.items()
    }
    return Robustness(
        pictures=len(clean),
        groups=len(np.unique(clean.groups)),
        melanomas=int(positive.sum()),
        clean=bare.intervals(names),
        spoilt={
            name: tuple({**one.intervals(names), "auc_change": one.change_from(bare)} for one in by_severity)
            for name, by_severity in found.items()
        },
        mean_auc=tuple(_mean_auc([by_severity[i] for by_severity in found.values()]) for i in range(len(SEVERITIES))),
        resamples=resamples,
        seed=seed,
    )


def _check(
    clean: Scores, spoilt: Mapping[str, NDArray[np.float64]], refused: Mapping[str, NDArray[np.bool_]] | None
) -> None:
    wanted = {"": (1, len(clean)), **{name: (len(SEVERITIES), len(clean)) for name in spoilt}}
    if refused is not None and {name: each.shape for name, each in refused.items()} != wanted:
        raise DataError(f"What the gate refuses, of {', '.join(refused)}, does not fit {len(clean)} pictures.")
    shape = (len(SEVERITIES), *clean.probabilities.shape)
    for name, probabilities in spoilt.items():
        if name not in CORRUPTIONS or probabilities.shape != shape:
            raise DataError(f"Probabilities {probabilities.shape} of the corruption {name!r} do not fit {shape}.")


@dataclass(frozen=True)
class _Draws:
    """Figures (K,), their value in each draw (R, K), and the lesions behind those that are proportions."""

    values: NDArray[np.float64]
    draws: NDArray[np.float64]
    lesions: tuple[int, ...]

    @classmethod
    def of(
        cls, scores: Scores, threshold: float | None, refused: NDArray[np.bool_] | None, resamples: int, seed: int
    ) -> _Draws:
        melanoma = scores.melanoma()
        # A copy whose groups are the row numbers tells which rows the question kept.
        rows = replace(scores, groups=np.arange(len(scores), dtype=np.int64)).melanoma().groups
        ranking = Ranking(melanoma)

        def figures(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            kept = weights[..., rows]
            columns = [ranking.sweep(kept).auc(), metrics.balanced_accuracy(scores, weights)]
            if threshold is not None:
                counts = metrics.at_threshold(melanoma, threshold, kept)
                columns += [counts.sensitivity, counts.specificity]
            if refused is not None:
                columns.append(weights @ refused / weights.sum(axis=-1))
            return np.stack(columns, axis=-1)

        parts = (melanoma.positive, ~melanoma.positive) if threshold is not None else ()
        lesions = [len(np.unique(melanoma.groups[part])) for part in parts]
        lesions += [] if refused is None else [len(np.unique(scores.groups))]
        draws = bootstrap_draws(figures, scores.groups, resamples=resamples, seed=seed)
        return cls(figures(np.ones(len(scores))), draws, (0, 0, *lesions))

    def intervals(self, names: tuple[str, ...]) -> Figures:
        return {
            name: interval_of(float(self.values[k]), self.draws[:, k], self.lesions[k]) for k, name in enumerate(names)
        }

    def change_from(self, clean: _Draws) -> Interval:
        return interval_of(float(self.values[0] - clean.values[0]), self.draws[:, 0] - clean.draws[:, 0])


def _mean_auc(conditions: list[_Draws]) -> Interval:
    value = float(np.mean([one.values[0] for one in conditions]))
    return interval_of(value, np.mean([one.draws[:, 0] for one in conditions], axis=0))


def _plain(figures: Figures) -> dict[str, Any]:
    return {name: interval.to_json() for name, interval in figures.items()}


def _corruption_json(name: str, found: tuple[Figures, ...]) -> dict[str, Any]:
    corruption = CORRUPTIONS[name]
    steps = zip(SEVERITIES, corruption.levels, found, strict=True)
    return {
        "cause": corruption.cause,
        "unit": corruption.unit,
        "severities": [{"severity": s, "level": level, **_plain(figures)} for s, level, figures in steps],
    }


def section(found: Robustness) -> page.Section:
    """The part of a report that shows it: small curves for each corruption, and tables."""
    intervals = [found.clean["auc"], *(each["auc"] for by_severity in found.spoilt.values() for each in by_severity)]
    low = np.floor(20 * min(0.5, *(interval.value for interval in intervals))) / 20
    return page.Section(
        "When the picture is bad",
        page.fragment(
            "judge/robustness.html.j2",
            found=found,
            at=AT,
            charts=[(f"{name}.", _caption(name), _chart(found, name, low)) for name in found.spoilt],
            severities=[f"Severity {severity}" for severity in SEVERITIES],
            by_severity=_auc_rows(found),
            refused=_refused_rows(found),
            columns=_columns(found),
            at_severity=_rows_at(found),
        ),
    )


def _caption(name: str) -> str:
    corruption = CORRUPTIONS[name]
    return (
        f"{corruption.cause.capitalize()}: {', '.join(f'{abs(x):g}' for x in corruption.levels)} ({corruption.unit})."
    )


def _chart(found: Robustness, name: str, low: float) -> Markup:
    aucs = [found.clean["auc"], *(figures["auc"] for figures in found.spoilt[name])]
    ends = [(each.low, each.high) for each in aucs]
    return page.levels(
        [each.value for each in aucs], ends, name=name, level="severity", quantity="melanoma AUC", low=low
    )


def _auc_rows(found: Robustness) -> list[Row]:
    rows = [Row(name, "", [_cell(each["auc"]) for each in by_severity]) for name, by_severity in found.spoilt.items()]
    return [Row("mean of all", "", [_cell(each) for each in found.mean_auc]), *rows]


def _refused_rows(found: Robustness) -> list[Row]:
    if "refused" not in found.clean:
        return []
    return [
        Row(name, "", [measure(each["refused"], as_percent=True) for each in by_severity])
        for name, by_severity in found.spoilt.items()
    ]


def _columns(found: Robustness) -> list[str]:
    shown = (name for name in found.clean if name != "refused")  # which has a table of its own
    return [*(name.replace("_", " ").capitalize().replace("Auc", "AUC") for name in shown), "Change of AUC"]


def _rows_at(found: Robustness) -> list[Row]:
    """At severity `AT`, the lowest AUC first."""
    worst_first = sorted(found.spoilt, key=lambda name: found.spoilt[name][AT - 1]["auc"].value)
    clean = Row("as they are", "", [*_cells(found.clean), Measure("")])
    return [clean, *(_row(name, found.spoilt[name][AT - 1]) for name in worst_first)]


def _row(name: str, figures: Figures) -> Row:
    corruption = CORRUPTIONS[name]
    return Row(
        name,
        f"{corruption.levels[AT - 1]:g} {corruption.unit}",
        [*_cells(figures), measure(figures["auc_change"], as_percent=False, bar=False)],
    )


def _cells(figures: Figures) -> list[Measure]:
    return [_cell(figures[name]) for name in figures if name not in ("auc_change", "refused")]


def _cell(interval: Interval) -> Measure:
    return measure(interval, as_percent=False)

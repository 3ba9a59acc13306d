"""The report: an evaluation as one page that a clinician can read.

Comes in: evaluations, the training's curves and their reading, the data's counts, the worst mistakes.
Goes out: one self-contained HTML file. It computes no figure: every number stands in `metrics.json` too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from dermalert import page
from dermalert.errors import DataError, RefusedFile
from dermalert.judge.evaluation import Evaluation
from dermalert.judge.mistakes import Mistake, Mistakes
from dermalert.judge.wording import class_rows, figure_rows, measure, operating_rows, tiles, warnings
from dermalert.page.page import count, percent

PixelsOf = Callable[[str], NDArray[np.uint8]]

MISTAKE_EDGE = 160
SAMPLE_EDGE = 96


class History(Protocol):
    """A training's figures, one for each epoch, and how long it took in all."""

    @property
    def loss(self) -> Sequence[float]: ...
    @property
    def accuracy(self) -> Sequence[float]: ...
    @property
    def val_loss(self) -> Sequence[float]: ...
    @property
    def val_accuracy(self) -> Sequence[float]: ...


class Diagnosis(Protocol):
    """What the curves say in plain language; `best_epoch` counts from 1, None where there is none."""

    @property
    def verdict(self) -> str: ...
    @property
    def sentences(self) -> Sequence[str]: ...
    @property
    def suggestions(self) -> Sequence[str]: ...
    @property
    def best_epoch(self) -> int | None: ...


@dataclass(frozen=True)
class DataSummary:
    """What the model was trained and judged on.

    Attributes:
        name: of the data set, as its owner calls it.
        counts: `counts[class][split]`, pictures; every class with the same splits in the same order.
        samples: for each class, the image ids of a few pictures to show.
        refused: files that could not be used.
        notes: sentences on what is wrong with the data, from the audit.
    """

    name: str
    counts: Mapping[str, Mapping[str, int]]
    samples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    refused: Sequence[RefusedFile] = ()
    notes: Sequence[str] = ()


def write_report(
    file: Path,
    *,
    title: str,
    evaluations: Mapping[str, Evaluation],
    command: str,
    made: datetime,
    headline: str | None = None,
    history: History | None = None,
    diagnosis: Diagnosis | None = None,
    data: DataSummary | None = None,
    mistakes: Mistakes | None = None,
    mistakes_on: str = "",
    pixels_of: PixelsOf | None = None,
    facts_of: Mapping[str, str] = MappingProxyType({}),
    sections: Sequence[page.Section] = (),
    notes: Sequence[str] = (),
) -> None:
    """Writes the report to `file`.

    Args:
        evaluations: one to four, by the name of the set; they stand side by side in this order.
        command: what the reader types to have this report again.
        made: when; the clock is the caller's.
        headline: the set whose figures stand at the top; the last of `evaluations` where not given.
        mistakes: from `mistakes.worst`, on the set called `mistakes_on`.
        pixels_of: uint8 (H, W, 3) of an image id; asked only for the pictures shown. Without it none is shown.
        facts_of: by image id, what else is known of a picture, to stand below it where it is a mistake.
        sections: what other rooms tell, after the calibration.
        notes: sentences for the last section: what else the reader should know.

    Raises:
        DataError: no evaluation, more than four, or `headline` is none of them.
    """
    if not 1 <= len(evaluations) <= 4:
        raise DataError(f"A report shows one to four evaluations side by side, not {len(evaluations)}.")
    headline = headline or list(evaluations)[-1]
    if headline not in evaluations:
        raise DataError(f"No evaluation is called {headline!r}; there are {', '.join(evaluations)}.")
    html = page.render(
        "judge/report.html.j2",
        title=title,
        command=command,
        made=made,
        evaluations=evaluations,
        level=percent(evaluations[headline].level),
        headline=headline,
        head=evaluations[headline],
        tiles=tiles(evaluations[headline]),
        warnings=warnings(evaluations[headline]),
        operating=operating_rows(evaluations),
        figures=figure_rows(evaluations),
        charts=_charts(evaluations),
        per_class=class_rows(evaluations[headline]),
        history=history,
        diagnosis=diagnosis,
        training=_training_charts(history, diagnosis),
        data=data,
        distribution=page.class_distribution(data.counts) if data else None,
        splits=_splits(data),
        splits_legend=[page.Legend(number, split, filled=True) for number, split in enumerate(_splits(data), start=1)],
        class_counts=[[name, *map(count, parts.values())] for name, parts in data.counts.items()] if data else [],
        refused=[[error.path, error.reason, error.mend] for error in data.refused] if data else [],
        mistakes=mistakes,
        mistakes_on=mistakes_on,
        missed=_gallery(mistakes.missed if mistakes else (), pixels_of, facts_of),
        alarms=_gallery(mistakes.alarms if mistakes else (), pixels_of, facts_of),
        confident=_gallery(mistakes.confident if mistakes else (), pixels_of, facts_of),
        samples=_samples(data, pixels_of),
        sections=[(_anchor(title), title, html) for title, html in sections],
        notes=notes,
    )
    page.write(file, html)


@dataclass(frozen=True)
class _Chart:
    svg: Markup
    heading: str
    caption: str
    legend: Sequence[page.Legend]


def _charts(evaluations: Mapping[str, Evaluation]) -> dict[str, list[_Chart]]:
    """ROC and precision-recall for both questions, and calibration, one series for each evaluation."""
    rates, calibration = [], []
    for question in ("melanoma", "malignant"):
        roc: dict[str, tuple[ArrayLike, ArrayLike]] = {}
        pr: dict[str, tuple[ArrayLike, ArrayLike]] = {}
        for name, evaluation in evaluations.items():
            curves = evaluation.curves[question]
            roc[name] = curves.false_positive_rate, curves.true_positive_rate
            pr[name] = curves.recall, curves.precision
        dot = _operating_dot(evaluations, question)
        rates.append(
            _Chart(
                page.roc(roc, question=question, operating=dot),
                f"ROC, {question}.",
                "Up and to the left is better; on the dotted diagonal is guessing. "
                + ("The round mark is the alert at its threshold, on the last set." if dot else ""),
                _legend(evaluations, f"{question}_auc", "AUC"),
            )
        )
        rates.append(
            _Chart(
                page.precision_recall(pr, question=question),
                f"Precision and recall, {question}.",
                "Up and to the right is better. It depends on how common the diagnosis is in the set.",
                _legend(evaluations, f"{question}_average_precision", "average precision"),
            )
        )
    for key, question, figure in (
        ("melanoma", "melanoma", "melanoma_ece"),
        ("top_class", "the diagnosis called", "ece"),
    ):
        bins = {name: evaluation.reliability[key] for name, evaluation in evaluations.items()}
        legend = _legend(evaluations, figure, "calibration error")
        caption = "Below the diagonal the model is surer than it should be, above it less sure."
        calibration.append(_Chart(page.reliability(bins, question=question), f"Of {question}.", caption, legend))
    return {"rates": rates, "calibration": calibration}


def _operating_dot(evaluations: Mapping[str, Evaluation], question: str) -> tuple[float, float, str] | None:
    at = list(evaluations.values())[-1].operating_point
    if question != "melanoma" or at is None:
        return None
    return 1 - at.specificity.value, at.sensitivity.value, at.chosen.name


def _legend(evaluations: Mapping[str, Evaluation], key: str, what: str) -> list[page.Legend]:
    lines = []
    for number, (name, evaluation) in enumerate(evaluations.items(), start=1):
        figure = measure(evaluation.figures[key], as_percent=False)
        span = f" ({figure.range})" if figure.range else ""
        lines.append(page.Legend(number, f"{name}: {what} {figure.text}{span}"))
    return lines


def _training_charts(history: History | None, diagnosis: Diagnosis | None) -> list[_Chart]:
    if history is None or not history.loss:
        return []
    best = diagnosis.best_epoch if diagnosis else None
    legend = [page.Legend(1, "training"), page.Legend(2, "validation")]
    accuracy = page.curves(history.accuracy, history.val_accuracy, quantity="accuracy", best_epoch=best, fraction=True)
    loss = page.curves(history.loss, history.val_loss, quantity="loss", best_epoch=best)
    return [
        _Chart(accuracy, "Accuracy.", "Higher is better.", legend),
        _Chart(loss, "Loss.", "Lower is better; the weights of the best epoch are kept.", legend),
    ]


def _anchor(title: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", title.lower()))


def _splits(data: DataSummary | None) -> list[str]:
    return list(next(iter(data.counts.values()))) if data and data.counts else []


def _gallery(
    mistakes: Sequence[Mistake], pixels_of: PixelsOf | None, facts_of: Mapping[str, str]
) -> list[page.Picture]:
    return [_shown(mistake, pixels_of, facts_of.get(mistake.image_id, "")) for mistake in mistakes]


def _shown(mistake: Mistake, pixels_of: PixelsOf | None, facts: str) -> page.Picture:
    truth = " or ".join(mistake.truth)
    called = f"called {mistake.called} ({percent(mistake.probability)}); melanoma {percent(mistake.melanoma, 1)}"
    called += f"; {facts}" if facts else ""
    words = {"alt": f"Labelled {truth}, {called}", "caption": truth, "note": called, "name": mistake.image_id}
    return _picture(mistake.image_id, pixels_of, words, edge=MISTAKE_EDGE)


def _samples(data: DataSummary | None, pixels_of: PixelsOf | None) -> list[tuple[str, str, list[page.Picture]]]:
    if data is None or pixels_of is None:
        return []
    return [(name, _pictures_in(data, name), _examples(name, ids, pixels_of)) for name, ids in data.samples.items()]


def _pictures_in(data: DataSummary, name: str) -> str:
    return f"{count(sum(data.counts.get(name, {}).values()))} pictures"


def _examples(name: str, image_ids: Sequence[str], pixels_of: PixelsOf) -> list[page.Picture]:
    return [
        _picture(i, pixels_of, {"alt": f"Example of {name}: {i}"}, edge=SAMPLE_EDGE, square=True) for i in image_ids
    ]


def _picture(
    image_id: str, pixels_of: PixelsOf | None, words: Mapping[str, str], *, edge: int, square: bool = False
) -> page.Picture:
    """The picture, or in its place a sentence on why it cannot be shown: a report is worth having without it."""
    try:
        if pixels_of is not None:
            return page.picture(pixels_of(image_id), edge=edge, square=square, **words)
        why = "no pictures were at hand"
    except RefusedFile as error:
        why = error.reason
    told = {"caption": "", "note": "", "name": "", **words, "alt": f"Picture not shown: {why}"}
    return page.Picture(source="", width=edge, height=edge, **told)

"""The page of a study: what each way of training is worth beside the baseline, in one file that needs no network.

Comes in: a `Study`, and pixels that show what each augmentation does.
Goes out: `study.html` and `study.json`. Every number of the page stands in the JSON too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from dermalert import page
from dermalert.judge.compare import BETTER, UNKNOWN, WORSE
from dermalert.judge.study import VALIDATION, Arm, ArmRun, Compared, Study, ablations, all_views, compared
from dermalert.judge.study_json import study_json
from dermalert.judge.study_tables import (
    classes_by_size,
    cost_rows,
    judged_row,
    leak_rows,
    leak_sentence,
    learned_rows,
    recall_rows,
)
from dermalert.judge.study_words import (
    NAMED,
    ArmRow,
    about,
    arm_rows,
    cautions,
    choice,
    columns,
    delta,
    outcome,
    own_rows,
    tiles,
)
from dermalert.judge.wording import measure
from dermalert.page.page import count, percent

HTML, JSON = "study.html", "study.json"
HEADLINES = ("melanoma_auc", "balanced_accuracy")  # the two that the forests show
SAMPLE_EDGE = 112

Samples = Mapping[str, Sequence[NDArray[np.uint8]]]


def write_study(folder: Path, study: Study, *, samples: Samples, command: str, made: datetime) -> Compared:
    """Writes `study.html` and `study.json` into `folder`, which is made where missing.

    Args:
        samples: for each augmentation the original picture, then what it makes of it; uint8 (H, W, 3). May be empty.
        command: what the reader types to have this study again.
        made: when; the clock is the caller's.

    Returns:
        The comparison that both files show.
    """
    result = compared(study)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(study_json(study, result), indent=1, allow_nan=False) + "\n"
    part = folder / (JSON + ".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    page.write(folder / HTML, study_html(study, result, samples=samples, command=command, made=made))
    part.replace(folder / JSON)
    return result


def study_html(study: Study, made_of: Compared, *, samples: Samples, command: str, made: datetime) -> str:
    """The page as text."""
    head = next((arm.runs[0].evaluations.get(study.headline) for arm in study.done()), None)
    splits = list(next(iter(study.class_counts.values()), {}))
    return page.render(
        "judge/study.html.j2",
        title=f"Ways of training on {study.name}, compared",
        command=command,
        made=made,
        study=study,
        level=percent(study.level),
        head=about(head) if head else "",
        tiles=tiles(study, made_of),
        warnings=cautions(study, made_of),
        outcomes=[(NAMED[figure][0], outcome(study, made_of, study.headline, figure)) for figure in HEADLINES],
        choice=choice(study),
        columns=columns(),
        rows=arm_rows(study, made_of, study.headline),
        others=[(view, arm_rows(study, made_of, view)) for view in study.views if view != study.headline],
        own=own_rows(study, made_of),
        comparisons=_comparisons(study, made_of),
        one_in=round(1 / (1 - study.level)),
        ablations=[_Ablation.of(each) for each in ablations(study)],
        forests=_forests(study, made_of) if study.done() else [],
        panels=_panels(study),
        panel_legend=_panel_legend(study),
        runs_away=_runs_away(study),
        classes=classes_by_size(study),
        learned=learned_rows(study),
        judged=judged_row(study),
        recalls=recall_rows(study),
        distribution=page.class_distribution(study.class_counts) if study.class_counts else None,
        splits=splits,
        splits_legend=[page.Legend(number, split, filled=True) for number, split in enumerate(splits, start=1)],
        class_counts=[[name, *map(count, parts.values())] for name, parts in study.class_counts.items()],
        samples=_samples(samples),
        costs=cost_rows(study),
        leak=leak_rows(study.leak) if study.leak else [],
        leak_sentence=leak_sentence(study.leak) if study.leak else "",
        refused=[[error.path, error.reason, error.mend] for error in study.refused],
        repeated=max((len(arm.runs) for arm in study.arms), default=0) > 1,
    )


def _comparisons(study: Study, made: Compared) -> list[list[str]]:
    """By view: differences made, how many chance alone would let leave 0 out, how many do, how many stand together."""
    rows = []
    for view in all_views(study):
        found = [one for figures in made.differences.get(view, {}).values() for one in figures.values()]
        if found:
            number = made.comparisons(view)
            excluding = sum(one.verdict in (BETTER, WORSE) for one in found)
            standing = sum(one.stands for one in found)
            by_chance = f"{(1 - study.level) * number:.1f}"
            rows.append([view, count(number), by_chance, count(excluding), count(standing)])
    return rows


@dataclass(frozen=True)
class _Ablation:
    """What each addition to one arm does: on validation, where an addition may be chosen."""

    base: str
    view: str
    rows: Sequence[ArmRow]
    number: int

    @classmethod
    def of(cls, study: Study) -> _Ablation:
        made = compared(study)
        view = VALIDATION if VALIDATION in study.views else study.headline
        return cls(study.baseline, view, arm_rows(study, made, view), made.comparisons(view))


@dataclass(frozen=True)
class _Chart:
    svg: Markup
    heading: str
    caption: str


def _forests(study: Study, made: Compared) -> list[_Chart]:
    """For each of `HEADLINES`, the figures with their intervals, and the differences with theirs."""
    charts = []
    for figure in HEADLINES:
        charts += [_levels(study, figure), _differences(study, made, figure)]
    return [chart for chart in charts if chart is not None]


def _levels(study: Study, figure: str) -> _Chart | None:
    name, _, as_percent = NAMED[figure]
    rows = []
    for arm in study.done():
        evaluation = arm.runs[0].evaluations.get(study.headline)
        if evaluation is not None:
            interval = evaluation.figures[figure]
            told = measure(interval, as_percent=as_percent)
            text = f"{told.text} ({told.range})" if told.range else told.text
            style = "s1" if arm.name == study.baseline else "s2"
            rows.append(page.Whisker(arm.name, interval.value, interval.low, interval.high, text, True, style))
    if not rows:
        return None
    reference = next((row.value for row in rows if row.name == study.baseline), math.nan)
    svg = page.forest(rows, title=f"{name} of each arm", quantity=name, reference=reference, percent=as_percent)
    return _Chart(svg, f"{name}.", f"Each arm by itself; the dashed line is {study.baseline}.")


def _differences(study: Study, made: Compared, figure: str) -> _Chart | None:
    name, _, as_percent = NAMED[figure]
    scale = 100 if as_percent else 1
    found = made.differences.get(study.headline, {})
    if not found:
        return None
    rows = []
    for arm in study.done():
        if arm.name == study.baseline:
            rows.append(page.Whisker(arm.name, 0.0, math.nan, math.nan, "the baseline", True, "s1"))
        elif arm.name in found:
            one = found[arm.name][figure]
            told = delta(figure, one)
            ends = (one.interval.value * scale, one.interval.low * scale, one.interval.high * scale)
            text = told.verdict if one.verdict == UNKNOWN else f"{told.text} ({told.range})"
            rows.append(page.Whisker(arm.name, *ends, text, one.verdict in (BETTER, WORSE)))
    quantity = f"{'percentage points' if as_percent else name}, arm minus {study.baseline}"
    svg = page.forest(rows, title=f"{name}: difference from {study.baseline}", quantity=quantity, reference=0.0)
    caption = "Judged in the same draws of lesions. A full mark: the interval leaves 0 out; an empty one: it does not."
    return _Chart(svg, f"{name}, difference from {study.baseline}.", caption)


@dataclass(frozen=True)
class _Panel:
    name: str
    verdict: str
    sentences: Sequence[str]
    suggestions: Sequence[str]
    also: str
    charts: Sequence[Markup]


def _panels(study: Study) -> list[_Panel]:
    """One card an arm: its loss and accuracy on axes shared by all arms, and what its curves say."""
    runs = [arm.runs[0] for arm in study.done()]
    loss = page.Frame.around("loss", _losses(study))
    accuracy = page.Frame.around("accuracy", [run.curves.val_accuracy for run in runs], fraction=True)
    base = study.arm(study.baseline)
    return [_panel(study, arm, base, loss, accuracy) for arm in study.done()]


def _losses(study: Study) -> list[Sequence[float]]:
    return [curve for arm in study.done() for curve in (arm.runs[0].curves.loss, arm.runs[0].curves.val_loss)]


def _runs_away(study: Study) -> bool:
    """Whether a loss leaves the axis that the panels share."""
    top = page.Frame.around("loss", _losses(study)).top
    return any(value > top for curve in _losses(study) for value in curve)


def _panel(study: Study, arm: Arm, base: Arm, loss: page.Frame, accuracy: page.Frame) -> _Panel:
    run, behind = arm.runs[0], base.runs[0].curves if base.runs and base is not arm else None
    shown: dict[str, Any] = {"name": arm.name, "beside_name": study.baseline, "best_epoch": run.cost.best_epoch}
    curves = run.curves
    charts = [
        page.panel(curves.loss, curves.val_loss, loss, beside=behind.val_loss if behind else (), **shown),
        page.panel(
            curves.accuracy, curves.val_accuracy, accuracy, beside=behind.val_accuracy if behind else (), **shown
        ),
    ]
    return _Panel(arm.name, run.verdict, run.sentences, run.suggestions, _also(arm.runs), charts)


def _also(runs: Sequence[ArmRun]) -> str:
    told = [f"seed {run.seed}: {run.verdict}" for run in runs[1:]]
    return f"Repeated with {', '.join(told)}." if told else ""


def _panel_legend(study: Study) -> list[page.Legend]:
    return [
        page.Legend(2, "validation"),
        page.Legend(1, "training"),
        page.Legend(4, f"validation of {study.baseline}, for comparison"),
    ]


def _samples(samples: Samples) -> list[tuple[str, str, list[page.Picture]]]:
    return [
        (name, "the original, then as an epoch sees it", [_sample(name, number, one) for number, one in enumerate(row)])
        for name, row in samples.items()
    ]


def _sample(name: str, number: int, pixels: NDArray[np.uint8]) -> page.Picture:
    alt = "The original picture" if not number else f"The same picture after {name}, version {number}"
    return page.picture(pixels, alt=alt, caption="" if number else "original", edge=SAMPLE_EDGE, square=True)

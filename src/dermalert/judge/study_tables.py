"""Tables of a study that compare nothing: what each arm finds of each diagnosis, what it costs, what a leak promises.

Comes in: a `Study`. Goes out: rows in words. It computes no figure and writes no HTML.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dermalert.judge.evaluation import Evaluation
from dermalert.judge.study import CLEAN_TEST, RAW_TEST, VALIDATION, ArmRun, Leak, Study
from dermalert.judge.study_words import listed
from dermalert.judge.wording import Measure, Row, measure
from dermalert.page.page import count, percent

LEAK_FIGURES = (
    ("accuracy", "accuracy", True),
    ("balanced_accuracy", "balanced accuracy", True),
    ("melanoma_auc", "melanoma AUC", False),
)


@dataclass(frozen=True)
class ByClass:
    """A row with one cell for each diagnosis: counts, or the shares that an arm finds.

    Attributes:
        cells: what is written, and the share that tints the cell; None tints none.
        ratio: of the largest to the smallest count; empty for shares.
    """

    name: str
    meaning: str
    cells: Sequence[tuple[str, float | None]]
    ratio: str = ""


def classes_by_size(study: Study) -> list[str]:
    """The diagnoses that the arms name, those with most training pictures first."""
    known = dict.fromkeys(
        name for arm in study.done() for one in arm.runs[0].evaluations.values() for name in one.classes
    )
    return sorted(known, key=lambda name: -training_pictures(study, name))


def training_pictures(study: Study, name: str) -> int:
    """Pictures of a class in training, before balancing."""
    parts = study.class_counts.get(name, {})
    return parts.get("train", next(iter(parts.values()), 0))


def learned_rows(study: Study) -> list[ByClass]:
    """How many pictures of each diagnosis there are to learn from, before balancing and after, if any arm balances."""
    names = classes_by_size(study)
    before = tuple(training_pictures(study, name) for name in names)
    after: dict[tuple[int, ...], list[str]] = {}
    for arm in study.done():
        if arm.training_counts:
            after.setdefault(tuple(arm.training_counts.get(name, 0) for name in names), []).append(arm.name)
    rows = [_counts("before balancing", "training pictures", before)]
    for counts, arms in after.items():
        if counts != before:
            rows.append(_counts(listed(arms), "pictures that an epoch learns from", counts))
    return rows


def judged_row(study: Study) -> list[ByClass]:
    """How many pictures of each diagnosis the shares on the headline view rest on; empty where nothing was judged."""
    shown = [run.evaluations[study.headline] for run in _first_runs(study)]
    if not shown:
        return []
    pictures = {row.name: row.pictures for row in shown[0].per_class}
    counts = tuple(pictures.get(name, 0) for name in classes_by_size(study))
    return [_counts(study.headline, "pictures that the shares rest on", counts)]


def recall_rows(study: Study) -> list[ByClass]:
    """The share of each diagnosis that each arm names rightly on the headline view."""
    rows = []
    for arm in study.done():
        if study.headline in arm.runs[0].evaluations:
            found = {row.name: row.sensitivity.value for row in arm.runs[0].evaluations[study.headline].per_class}
            values = [found.get(name, math.nan) for name in classes_by_size(study)]
            rows.append(ByClass(arm.name, "", [("–", None) if math.isnan(v) else (percent(v), v) for v in values]))
    return rows


def _counts(name: str, meaning: str, counts: tuple[int, ...]) -> ByClass:
    return ByClass(name, meaning, [(count(number), None) for number in counts], imbalance(counts))


def _first_runs(study: Study) -> list[ArmRun]:
    return [arm.runs[0] for arm in study.done() if study.headline in arm.runs[0].evaluations]


def imbalance(counts: Collection[int]) -> str:
    """The largest class against the smallest: `12 : 1`."""
    present = [number for number in counts if number]
    return f"{max(present) / min(present):.2g} : 1" if present else "–"


def cost_rows(study: Study) -> list[list[str]]:
    """Time, speed, size, memory and epochs of one training, the mean where there are several."""
    rows = []
    for arm in study.done():
        costs = [run.cost for run in arm.runs]
        kept = [cost.best_epoch for cost in costs if cost.best_epoch is not None]
        epochs = f"{_range([cost.epochs for cost in costs])} ({_range(kept) if kept else 'none'})"
        rows.append(
            [
                arm.name,
                duration(_mean([cost.seconds for cost in costs])),
                _rounded(_mean([cost.images_per_second for cost in costs])),
                count(costs[0].parameters),
                _rounded(_mean([cost.peak_mib for cost in costs])),
                epochs,
            ]
        )
    return rows


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def duration(seconds: float) -> str:
    """`3725` as `1 h 2 min`."""
    if not math.isfinite(seconds):
        return "not measured"
    if seconds < 100:
        return f"{seconds:.0f}\N{NO-BREAK SPACE}s"
    minutes = round(seconds / 60)
    text = f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _rounded(value: float) -> str:
    return count(round(value)) if math.isfinite(value) else "not measured"


def leak_rows(leak: Leak) -> list[Row]:
    """What each way of setting validation aside promises, and what the tests say: leaky first, honest second."""
    sides = (leak.leaky, leak.honest)
    rows = [
        Row("Validation accuracy", "what a paper would report", [_figure(s.evaluations.get(VALIDATION)) for s in sides])
    ]
    for view in (RAW_TEST, CLEAN_TEST):
        if any(view in side.evaluations for side in sides):
            rows += [
                Row(f"{view}: {name}", "", [_figure(s.evaluations.get(view), key, as_percent=shown) for s in sides])
                for key, name, shown in LEAK_FIGURES
            ]
    rows += [
        Row("Training pictures", "copies counted", [Measure(count(side.training)) for side in sides]),
        Row("Validation pictures", "copies counted", [Measure(count(side.validation)) for side in sides]),
        Row(
            "Validation pictures known to training",
            "as a copy, an altered copy, or another picture of the lesion",
            [_share(side.siblings, side.validation) for side in sides],
        ),
    ]
    return rows


def leak_sentence(leak: Leak) -> str:
    """How far each way's validation accuracy is from its test accuracy, in points."""
    view = CLEAN_TEST if CLEAN_TEST in leak.leaky.evaluations else RAW_TEST
    leaky, honest = (_gap(side.evaluations, view) for side in (leak.leaky, leak.honest))
    return f"Oversampled first, {leaky}. Lesions parted first, {honest}."


def _gap(evaluations: Mapping[str, Evaluation], view: str) -> str:
    if VALIDATION not in evaluations or view not in evaluations:
        return "validation accuracy cannot be held against a test"
    promised, kept = (evaluations[name].figures["accuracy"].value for name in (VALIDATION, view))
    if math.isnan(promised) or math.isnan(kept):
        return "validation accuracy cannot be held against a test"
    points = round(100 * promised) - round(100 * kept)  # of the figures as they are shown
    more = "more" if points >= 0 else "less"
    return (
        f"validation promises {percent(promised)} accuracy, {abs(points)} points {more} than the {percent(kept)} "
        f"on {view}"
    )


def _figure(evaluation: Evaluation | None, key: str = "accuracy", *, as_percent: bool = True) -> Measure:
    return Measure("not judged") if evaluation is None else measure(evaluation.figures[key], as_percent=as_percent)


def _share(part: int, whole: int) -> Measure:
    return Measure(count(part), f"of {count(whole)}" + (f", {percent(part / whole)}" if whole else ""))

"""Wording of a study: its figures, differences and counts as a reader meets them.

Comes in: a `Study` and what `compared` made of it. Goes out: rows, cells and sentences, rounded and in words.
It computes no figure and writes no HTML.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dermalert.judge.compare import ALIKE, BETTER, FIGURES, UNKNOWN, WORSE, Difference, Spread
from dermalert.judge.evaluation import Evaluation
from dermalert.judge.intervals import Interval
from dermalert.judge.study import DONE, VALIDATION, Arm, ArmRun, Compared, Study, chosen_on_validation
from dermalert.judge.wording import FEW_MELANOMAS, Measure, measure
from dermalert.page.page import count

MINUS = "\N{MINUS SIGN}"
# How a figure is told: name, meaning, whether a percentage.
NAMED = {
    "melanoma_auc": ("Melanoma AUC", "0.5 is guessing, 1 is perfect", False),
    "melanoma_sensitivity_at_90_specificity": ("Melanomas found", "at 90 % specificity", True),
    "balanced_accuracy": ("Balanced accuracy", "rare diagnoses count as much", True),
    "accuracy": ("Accuracy", "flatters large classes", True),
    "ece": ("Calibration error", "lower is better", False),
}


@dataclass(frozen=True)
class Delta:
    """A difference ready to be shown: `text` with its unit, `range`, the verdict in words and a `mark` for the eye.

    `alone` says that a better or worse does not stand beside all the other comparisons.
    """

    text: str
    range: str
    verdict: str
    mark: str = ""
    alone: bool = False
    why: str = ""


@dataclass(frozen=True)
class Cell:
    """One figure of one arm: with its interval, its difference from the baseline, its spread over repeats."""

    measure: Measure
    delta: Delta | None = None
    spread: str = ""


@dataclass(frozen=True)
class ArmRow:
    """One arm in a table; without cells, `why` says why."""

    name: str
    summary: str
    cells: Sequence[Cell] = ()
    why: str = ""
    is_baseline: bool = False


def columns() -> list[tuple[str, str]]:
    """The compared figures' names and meanings, in order."""
    return [NAMED[figure][:2] for figure in FIGURES]


def arm_rows(study: Study, made: Compared, view: str) -> list[ArmRow]:
    """Every arm on a view, whatever became of it."""
    return [_arm_row(study, made, arm, view) for arm in study.arms]


def own_rows(study: Study, made: Compared) -> list[ArmRow]:
    """What arms were judged on besides the shared views: an arm's sources, one row each."""
    return [
        ArmRow(
            f"{arm.name}: {view}",
            about(arm.runs[0].evaluations[view]),
            _cells(made, arm, view),
        )
        for arm in study.done()
        for view in arm.runs[0].evaluations
        if view not in study.views
    ]


def _arm_row(study: Study, made: Compared, arm: Arm, view: str) -> ArmRow:
    is_baseline = arm.name == study.baseline
    if arm.state != DONE:
        return ArmRow(arm.name, arm.summary, why=f"{arm.state}: {arm.why or 'no reason was given'}")
    if view not in arm.runs[0].evaluations:
        return ArmRow(arm.name, arm.summary, why=f"not judged on {view}")
    return ArmRow(
        arm.name, arm.summary, _cells(made, arm, view), made.incomparable[view].get(arm.name, ""), is_baseline
    )


def _cells(made: Compared, arm: Arm, view: str) -> list[Cell]:
    evaluation = arm.runs[0].evaluations[view]
    deltas = made.differences.get(view, {}).get(arm.name, {})
    spreads = made.spreads.get(view, {}).get(arm.name, {})
    return [
        Cell(
            measure(evaluation.figures[figure], as_percent=NAMED[figure][2]),
            delta(figure, deltas[figure]) if figure in deltas else None,
            f"mean {spread_text(figure, spreads[figure])}" if figure in spreads else "",
        )
        for figure in FIGURES
    ]


def about(evaluation: Evaluation) -> str:
    """How much an evaluation rests on."""
    melanomas, _ = evaluation.questions["melanoma"]
    return f"{count(evaluation.pictures)} pictures of {count(evaluation.groups)} lesions, {count(melanomas)} melanomas"


def delta(figure: str, difference: Difference) -> Delta:
    """A difference in words: percentages in points, the rest with three decimals."""
    interval = difference.interval
    if difference.verdict == UNKNOWN:
        return Delta("", "", UNKNOWN, why=interval.why or "")
    span = "no interval"
    if not math.isnan(interval.low):
        span = f"{signed(figure, interval.low)} to {signed(figure, interval.high)}"
    unit = "\N{NO-BREAK SPACE}points" if NAMED[figure][2] else ""
    mark = {BETTER: "▲", WORSE: "▼"}.get(difference.verdict, "")
    alone = bool(mark) and not difference.stands
    return Delta(signed(figure, interval.value) + unit, span, difference.verdict, mark, alone)


def signed(figure: str, value: float) -> str:
    """`0.0412` as `+0.041`, or as `+4.1` for a percentage; a true minus sign."""
    text = f"{100 * value:+.1f}" if NAMED[figure][2] else f"{value:+.3f}"
    return text.replace("-", MINUS) if float(text) else text[1:]


def spread_text(figure: str, spread: Spread) -> str:
    """Mean and standard deviation over repeats: `0.812 ± 0.014`, or in percent."""
    if math.isnan(spread.mean):
        return "cannot be computed"
    if NAMED[figure][2]:
        return f"{100 * spread.mean:.1f} ± {100 * spread.deviation:.1f}\N{NO-BREAK SPACE}%"
    return f"{spread.mean:.3f} ± {spread.deviation:.3f}"


def outcome(study: Study, made: Compared, view: str, figure: str) -> list[str]:
    """Which arms are better, worse or neither on one figure: a sentence each, empty ones left out."""
    base, found = study.baseline, made.differences.get(view, {})
    words = {
        (BETTER, True): f"Better than {base}: ",
        (BETTER, False): f"Better than {base}, but only taken alone: ",
        (WORSE, True): f"Worse than {base}: ",
        (WORSE, False): f"Worse than {base}, but only taken alone: ",
        (ALIKE, False): f"Cannot be told apart from {base}: ",
        (UNKNOWN, False): "Cannot be computed: ",
    }
    arms: dict[tuple[str, bool], list[str]] = {key: [] for key in words}
    for arm, figures in found.items():
        one, told = figures[figure], delta(figure, figures[figure])
        shown = f"{arm} ({told.text}, {told.range})" if one.verdict in (BETTER, WORSE) else arm
        arms[one.verdict, one.stands].append(shown)
    sentences = [words[key] + listed(names) + "." for key, names in arms.items() if names]
    if found and not arms[BETTER, True] and not arms[BETTER, False]:
        sentences.insert(0, f"No arm is better than {base}.")
    return sentences + _over_repeats(made, view, figure)


def _over_repeats(made: Compared, view: str, figure: str) -> list[str]:
    spreads = made.spreads.get(view, {})
    told = [f"{arm} {spread_text(figure, figures[figure])}" for arm, figures in spreads.items()]
    return [f"Over repeated trainings, with the standard deviation: {listed(told)}."] if told else []


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def choice(study: Study) -> str:
    """What a user who looks at validation only would choose, and what it turns out to be worth."""
    arm = chosen_on_validation(study)
    if arm is None:
        return ""
    there = arm.runs[0].evaluations[VALIDATION].figures["melanoma_auc"]
    by_mean = " in the mean of its trainings; the first has" if len(arm.runs) > 1 else ","
    sentence = (
        f"By validation one would choose {arm.name}: its melanoma AUC is the highest there{by_mean} {_spoken(there)}."
    )
    here = arm.runs[0].evaluations.get(study.headline)
    if study.headline == VALIDATION or here is None:
        return sentence
    return f"{sentence} On {study.headline} it is {_spoken(here.figures['melanoma_auc'])}."


def _spoken(interval: Interval) -> str:
    told = measure(interval, as_percent=False)
    return f"{told.text} ({told.range})" if told.range else told.text


def tiles(study: Study, made: Compared) -> list[tuple[str, Measure, str]]:
    """The headline figures of the study: name, figure, meaning."""
    done, all_arms = len(study.done()), len(study.arms)
    told = [("Arms trained", Measure(count(done) if done == all_arms else f"{done} of {all_arms}"), _lost(study))]
    base, chosen = study.arm(study.baseline), chosen_on_validation(study)
    figures = base.runs[0].evaluations.get(study.headline) if base.runs else None
    if figures:
        value = measure(figures.figures["melanoma_auc"], as_percent=False)
        told.append((f"Melanoma AUC, {study.baseline}", value, f"the baseline, on {study.headline}"))
    if chosen is None or chosen.name == study.baseline:
        return told
    told.append(("Chosen on validation", Measure(chosen.name), "highest melanoma AUC there"))
    if study.headline in chosen.runs[0].evaluations:
        value = measure(chosen.runs[0].evaluations[study.headline].figures["melanoma_auc"], as_percent=False)
        one = made.differences.get(study.headline, {}).get(chosen.name, {}).get("melanoma_auc")
        told.append((f"Melanoma AUC, {chosen.name}", value, _beside(study, one)))
    return told


def _beside(study: Study, one: Difference | None) -> str:
    if one is None or one.verdict == UNKNOWN:
        return f"on {study.headline}"
    told = delta("melanoma_auc", one)
    if one.verdict == ALIKE:
        return f"{told.text} from {study.baseline}: cannot be told apart from it"
    return f"{told.text} from {study.baseline}: {told.verdict}" + (", taken alone" if told.alone else "")


def _lost(study: Study) -> str:
    lost = [f"{sum(arm.state == state for arm in study.arms)} {state}" for state in ("failed", "skipped")]
    return ", ".join(words for words in lost if not words.startswith("0 ")) or "all that were asked for"


def cautions(study: Study, made: Compared) -> list[str]:
    """What forbids the reader to believe the figures too readily."""
    found = [f"{arm.name} {_was(arm)}: {arm.why or 'no reason was given'}" for arm in study.arms if arm.state != DONE]
    if study.arm(study.baseline).state != DONE:
        found.append(f"Without {study.baseline} there is nothing to compare with: no difference could be computed.")
    if study.headline == VALIDATION:
        found.append(
            "No test pictures: the figures are those on validation pictures, on which the epoch, the temperature and "
            "the threshold were chosen. They flatter every arm."
        )
    head = next((run.evaluations[study.headline] for run in _first_runs(study, study.headline)), None)
    if head and head.questions["melanoma"][0] < FEW_MELANOMAS:
        found.append(
            f"Few melanomas: {head.questions['melanoma'][0]} on {study.headline}. Only large differences in finding "
            "them can show."
        )
    made_once = [arm.name for arm in study.done() if len(arm.runs) == 1]
    if made_once:
        which = "Every arm was" if len(made_once) == len(study.done()) else f"Trained once: {listed(made_once)}"
        which += " trained once." if which.endswith("was") else "."
        found.append(
            f"{which} The intervals speak of other lesions; how far another seed would have moved a "
            "figure was not measured, and small differences may be nothing else."
        )
    if study.arm(study.baseline).state != DONE:
        return found
    return found + [f"{arm}, {view}: {why}" for view in study.views for arm, why in made.incomparable[view].items()]


def _was(arm: Arm) -> str:
    return "was skipped" if arm.state == "skipped" else "failed"


def _first_runs(study: Study, view: str) -> list[ArmRun]:
    return [arm.runs[0] for arm in study.done() if view in arm.runs[0].evaluations]

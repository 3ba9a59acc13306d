"""`study.json`: a study and its comparison as plain values.

Comes in: a `Study` and what `compared` made of it. Goes out: a dict that is JSON, without NaN and infinity.

Format 1. A figure is `{"value", "low", "high", "level"}`; whatever is unknown is null, with `"why"` beside it. Points
of curves (ROC and the like), confusion matrices and predictions stand in each run's own `metrics.json`.

    format, name, baseline, headline, views, seed, resamples, level
    figures                               the figures that are compared
    comparisons.<view>                    made, excluding_zero, expected_by_chance, standing: how many differences there
                                          are, how many of their intervals leave 0 out, how many of them chance alone
                                          would give, how many remain when all are allowed for together
    chosen_on_validation                  the arm with the highest melanoma AUC on validation, or null
    data.class_counts.<class>.<split>     pictures before balancing
    data.refused[]                        file, reason, mend
    data.notes[]                          sentences
    arms[]                                in the order of the page
      .name, .summary, .state, .why       state: done, failed or skipped
      .changes[]                          what differs from the baseline
      .recipe                             the recipe's own JSON
      .training_counts.<class>            pictures that an epoch learns from
      .differences.<view>.<figure>        the first run minus the baseline's first run: a figure, verdict, stands
      .incomparable.<view>                why there are none
      .spread.<view>.<figure>             over the runs, if several: mean, deviation, n
      .runs[]                             one for each seed, the first is the one compared
        .seed
        .cost                             seconds, images_per_second, parameters, peak_mib, epochs, best_epoch
        .diagnosis                        verdict, sentences, suggestions
        .curves                           loss, accuracy, val_loss, val_accuracy; null where it was no number
        .evaluations.<view>               pictures, groups, exact_labels, figures, recall.<class>, operating_point
    additions.<base>.<view>.<arm>.<figure>  of arms that add one thing to another: the difference from that one
    leak                                  null, or honest and leaky
      .<way>                              training, validation, siblings, evaluations.<view> as above
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from dermalert.judge.compare import ALIKE, FIGURES, UNKNOWN, Difference
from dermalert.judge.evaluation import Evaluation
from dermalert.judge.study import (
    Arm,
    ArmRun,
    Compared,
    Cost,
    LeakSide,
    Study,
    ablations,
    chosen_on_validation,
    compared,
)

FORMAT_VERSION = 1


def study_json(study: Study, made: Compared) -> dict[str, Any]:
    """The content of `study.json`."""
    chosen = chosen_on_validation(study)
    return {
        "format": FORMAT_VERSION,
        "name": study.name,
        "baseline": study.baseline,
        "headline": study.headline,
        "views": list(study.views),
        "seed": study.seed,
        "resamples": study.resamples,
        "level": study.level,
        "figures": list(FIGURES),
        "comparisons": {view: _counted(study, made, view) for view in made.differences},
        "chosen_on_validation": chosen.name if chosen else None,
        "data": {
            "class_counts": {name: dict(parts) for name, parts in study.class_counts.items()},
            "refused": [{"file": one.path, "reason": one.reason, "mend": one.mend} for one in study.refused],
            "notes": list(study.notes),
        },
        "arms": [_arm(arm, made) for arm in study.arms],
        "additions": {each.baseline: _additions(each) for each in ablations(study)},
        "leak": {"honest": _side(study.leak.honest), "leaky": _side(study.leak.leaky)} if study.leak else None,
    }


def _counted(study: Study, made: Compared, view: str) -> dict[str, Any]:
    found = [one for figures in made.differences[view].values() for one in figures.values()]
    return {
        "made": made.comparisons(view),
        "excluding_zero": sum(one.verdict not in (ALIKE, UNKNOWN) for one in found),
        "expected_by_chance": round((1 - study.level) * made.comparisons(view), 6),
        "standing": sum(one.stands for one in found),
    }


def _arm(arm: Arm, made: Compared) -> dict[str, Any]:
    return {
        "name": arm.name,
        "summary": arm.summary,
        "state": arm.state,
        "why": arm.why or None,
        "changes": list(arm.changes),
        "recipe": _parsed(arm.recipe_json),
        "training_counts": dict(arm.training_counts),
        "differences": {v: _differences(arms[arm.name]) for v, arms in made.differences.items() if arm.name in arms},
        "incomparable": {view: arms[arm.name] for view, arms in made.incomparable.items() if arm.name in arms},
        "spread": {
            view: {name: one.to_json() for name, one in arms[arm.name].items()}
            for view, arms in made.spreads.items()
            if arm.name in arms
        },
        "runs": [_run(run) for run in arm.runs],
    }


def _additions(study: Study) -> dict[str, Any]:
    found = compared(study).differences
    return {view: {name: _differences(figures) for name, figures in arms.items()} for view, arms in found.items()}


def _differences(figures: Mapping[str, Difference]) -> dict[str, Any]:
    return {name: one.to_json() for name, one in figures.items()}


def _run(run: ArmRun) -> dict[str, Any]:
    curves = run.curves
    return {
        "seed": run.seed,
        "cost": _cost(run.cost),
        "diagnosis": {
            "verdict": run.verdict,
            "sentences": list(run.sentences),
            "suggestions": list(run.suggestions),
        },
        "curves": {
            "loss": _plain(curves.loss),
            "accuracy": _plain(curves.accuracy),
            "val_loss": _plain(curves.val_loss),
            "val_accuracy": _plain(curves.val_accuracy),
        },
        "evaluations": {view: _evaluation(one) for view, one in run.evaluations.items()},
    }


def _cost(cost: Cost) -> dict[str, Any]:
    measured = {"seconds": cost.seconds, "images_per_second": cost.images_per_second, "peak_mib": cost.peak_mib}
    lost = [name for name, value in measured.items() if not math.isfinite(value)]
    if cost.best_epoch is None:
        lost.append("best_epoch")
    return {
        "seconds": _number(cost.seconds),
        "images_per_second": _number(cost.images_per_second),
        "parameters": cost.parameters,
        "peak_mib": _number(cost.peak_mib),
        "epochs": cost.epochs,
        "best_epoch": cost.best_epoch,
    } | ({"why": f"Not known: {', '.join(lost)}."} if lost else {})


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    whole = evaluation.to_json()
    kept = {name: whole[name] for name in ("pictures", "groups", "exact_labels", "figures")}
    recall = {
        row.name: {"pictures": row.pictures, "groups": row.groups} | row.sensitivity.to_json()
        for row in evaluation.per_class
    }
    return kept | {"recall": recall, "operating_point": whole["operating_point"]}


def _side(side: LeakSide) -> dict[str, Any]:
    return {
        "training": side.training,
        "validation": side.validation,
        "siblings": side.siblings,
        "evaluations": {view: _evaluation(one) for view, one in side.evaluations.items()},
    }


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=str)  # NaN in a recipe would not be JSON
    except ValueError:
        return text


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(values: Iterable[float]) -> list[float | None]:
    return [_number(value) for value in values]

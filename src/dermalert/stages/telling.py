"""What a terminal is told of evaluations and studies: a line or two each, the rest is on the pages."""

from __future__ import annotations

from collections.abc import Mapping

from dermalert.judge.evaluation import Evaluation
from dermalert.judge.study import Study


def summary(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """The headline figures with their 95 % intervals."""
    lines = []
    for name, evaluation in evaluations.items():
        figures = evaluation.figures
        lines.append(
            f"{name}: {evaluation.pictures} pictures; accuracy {figures['accuracy']}; balanced accuracy "
            f"{figures['balanced_accuracy']}; melanoma AUC {figures['melanoma_auc']}"
        )
        if at := evaluation.operating_point:
            lines.append(f"  at the alert threshold: sensitivity {at.sensitivity}, specificity {at.specificity}")
    return lines


def study_summary(study: Study) -> list[str]:
    """A line for each arm: its headline figures, or why there are none."""
    lines = [f"On {study.headline}:"]
    for arm in study.arms:
        if not arm.runs:
            lines.append(f"  {arm.name:<18} {arm.state}: {arm.why}")
            continue
        figures = arm.runs[0].evaluations[study.headline].figures
        lines.append(
            f"  {arm.name:<18} balanced accuracy {figures['balanced_accuracy']}; melanoma AUC {figures['melanoma_auc']}"
        )
    return lines

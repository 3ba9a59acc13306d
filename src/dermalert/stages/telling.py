"""What a terminal is told of evaluations: a line or two each, the rest is in the report."""

from __future__ import annotations

from collections.abc import Mapping

from dermalert.judge.evaluation import Evaluation


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

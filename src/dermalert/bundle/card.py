"""The model card: what a model is for, what it was made from and how well it did (Mitchell et al., "Model cards
for model reporting", FAT* 2019).

Comes in: the facts of a bundle and its evaluations. Goes out: Markdown. It repeats figures and computes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dermalert.judge.evaluation import Evaluation
from dermalert.judge.operating import OperatingPoint

HEADLINES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "melanoma_auc": "melanoma AUC",
    "malignant_auc": "malignant AUC",
    "ece": "expected calibration error",
}


def model_card(
    *,
    name: str,
    classes: tuple[str, ...],
    size: tuple[int, int],
    temperature: float,
    operating_point: OperatingPoint | None,
    evaluations: Mapping[str, Evaluation],
    data: Mapping[str, Any],
    versions: Mapping[str, str],
) -> str:
    """The card as Markdown."""
    parts = [
        f"# Model card: {name}",
        "**Research software. It supports a clinician and decides nothing alone. Not a medical device.** "
        "“No alert” does not mean that a lesion is benign.",
        "## Use\nRanks dermoscopic pictures by the probability of melanoma, for research and for teaching. "
        "Not for clinical photographs, not for pictures of mucosa or nails, not for a decision without a clinician.",
        f"## Model\nPictures are squashed to {size[0]}×{size[1]} px, RGB in [0, 255]; {len(classes)} classes: "
        f"{', '.join(classes)}. Temperature {temperature:.3f}, fitted on validation pictures.",
        _alert(operating_point),
        _data(data),
        _figures(evaluations),
        "## Limits\nTrained and judged on one collection. Figures on other cameras, clinics and skin tones will be "
        "lower; how much, this card does not know. Validation figures chose the epoch, the temperature and the "
        "threshold and are therefore a little flattering.",
        "## Made with\n" + "\n".join(f"- {library} {version}" for library, version in sorted(versions.items())),
    ]
    return "\n\n".join(parts) + "\n"


def _alert(point: OperatingPoint | None) -> str:
    if point is None:
        return "## Alerts\nNone: validation held too few melanomas to choose a threshold. Scores carry no alert."
    return (
        f"## Alerts\n`refer` from a melanoma probability of {point.threshold:.4f}: the operating point “{point.name}”, "
        f"chosen on {point.positives} melanomas and {point.negatives} other validation pictures for a sensitivity of "
        f"at least {point.target:.0%}. There it reached a sensitivity of {point.sensitivity} at a specificity of "
        f"{point.specificity} (95 % intervals)."
    )


def _data(data: Mapping[str, Any]) -> str:
    lines = [f"- {key.replace('_', ' ')}: {value}" for key, value in data.items()]
    return "## Data\n" + "\n".join(lines)


def _figures(evaluations: Mapping[str, Evaluation]) -> str:
    header = "| figure (95 % interval) | " + " | ".join(f"{n} (n={e.pictures})" for n, e in evaluations.items()) + " |"
    rule = "|---" * (len(evaluations) + 1) + "|"
    rows = [
        f"| {title} | " + " | ".join(str(e.figures[key]) for e in evaluations.values()) + " |"
        for key, title in HEADLINES.items()
    ]
    return "\n".join(["## Figures", header, rule, *rows])

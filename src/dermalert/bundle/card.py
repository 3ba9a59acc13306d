"""The model card: what a model is for, what it was made from and how well it did (Mitchell et al., "Model cards
for model reporting", FAT* 2019).

Comes in: a bundle, and evaluations of it. Goes out: Markdown, below the YAML that the Hugging Face Hub reads: such a
card is the README.md of a repository there as it stands. It repeats figures and computes none, besides the predictive
values that sensitivity and specificity give at a prevalence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from dermalert.bundle import licences, wording
from dermalert.bundle.format import Bundle
from dermalert.errors import printable
from dermalert.judge.evaluation import Evaluation
from dermalert.judge.intervals import Interval
from dermalert.judge.operating import PREVALENCES, OperatingPoint, predictive_values
from dermalert.page.page import percent

NOT_MEASURED = "Not measured when this card was written. `dermalert evaluate` does, on labelled pictures."


class _Headline(NamedTuple):
    key: str
    title: str
    metric: str  # as the Hugging Face Hub calls it


HEADLINES = (
    _Headline("melanoma_auc", "melanoma AUC", "roc_auc"),
    _Headline("malignant_auc", "malignant AUC", "roc_auc"),
    _Headline("macro_auc", "mean class AUC", "roc_auc"),
    _Headline("balanced_accuracy", "balanced accuracy", "recall"),  # mean of the classes' recalls
    _Headline("accuracy", "accuracy", "accuracy"),
    _Headline("melanoma_average_precision", "melanoma average precision", "average_precision"),
    _Headline("ece", "calibration error", "expected_calibration_error"),
    _Headline("melanoma_ece", "melanoma calibration error", "expected_calibration_error"),
)


def model_card(
    bundle: Bundle,
    evaluations: Mapping[str, Evaluation],
    *,
    subgroups: str = NOT_MEASURED,
    robustness: str = NOT_MEASURED,
    gate: str = NOT_MEASURED,
    held_out: Sequence[OperatingPoint] = (),
    sets: str = NOT_MEASURED,
    explanations: str = NOT_MEASURED,
    limits: Sequence[str] = (),
    compute: str = "",
) -> str:
    """The card as Markdown with YAML front matter.

    Args:
        evaluations: by the name of the set.
        held_out: the bundle's own operating points, and what they do on lesions that nothing was fitted on.
        subgroups, robustness, gate, sets, explanations: Markdown on what was found of each.
        limits: sentences on what is known to go wrong, besides what holds for every model.
        compute: what the training took: machine, hours, energy if metered.
    """
    sections = {
        "Use": _use(),
        "Licences": _licences(bundle),
        "Model": _model(bundle),
        "Data": _data(bundle),
        "Figures": _figures(evaluations),
        "Calibration": _calibration(bundle),
        "Alerts": _alerts(bundle, held_out),
        "Diagnoses left open": _sets(bundle, sets),
        "Subgroups": subgroups,
        "Robustness": robustness,
        "The gate": gate,
        "Explanations": explanations,
        "Limits": _listed([*limits, *_LIMITS]),
        "Compute": compute or "Not told.",
        "Made with": _listed(f"{library} {version}" for library, version in sorted(bundle.versions.items())),
    }
    text = [f"# Model card: {printable(bundle.name)}", _WARNING]
    text += [f"## {heading}\n\n{content}" for heading, content in sections.items()]
    return front_matter(bundle, evaluations) + "\n" + "\n\n".join(text) + "\n"


def front_matter(bundle: Bundle, evaluations: Mapping[str, Evaluation]) -> str:
    """The YAML that the Hugging Face Hub reads, between its two lines of dashes.

    Values are written as JSON, which YAML 1.2 contains, so that no name can break out of its place.
    """
    lines = [
        "---",
        f"license: {_plain(bundle.licence.lower().replace(' ', '-') or 'unknown')}",
        "language: en",
        "library_name: onnx",
        "pipeline_tag: image-classification",
        f"tags: {_plain(['dermalert', 'dermoscopy', 'melanoma', 'skin-cancer', 'medical', 'onnx'])}",
        f"metrics: {_plain(sorted({headline.metric for headline in HEADLINES}))}",
        "model-index:",
        f"- name: {_plain(bundle.name)}",
        "  results:",
    ]
    for name, evaluation in evaluations.items():
        lines += [
            "  - task: {type: image-classification, name: diagnosis of dermoscopic pictures}",
            f"    dataset: {_plain({'type': 'dermoscopy', 'name': name})}",
            "    metrics:",
            *(f"    - {_plain(metric)}" for metric in _metrics(evaluation)),
        ]
    return "\n".join([*lines, "---"]) + "\n"


def text_of(card: str) -> str:
    """A card without its front matter."""
    _, dashes, rest = card.partition("---\n")[2].partition("\n---\n")
    return rest.lstrip("\n") if card.startswith("---\n") and dashes else card


def _metrics(evaluation: Evaluation) -> list[dict[str, Any]]:
    found = []
    for key, title, metric in HEADLINES:
        figure = evaluation.figures[key]
        if not math.isnan(figure.value):
            told = f"{title}, {figure.level:.0%} interval {figure.low:.3f} to {figure.high:.3f}"
            name = title if math.isnan(figure.low) or math.isnan(figure.high) else told
            found.append({"type": metric, "name": name, "value": round(figure.value, 4)})
    return found


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


_WARNING = (
    "**Research software. It supports a clinician and decides nothing alone. Not a medical device.** “No alert” does "
    "not mean that a lesion is benign."
)
_LIMITS = (
    "Figures on other cameras, clinics and skin tones will be lower. Most public dermoscopic pictures are of light "
    "skin: of dark skin little can be said.",
    "A probability holds at the prevalence that the model was calibrated at. Collections hold far more melanomas than "
    "a clinic sees: give `--prevalence`.",
    "Only the diagnoses listed are known to it; it will call any other lesion one of them.",
    "Pictures that chose the epoch, the calibration or the thresholds flatter the figures a little.",
)


def _use() -> str:
    return (
        "**For** research and teaching: ranks dermoscopic pictures of single skin lesions by the probability of "
        "melanoma, and names the most probable diagnosis, for a clinician who sees the patient.\n\n**Not for** "
        "clinical (close-up or overview) photographs, mucosa, nails, or several lesions in one picture; not for "
        "decisions without a clinician, nor by patients about themselves; not to send anybody home: melanomas are "
        "missed at every threshold."
    )


def _licences(bundle: Bundle) -> str:
    lines = [f"Code: {licences.CODE}."]
    if bundle.licence:
        lines.append(f"Weights: **{printable(bundle.licence)}**, whatever the licence of the code.")
    else:
        lines.append("Weights: whoever trained them states no licence. That of the pictures may bind them.")
    if "NC" in bundle.licence:
        lines.append("The weights, and what is made from them, are for non-commercial use only.")
    told = " ".join(lines)
    if bundle.attribution:
        told += " Whoever passes them on names:\n\n" + _listed(map(printable, bundle.attribution))
    return told


def _model(bundle: Bundle) -> str:
    width, height = bundle.size
    lines = [
        f"An ONNX graph of {len(bundle.model) / 1e6:.1f} MB. In go pictures squashed to {width}×{height} px, RGB in "
        f"[0, 255]. {wording.in_graph(bundle)} Out come {len(bundle.classes)} diagnoses: {', '.join(bundle.classes)}.",
        wording.never_named(bundle),
        "A gate refuses pictures that cannot be judged." if bundle.gate else "It has no gate: it scores any picture.",
    ]
    return " ".join(filter(None, lines))


def _sets(bundle: Bundle, found: str) -> str:
    if not bundle.conformal:
        return "None: scores come without."
    return (
        "With each score goes the set of diagnoses left open. It was made to hold the true one for at least "
        f"{bundle.conformal.coverage:.0%} of the pictures of each kind, if they are like those that it was fitted on, "
        f"and it holds melanoma wherever the default operating point says “refer”.\n\n{found}"
    )


def _data(bundle: Bundle) -> str:
    return _listed(f"{key.replace('_', ' ')}: {printable(str(value))}" for key, value in bundle.data.items())


def _figures(evaluations: Mapping[str, Evaluation]) -> str:
    if not evaluations:
        return NOT_MEASURED
    sets = [f"{_cell(name)} (n={each.pictures}, {each.groups} lesions)" for name, each in evaluations.items()]
    rows = [[title, *(str(each.figures[key]) for each in evaluations.values())] for key, title, _ in HEADLINES]
    return "n counts pictures; 95 % intervals over lesions.\n\n" + _table(["figure", *sets], rows)


def _calibration(bundle: Bundle) -> str:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in bundle.prevalence.items())
    biased = "with a bias for each class" if any(bundle.calibration.bias) else "with no bias"
    return (
        f"Temperature {bundle.calibration.temperature:.3f}, {biased}. {wording.choices(bundle)} Among the pictures "
        f"that it was fitted on: {shares}. The calibration errors are among the figures above."
    )


def _alerts(bundle: Bundle, held_out: Sequence[OperatingPoint]) -> str:
    points = bundle.operating_points
    if not points:
        return "None: there were too few melanomas to choose a threshold on. Scores carry no alert."
    by = f"{bundle.data['folds']} networks, out of fold" if wording.is_release(bundle) else "the pictures chosen on"
    rows = [_judged(point, by) for point in points] + [_judged(point, "this one, held out") for point in held_out]
    header = ["operating point", "`refer` from", "judged", "sensitivity", "specificity", "melanomas / others, pictures"]
    told = held_out or points
    values = [[_cell(point.name), f"{share:.0%}", *map(str, _values(point, share))] for point, share in _at(told)]
    where = "on lesions held out from everything" if held_out else "where the thresholds were chosen"
    return (
        "The first is the default. Where a threshold was chosen its figures flatter a little (95 % intervals):\n\n"
        f"{_table(header, rows)}\n\nWhat an alert then means depends on how common melanoma is where the model is "
        f"used; by Bayes' rule, from sensitivity and specificity {where}:\n\n"
        + _table(
            ["operating point", "prevalence", "melanomas among “refer” (PPV)", "others among “no alert” (NPV)"], values
        )
    )


def _judged(point: OperatingPoint, where: str) -> list[str]:
    counted = f"{point.positives} / {point.negatives}"
    rates = [str(point.sensitivity), str(point.specificity)]
    return [_cell(point.name), f"{point.threshold:.4f}", where, *rates, counted]


def _at(points: Sequence[OperatingPoint]) -> list[tuple[OperatingPoint, float]]:
    return [(point, share) for point in points for share in PREVALENCES]


def _values(point: OperatingPoint, prevalence: float) -> tuple[str, str]:
    ppv, npv = predictive_values(point, prevalence)
    return _percent(ppv), _percent(npv)


def _percent(figure: Interval) -> str:
    told = percent(figure.value, 1)
    if math.isnan(figure.low) or math.isnan(figure.high):
        return told
    return f"{told} ({percent(figure.low, 1)} to {percent(figure.high, 1)})"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _cell(text: str) -> str:
    """A name inside a table, which a bar would part."""
    return printable(text).replace("|", "\\|")

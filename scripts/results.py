"""Writes docs/results.md from what a release and the evaluation of its held-out lesions measured.

    dermalert release isic9/ --pool ham10000/ --pool isic2017/ --others photographs/ --out runs/release
    dermalert evaluate runs/release/bundle runs/release/manifest.parquet --out runs/held-out \
        --robustness 300 --masks ham10000/masks
    python scripts/ablation.py runs/release --out runs/ablation --lite0 lite0.npz --lite2 lite2.npz \
        --masks ham10000/masks
    python scripts/results.py runs/release runs/held-out docs/ablation.json > docs/results.md

`docs/ablation.json` is of the form that `scripts/ablation.py` writes. Most of what is in the repository was read back
out of the table that its run of 24 November 2026 made, rounded as there, since the run's own file was not kept; the
last arms are of a run of 28 November, whose base came out the same. No figure is typed by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Told = Mapping[str, Any]
RATES = ("Sensitivity", "Specificity")


def main(run: Path, held_out: Path, tried: Path) -> None:
    release, judged = (json.loads((folder / "metrics.json").read_text()) for folder in (run, held_out))
    bundle = json.loads((run / "bundle" / "bundle.json").read_text())
    parts = [
        INTRODUCTION,
        out_of_fold(release),
        held_out_figures(release),
        shortcut(release),
        calibration(release),
        operating_points(bundle, judged["scrutiny"]),
        conformal(judged["scrutiny"]["conformal"]),
        gate(release["gate"]),
        robustness(judged["robustness"]),
        evidence(judged["evidence"]),
        similar(release["similar"]),
        subgroups(judged["scrutiny"]["subgroups"]),
        ablation(json.loads(tried.read_text())),
        WHERE_THE_REST_IS,
    ]
    print("\n\n".join(part.strip() for part in parts))


INTRODUCTION = """
# Results of the model that ships

Made by `scripts/results.py` from the runs named in its head; [How it is made](release.md) tells how. Figures with 95 %
intervals over lesions. Folds part lesions, never pictures; calibration, thresholds and conformal sets were fitted out
of fold. A tenth of the lesions is held out: nothing was fitted on them. They were looked at twice for the first model,
since the first look showed that the calibration had to be carried over, once for the one with colour constancy, and
once for this one, whose network is a student of the five folds'. Neither of these two was chosen by it; but that the
first model's five ranked better together than the mean of their weights was a reason to try a student: [decision
9](decisions/0009-the-model-that-ships.md#one-network-of-five).
"""

WHERE_THE_REST_IS = """
## Speed, precision and what was tried

Latency, size and the loss by shrinking: [decision 8](decisions/0008-shipped-precision.md), and
`python benchmarks/latency.py`. What was tried and did not help, and what was not tried:
[decision 9](decisions/0009-the-model-that-ships.md).
"""


def out_of_fold(release: Told) -> str:
    views = [name for name in release["evaluations"] if name.startswith("out of fold")]
    aims = {"melanoma_auc": "0.95", "macro_auc": "0.97", "even_balanced_accuracy": "0.78"}
    rows = [
        ["melanoma AUC", aims["melanoma_auc"], *(figure(release, view, "melanoma_auc") for view in views)],
        ["malignant AUC", "", *(figure(release, view, "malignant_auc") for view in views)],
        ["mean AUC of seven categories", aims["macro_auc"], *(seven(release, view, "macro_auc") for view in views)],
        [
            "balanced accuracy, seven categories equally common",
            aims["even_balanced_accuracy"],
            *(seven(release, view, "even_balanced_accuracy") for view in views),
        ],
        [
            "balanced accuracy of the likeliest category",
            "",
            *(seven(release, view, "balanced_accuracy") for view in views),
        ],
        ["accuracy of the likeliest category", "", *(seven(release, view, "accuracy") for view in views)],
    ]
    counts = [f"{view} ({release['evaluations'][view]['pictures']} pictures)" for view in views]
    return "## Out of fold\n\nEvery photograph by the network that did not learn from its lesion.\n\n" + table(
        ["Figure", "Aim", *counts], rows
    )


def held_out_figures(release: Told) -> str:
    views = [name for name in release["evaluations"] if name.startswith(("held out", "test of"))]
    rows = [
        [
            view,
            str(release["evaluations"][view]["pictures"]),
            figure(release, view, "melanoma_auc"),
            seven(release, view, "macro_auc"),
            seven(release, view, "even_balanced_accuracy"),
            at_point(release, view, "sensitivity"),
            at_point(release, view, "specificity"),
        ]
        for view in views
    ]
    head = ["Set", "Pictures", "Melanoma AUC", "Mean AUC", "Balanced accuracy", "Sensitivity", "Specificity"]
    text = (
        "## Held out, by the bundle that ships\n\nLesions that nothing was fitted on: a tenth of all, and the "
        "nine-class set's own test folder. Sensitivity and specificity at the operating point `screening`.\n\n"
    )
    return text + table(head, rows)


def shortcut(release: Told) -> str:
    views = [name for name in release["evaluations"] if name.endswith("never seen")]
    rows = [
        [
            f"{view.removesuffix(', never seen')}: nothing of it learnt from",
            figure(release, view, "melanoma_auc"),
            figure(release, f"out of fold, {view.removesuffix(', never seen')}", "melanoma_auc"),
        ]
        for view in views
    ]
    told = ", ".join(f"{name} {auc:.2f}" for name, auc in release["sources"].items())
    return (
        "## The shortcut\n\nA model can know the camera instead of the lesion. Melanoma AUC on a collection by a "
        "network that learnt from none of it, beside that by networks that learnt from its other lesions:\n\n"
        + table(["Collection", "Never seen", "Out of fold"], rows)
        + f"\n\nHow well the collection is told from the shipped network's features, within one diagnosis (AUC of a "
        f"logistic regression; 0.5 would be not at all): {told}."
    )


def calibration(release: Told) -> str:
    views = list(release["evaluations"])
    rows = [[view, figure(release, view, "ece"), figure(release, view, "melanoma_ece")] for view in views]
    return (
        "## Calibration\n\nExpected calibration error, aim 0.02 out of fold. Where it was fitted it flatters; the "
        "other rows are at other prevalences than it was fitted at.\n\n"
        + table(["Set", "Likeliest class", "Melanoma"], rows)
    )


def operating_points(bundle: Told, scrutiny: Told) -> str:
    found = {point["name"]: point for point in scrutiny["operating_points"]}
    shown = [each["prevalence"] for each in next(iter(found.values()))["at_prevalence"]]
    rows, meant = [], []
    for chosen in bundle["operating_points"]:
        point = found[chosen["name"]]
        rates = [interval(judged[rate]) for judged in (chosen, point) for rate in ("sensitivity", "specificity")]
        rows.append([chosen["name"], f"{chosen['threshold']:.4f}", *rates])
        values = {
            each["prevalence"]: f"{percent(each['ppv'])} / {percent(each['npv'], 2)}" for each in point["at_prevalence"]
        }
        meant.append([chosen["name"], *(values[prevalence] for prevalence in shown)])
    head = ["Point", "Threshold", *(f"{rate}, {on}" for on in ("out of fold", "held out") for rate in RATES)]
    return (
        "## Operating points\n\nChosen out of fold, on what five networks say of lesions that they did not learn from; "
        "held out, by the one that ships.\n\n"
        + table(head, rows)
        + "\n\nPPV and NPV at stated prevalences by Bayes' rule, from sensitivity and specificity held out.\n\n"
        + table(["Point", *(f"PPV / NPV at {prevalence:.1%}" for prevalence in shown)], meant)
    )


def conformal(told: Told) -> str:
    rows = [
        [name, str(each["lesions"]), interval(each["covered"]), f"{each['size']:.2f}"]
        for name, each in told["categories"].items()
    ]
    text = f"## Conformal sets\n\nOn the held-out lesions; {told['promised']:.0%} was promised of each category.\n\n"
    return text + table(["Category", "Lesions", "Coverage", "Mean size of the set"], rows)


def gate(rates: Told) -> str:
    kinds = {
        "dermoscopic": "dermoscopic, {}: lesions left out of the fit",
        "unseen": "dermoscopic, {}: the whole collection left out",
        "varied": "dermoscopic, {}: altered views, the whole collection left out",
        "others": "not dermoscopic, {}: the whole source left out",
    }
    rows = [
        [text.format(name), str(rates["pictures"][name]), f"{share:.1%}"]
        for kind, text in kinds.items()
        for name, share in rates[kind].items()
    ]
    rows += [
        [f"dermoscopic, {name}: held out from everything", str(each["pictures"]), f"{each['refused']:.1%}"]
        for name, each in rates["held_out"].items()
    ]
    return "## The gate\n\n" + table(["Pictures", "Number", "Refused"], rows)


def robustness(told: Told) -> str:
    rows = [
        [name, *(f"{each['auc']['value']:.3f}" for each in found["severities"])]
        for name, found in told["corruptions"].items()
    ]
    clean = interval(told["clean"]["auc"])
    text = (
        f"## Robustness\n\nMelanoma AUC of {told['pictures']} held-out pictures at five severities; clean: {clean}.\n\n"
    )
    return text + table(["Corruption", "1", "2", "3", "4", "5"], rows) + refused(told)


def refused(told: Told) -> str:
    if "refused" not in told["clean"]:
        return ""
    rows = [
        [name, *(f"{each['refused']['value']:.1%}" for each in found["severities"])]
        for name, found in told["corruptions"].items()
    ]
    clean = interval(told["clean"]["refused"])
    text = f"\n\nWhat share of them the gate refuses, so that a better picture is taken; clean: {clean}.\n\n"
    return text + table(["Corruption", "1", "2", "3", "4", "5"], rows)


def evidence(told: Told) -> str:
    rows = [[name.replace("_", " "), interval(each)] for name, each in told["figures"].items()]
    text = (
        f"## Evidence maps\n\n{told['pictures']} held-out pictures, {told['masked']} of them with a lesion mask and "
        "some evidence to be inside it. The maps are of each picture's likeliest diagnosis, a nevus for most; those of "
        "melanoma, which `dermalert explain` draws unless told otherwise, were not checked by themselves.\n\n"
    )
    return text + table(["Figure", "Mean"], rows)


def similar(told: Told) -> str:
    rows = [
        [name, str(each["pictures"]), interval(each["alike"]), f"{each['by_chance']:.3f}"]
        for name, each in told["categories"].items()
    ]
    text = (
        f"## Similar cases\n\nOf the {told['shown']} photographs that `dermalert similar` would show for a held-out "
        f"one, among {told['among']} that were learnt from: the share of the same category, beside that of any "
        "photographs.\n\n"
    )
    return text + table(["Category", "Pictures", "Alike", "By chance"], rows)


def subgroups(told: Told) -> str:
    rows = [
        [
            f"{fact}: {name}",
            str(each["lesions"]),
            str(each["melanomas"]),
            *(interval(each[key]) for key in ("auc", "sensitivity", "specificity")),
        ]
        for fact, facet in told.items()
        for name, each in facet["groups"].items()
        if each["judged"]
    ]
    text = "## Subgroups\n\nOf the held-out lesions; groups too small to judge are in the report.\n\n"
    return text + table(["Group", "Lesions", "Melanomas", "Melanoma AUC", "Sensitivity", "Specificity"], rows)


def ablation(arms: Told) -> str:
    base, *others = arms
    views = list(arms[base]["melanoma_auc"])
    epochs = {each["epochs"] for each in arms.values()}
    rows = [
        [
            arms[name]["words"],
            *(
                interval(arms[base]["melanoma_auc"][view]) if name == base else moved(arms[name], view)
                for view in views
            ),
            f"{arms[name]['macro_auc']:.3f}",
        ]
        for name in (base, *others)
    ]
    return (
        "## One change at a time\n\n"
        "The release's recipe without its colour constancy, which is an arm like others, and one change of it an arm. "
        f"`scripts/ablation.py`: {' or '.join(map(str, sorted(epochs)))} epochs, one seed, three networks an arm: one "
        "without fold 1, and one without each collection. Melanoma AUC with its interval over lesions; below the first "
        "row, the paired difference from it with its interval. So short a training ranks arms only roughly. The last "
        "column is the mean AUC of seven categories on fold 1. The held-out tenth has no part in it.\n\n"
        + table(["Arm", *views, "seven categories"], rows)
    )


def moved(arm: Told, view: str) -> str:
    told = arm["difference"][view]
    ends = f" ({told['low']:+.3f} to {told['high']:+.3f})" if told["low"] is not None else ""
    return f"{arm['melanoma_auc'][view]['value']:.3f}: {told['value']:+.3f}{ends}"


def figure(release: Told, view: str, key: str) -> str:
    return interval(release["evaluations"][view]["figures"][key])


def seven(release: Told, view: str, key: str) -> str:
    return interval(release["seven_categories"][view][key])


def at_point(release: Told, view: str, key: str) -> str:
    return interval(release["evaluations"][view]["operating_point"][key])


def interval(told: Told) -> str:
    if told["value"] is None:
        return "not to be told"
    ends = "" if told["low"] is None else f" ({told['low']:.3f} to {told['high']:.3f})"
    return f"{told['value']:.3f}{ends}"


def percent(told: Told, digits: int = 1) -> str:
    return "not to be told" if told["value"] is None else f"{told['value']:.{digits}%}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

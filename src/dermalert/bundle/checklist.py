"""Reporting checklists: what a paper on a model should tell, filled in where the run knows it.

Comes in: a bundle, its evaluation and the data's counts. Goes out: `Checklist`s for CLAIM 2024 (A. S. Tejani et al.,
Radiology: Artificial Intelligence 6(4):e240300, 2024) and TRIPOD+AI (G. S. Collins et al., BMJ 385:e078378, 2024), as
Markdown. The items are put in our own words; the guidelines tell what each asks for.

An answer says only what was computed or is so by the way Dermalert works. Where somebody must answer who knows the
patients, the clinic or the study, the line stays open (`OPEN`), also after what the run could add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dermalert.bundle import licences, wording
from dermalert.bundle.format import Bundle
from dermalert.errors import printable
from dermalert.judge.evaluation import Evaluation
from dermalert.judge.faithfulness import EvidenceFigures
from dermalert.judge.report import DataSummary
from dermalert.judge.robustness import Robustness
from dermalert.judge.scrutiny import Scrutiny

OPEN = "— to be filled by the authors"
_HASHES = ("fingerprint", "content")  # of the training data: for machines to compare


@dataclass(frozen=True)
class Run:
    """What a run knows of itself.

    Attributes:
        evaluations: by the name of the set; the last is the one that the report puts first.
        data: what the model was judged on.
        scrutiny, maps: of the last of the evaluations; `maps` are what was found of its evidence maps.
        command: what has these figures again.
        characteristics: a sentence on the patients' age, sex and body sites; empty where nothing is known.
        robustness: None where it was not measured.
    """

    bundle: Bundle
    evaluations: Mapping[str, Evaluation]
    data: DataSummary
    scrutiny: Scrutiny
    maps: EvidenceFigures
    command: str
    characteristics: str = ""
    robustness: Robustness | None = None


class Item(NamedTuple):
    """One item of a checklist: its number, what it asks for, and what the run answers."""

    number: str
    asks: str
    answer: str

    @property
    def open(self) -> bool:
        """Whether somebody must still answer, or add to the answer."""
        return OPEN in self.answer


@dataclass(frozen=True)
class Checklist:
    """A guideline's items by its sections, answered.

    Attributes:
        name: of the guideline.
        reference: where it was published.
        sections: heading and items, in the guideline's order.
    """

    name: str
    reference: str
    sections: Sequence[tuple[str, Sequence[Item]]]

    @property
    def items(self) -> list[Item]:
        return [item for _, items in self.sections for item in items]

    def markdown(self) -> str:
        """The checklist as a document to go on writing in."""
        lines = [f"# {self.name}", f"{self.reference} {self.summary()}"]
        for heading, items in self.sections:
            lines.append(f"## {heading}")
            lines += [f"**{item.number}. {item.asks}**  \n{item.answer}" for item in items]
        return "\n\n".join(lines) + "\n"

    def summary(self) -> str:
        """How much is left to do."""
        left = sum(item.open for item in self.items)
        return f"{len(self.items) - left} of {len(self.items)} items are filled from the run, {left} wait for authors."


def checklists(run: Run) -> tuple[Checklist, Checklist]:
    """CLAIM 2024 and TRIPOD+AI for a run."""
    answers = {key: answer or OPEN for key, answer in _answers(run).items()}
    claim = "A. S. Tejani et al., Radiology: Artificial Intelligence 6(4):e240300, 2024."
    tripod = "G. S. Collins et al., BMJ 385:e078378, 2024."
    return (
        Checklist("CLAIM 2024", claim, _answered(_CLAIM, answers)),
        Checklist("TRIPOD+AI", tripod, _answered(_TRIPOD, answers)),
    )


def _answered(
    sections: Mapping[str, Sequence[tuple[str, str, str]]], answers: Mapping[str, str]
) -> list[tuple[str, list[Item]]]:
    return [
        (heading, [Item(number, asks, answers[key] if key else OPEN) for number, asks, key in items])
        for heading, items in sections.items()
    ]


# Each item: its number, what it asks for in our words, and the answer below that it takes; "" where only a person can.
_CLAIM: dict[str, list[tuple[str, str, str]]] = {
    "Title and abstract": [
        ("1", "The title or abstract names the AI technology", "technology"),
        ("2", "The abstract sums up design, methods, results and conclusions", "abstract"),
    ],
    "Introduction": [
        ("3", "Background; intended use and role of the AI", "use"),
        ("4", "Aims, objectives and hypotheses", ""),
    ],
    "Methods: study design": [
        ("5", "Prospective or retrospective", ""),
        ("6", "Goal of the study", ""),
    ],
    "Methods: data": [
        ("7", "Sources of the data", "sources"),
        ("8", "Which cases were included and excluded", "eligibility"),
        ("9", "Preprocessing", "preprocessing"),
        ("10", "Selection of subsets of the data", "subsets"),
        ("11", "De-identification", "deidentification"),
        ("12", "How missing data were handled", "missing"),
        ("13", "How the images were acquired", ""),
    ],
    "Methods: reference standard": [
        ("14", "How the reference standard was obtained", "reference"),
        ("15", "Why this reference standard", ""),
        ("16", "Who annotated, and with what qualification", ""),
        ("17", "How the test set was annotated", "reference"),
        ("18", "Variability within and between raters", ""),
    ],
    "Methods: partitions and sample size": [
        ("19", "How data were assigned to partitions", "partitions"),
        ("20", "The level at which partitions are disjoint", "disjoint"),
        ("21", "Intended sample size, and how it was determined", "size"),
    ],
    "Methods: model": [
        ("22", "Description of the model: input, output, structure", "model"),
        ("23", "Software libraries", "software"),
        ("24", "How parameters were initialised", "recipe"),
    ],
    "Methods: training": [
        ("25", "How the model was trained", "recipe"),
        ("26", "How the final model was selected", "selection"),
        ("27", "Ensembling", "ensemble"),
    ],
    "Methods: evaluation": [
        ("28", "Metrics of performance", "metrics"),
        ("29", "Statistical significance and uncertainty", "uncertainty"),
        ("30", "Robustness and sensitivity analysis", "robustness"),
        ("31", "Explainability or interpretability", "explanation"),
        ("32", "Testing on internal data", "internal"),
        ("33", "Testing on external data", "internal"),
        ("34", "Registration of a clinical trial", ""),
    ],
    "Results": [
        ("35", "Numbers of patients or examinations included and excluded", "flow"),
        ("36", "Demographic and clinical characteristics of each partition", "characteristics"),
        ("37", "Performance with its uncertainty", "performance"),
        ("38", "Diagnostic performance and its precision", "diagnostic"),
        ("39", "Analysis of the cases that the model got wrong", "failures"),
    ],
    "Discussion": [
        ("40", "Limitations", "limitations"),
        ("41", "Implications for practice", ""),
    ],
    "Other information": [
        ("42", "Full protocol or further technical details", ""),
        ("43", "Availability of software, model and data", "availability"),
        ("44", "Funding and other support; role of the funders", ""),
    ],
}

_TRIPOD: dict[str, list[tuple[str, str, str]]] = {
    "Title and abstract": [
        ("1", "The title tells development or evaluation, target population and outcome", "technology"),
        ("2", "The abstract, by TRIPOD+AI for Abstracts", "abstract"),
    ],
    "Introduction": [
        ("3a", "Healthcare context and rationale, with existing models", ""),
        ("3b", "Target population, purpose in the care pathway, intended users", "use"),
        ("3c", "Known health inequalities between groups", ""),
        ("4", "Objectives: development, evaluation, or both", ""),
    ],
    "Methods": [
        ("5a", "Sources of the data for development and evaluation", "sources"),
        ("5b", "Dates of the data", ""),
        ("6a", "Setting, number and location of centres", ""),
        ("6b", "Eligibility of participants", "eligibility"),
        ("6c", "Treatments received", ""),
        ("7", "Data preparation and quality checks", "preprocessing"),
        ("8a", "The outcome, and how and when it was assessed", "reference"),
        ("8b", "Who assessed the outcome, where that takes judgement", ""),
        ("8c", "Blinding of the assessment", ""),
        ("9a", "Choice of the predictors", "predictors"),
        ("9b", "Definition of the predictors, how and when measured", "predictors"),
        ("9c", "Who assessed the predictors, where that takes judgement", "predictors"),
        ("10", "Sample size, and how it was determined", "size"),
        ("11", "Missing data", "missing"),
        ("12a", "How the data were used and parted", "partitions"),
        ("12b", "How predictors were handled", "preprocessing"),
        ("12c", "Type of model, building steps, tuning, internal validation", "recipe"),
        ("12d", "Differences between clusters such as hospitals or countries", "subgroups"),
        ("12e", "Measures and plots of performance", "metrics"),
        ("12f", "Updating of the model after its evaluation", "updating"),
        ("12g", "How predictions were computed in the evaluation", "computed"),
        ("13", "Class imbalance: methods, and recalibration after them", "imbalance"),
        ("14", "Fairness: approaches and rationale", "subgroups"),
        ("15", "Output of the model, and how thresholds were chosen", "output"),
        ("16", "Differences between development and evaluation data", "internal"),
        ("17", "Ethical approval and consent", ""),
    ],
    "Open science": [
        ("18a", "Funding", ""),
        ("18b", "Conflicts of interest", ""),
        ("18c", "Protocol", ""),
        ("18d", "Registration", ""),
        ("18e", "Data sharing", ""),
        ("18f", "Code sharing", "availability"),
    ],
    "Patient and public involvement": [("19", "How patients and the public were involved", "")],
    "Results": [
        ("20a", "Flow of participants", "flow"),
        ("20b", "Characteristics of participants, by source", "characteristics"),
        ("20c", "How the evaluation data compare with the development data", ""),
        ("21", "Participants and outcome events in each analysis", "flow"),
        ("22", "The full model, so that others can use and evaluate it", "availability"),
        ("23a", "Performance with intervals, also of key subgroups", "performance_and_subgroups"),
        ("23b", "Differences in performance between clusters", "subgroups"),
        ("24", "Results of updating the model", "updating"),
    ],
    "Discussion": [
        ("25", "Interpretation, with fairness, beside earlier studies", ""),
        ("26", "Limitations", "limitations"),
        ("27a", "How poor or missing input is to be handled in use", "poor_input"),
        ("27b", "What users must do, and the expertise it takes", "users"),
        ("27c", "Next steps; applicability and generalisability", ""),
    ],
}


def _answers(run: Run) -> dict[str, str]:
    return {**_study(run), **_data(run), **_model(run), **_results(run)}


def _study(run: Run) -> dict[str, str]:
    return {
        "technology": "Deep learning: an image classifier that gives each dermoscopic picture a probability for each "
        f"of {len(run.bundle.classes)} diagnoses, melanoma among them. The wording of the title: {OPEN}.",
        "abstract": f"Its figures: {_performance(run)} The rest: {OPEN}.",
        "use": "The software ranks dermoscopic pictures of skin lesions by the probability of melanoma, for research "
        f"and teaching; it supports a clinician and decides nothing alone. Background, population and pathway: {OPEN}.",
        "availability": _availability(run.bundle),
        "limitations": "Figures hold for pictures like these; other cameras, clinics, skin tones and body sites were "
        f"not tested here. Predictive values depend on how common melanoma is. Further: {OPEN}.",
        "users": "A dermoscopic picture of one lesion is given to the software; no other input is asked for. Expertise "
        f"and interaction in the clinic: {OPEN}.",
    }


def _data(run: Run) -> dict[str, str]:
    bundle, data = run.bundle, run.data
    told = printable(
        "; ".join(f"{key.replace('_', ' ')} {bundle.data[key]}" for key in bundle.data if key not in _HASHES)
    )
    width, height = bundle.size
    doubtful = len(run.evaluations) > 1
    return {
        "sources": f"Trained on: {told}. Judged on: {printable(data.name)}. Owners, dates and centres: {OPEN}.",
        "eligibility": f"Judged were all pictures of {data.name} with a diagnosis that could be read. "
        f"Eligibility of patients: {OPEN}.",
        "preprocessing": f"Each picture is turned upright, squashed to {width}×{height} px (bicubic), RGB in [0, 255]. "
        f"{wording.in_graph(bundle)} Files are checked for damage, copies and contradictory labels by an audit.",
        "subsets": f"The sets judged: {', '.join(run.evaluations)}."
        + (" One of them leaves out what the audit holds to be doubtful." if doubtful else ""),
        "deidentification": "Pictures in the report are made anew from their pixels, without metadata. "
        f"De-identification of the data: {OPEN}.",
        "missing": "Pictures without a diagnosis are not judged, and a label that leaves several diagnoses open counts "
        "only where it decides the question. Patient data are no input of the model, so none were imputed.",
        "reference": "The diagnosis that the data's owner gives, as `given_label` in predictions.csv, and the audit's "
        f"resolution of contradictions beside it. How it was established: {OPEN}.",
        "disjoint": "Lesion and patient, where the data name them, and groups of copies of a picture.",
        "partitions": "By lesions, at random within diagnoses, unless the data came with a split of their own. "
        f"{told[:1].upper()}{told[1:]}.",
        "size": f"{_counts(run)} Justification: {OPEN}.",
        "flow": f"{_counts(run)} {len(data.refused)} files could not be read. Patients: {OPEN}.",
        "characteristics": f"{run.characteristics} Further: {OPEN}." if run.characteristics else "",
        "predictors": "The pixels of one dermoscopic picture. No measurement, and no data of the patient.",
    }


def _model(run: Run) -> dict[str, str]:
    bundle = run.bundle
    width, height = bundle.size
    points = "; ".join(f"{p.name}: {p.positives} melanomas, {p.negatives} others" for p in bundle.operating_points)
    return {
        "model": f"{bundle.name}: an ONNX graph of {len(bundle.model) / 1e6:.1f} MB from {width}×{height} px RGB to "
        f"{len(bundle.classes)} diagnoses ({', '.join(bundle.classes)}), then calibration (temperature "
        f"{bundle.calibration.temperature:.3f}) and softmax. {wording.never_named(bundle)} Layers: in model.onnx.",
        "software": ", ".join(f"{library} {version}" for library, version in sorted(bundle.versions.items())) + ".",
        "recipe": f"All settings stand in recipe.json of the training run. In words: {OPEN}.",
        "selection": f"{wording.choices(bundle)} "
        + (f"Pictures that thresholds were chosen on: {points}." if points else "There is no threshold."),
        "ensemble": f"One graph gives the score. It was made of {bundle.data['folds']}, each of which learnt from all "
        "lesions but a fold of them and those held out."
        if wording.is_release(bundle)
        else f"One graph gives the score. Whether it was distilled from or merged of several: {OPEN}.",
        "output": "A calibrated probability of each diagnosis; “refer” from a melanoma probability of "
        + "; ".join(f"{point.threshold:.4f} ({point.name})" for point in bundle.operating_points)
        + ", chosen on other pictures than these."
        if bundle.operating_points
        else "A calibrated probability of each diagnosis, without a threshold.",
        "imbalance": "AUC and balanced accuracy do not depend on the classes' shares; calibration was "
        f"fitted at {bundle.prevalence.get('melanoma', 0.0):.1%} melanomas. In training: {OPEN}.",
        "updating": "None: weights, calibration and thresholds are those of the bundle.",
        "poor_input": "A gate refuses pictures that cannot be judged, with a reason."
        if bundle.gate
        else f"Files that cannot be read are refused; this model has no gate for poor pictures. {OPEN}.",
    }


def _results(run: Run) -> dict[str, str]:
    head = list(run.evaluations.values())[-1]
    subgroups, decisions = _subgroups(run.scrutiny), run.scrutiny.decisions
    performance = _performance(run)
    return {
        "metrics": "AUC, average precision, sensitivity, specificity, predictive values, balanced accuracy, F1, log "
        "loss, Brier score and calibration error"
        + (", and the net benefit of acting on the score" if decisions else "")
        + "; curves in report.html.",
        "uncertainty": f"{head.level:.0%} intervals: bootstrap over lesions, {head.resamples} resamples, "
        f"seed {head.seed}. No hypothesis was tested.",
        "robustness": _robustness(run.robustness) if run.robustness else "",
        "explanation": _explanation(run.maps) if run.maps.pictures else "",
        "subgroups": f"{subgroups} Hospitals and countries: {OPEN}.",
        "internal": f"Trained on {run.bundle.data.get('source', 'data not named')}, judged on {run.data.name}. It is "
        "made sure that this is not the training set itself. Whether it shares pictures or lesions with it (`dermalert "
        f"audit --against` tells), and is of another clinic, camera and population: {OPEN}.",
        "computed": f"`{printable(run.command)}`",
        "performance": performance,
        "performance_and_subgroups": f"{performance} {subgroups}",
        "diagnostic": _diagnostic(head),
        "failures": "The worst mistakes are shown in report.html, the confusion matrix beside them. What they have in "
        f"common: {OPEN}.",
    }


def _counts(run: Run) -> str:
    told = []
    for name, each in run.evaluations.items():
        melanomas, others = each.questions["melanoma"]
        told.append(
            f"{name}: {each.pictures} pictures of {each.groups} lesions, {melanomas} of melanomas and {others} of "
            "other lesions"
        )
    return "; ".join(told) + "."


def _performance(run: Run) -> str:
    return (
        "; ".join(
            f"{name}: melanoma AUC {each.figures['melanoma_auc']}, balanced accuracy "
            f"{each.figures['balanced_accuracy']}, calibration error {each.figures['ece']}"
            for name, each in run.evaluations.items()
        )
        + "."
    )


def _subgroups(scrutiny: Scrutiny) -> str:
    """Which groups were told apart, and how far the best and the worst of them part."""
    gaps = [
        f"{facet.name}: {facet.gaps['auc'].difference} ({facet.gaps['auc'].best} above {facet.gaps['auc'].worst})"
        for facet in scrutiny.facets
        if "auc" in facet.gaps
    ]
    by = ", ".join(facet.name for facet in scrutiny.facets)
    found = f"Gaps in melanoma AUC: {'; '.join(gaps)}." if gaps else "Too few pictures to judge any two groups."
    return f"By {by}, in report.html. {found}"


def _robustness(found: Robustness) -> str:
    means = ", ".join(map(str, found.mean_auc))
    return (
        f"{len(found.spoilt)} corruptions on {found.pictures} pictures of {found.groups} lesions: melanoma AUC "
        f"{found.clean['auc']} without; the mean over them at severities 1 to 5: {means}. Each in report.html."
    )


def _explanation(maps: EvidenceFigures) -> str:
    figures = maps.figures
    return (
        f"Evidence maps ({maps.method}), checked on {maps.pictures} pictures: hiding the strongest evidence first "
        f"lowers the mean probability by {figures['deletion_gain']} more than hiding at random; rank correlation with "
        f"the maps of a network of shuffled weights: {figures['likeness']}. In report.html."
    )


def _diagnostic(head: Evaluation) -> str:
    at = head.operating_point
    if at is None:
        return "There is no threshold to judge sensitivity and specificity at; the curves are in report.html."
    return (
        f"At “{at.chosen.name}”: sensitivity {at.sensitivity}, specificity {at.specificity}, positive predictive value "
        f"{at.ppv}, negative {at.npv}."
    )


def _availability(bundle: Bundle) -> str:
    weights = f"weights under {bundle.licence}" if bundle.licence else "no licence is stated for the weights"
    return f"Dermalert under {licences.CODE}; {weights}. Where model and data can be had: {OPEN}."

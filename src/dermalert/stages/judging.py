"""From a model and labelled pictures to evaluations, `predictions.csv`, `metrics.json` and a report."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dermalert import page
from dermalert.bundle.checklist import Run
from dermalert.bundle.format import Bundle, digest_of
from dermalert.errors import DataError, RefusedFile, RunError
from dermalert.intake.audit import audit
from dermalert.intake.decode import Picture, load
from dermalert.intake.manifest import Manifest
from dermalert.intake.masks import masks_in
from dermalert.intake.overlap import in_order
from dermalert.intake.showing import pixels_by_id
from dermalert.intake.skintone import typology_angle
from dermalert.intake.sources import label_or_none, list_data
from dermalert.intake.split import clean_test, group_numbers
from dermalert.judge.evaluation import Evaluation, evaluate
from dermalert.judge.faithfulness import evidence_section
from dermalert.judge.mistakes import worst
from dermalert.judge.refused import Refused
from dermalert.judge.report import DataSummary, write_report
from dermalert.judge.robustness import section
from dermalert.judge.scores import Scores, truth_of
from dermalert.judge.scrutiny import CLINIC, scrutinise
from dermalert.judge.scrutiny_page import sections
from dermalert.judge.study import CLEAN_TEST, RAW_TEST, VALIDATION
from dermalert.judge.subgroups import age_bands, body_sites, tone_bands
from dermalert.score.engine import Engine
from dermalert.score.gate import FEATURES, judge, measure_quality
from dermalert.score.output import RowWriter
from dermalert.stages.auditing import examine_and_suspect
from dermalert.stages.checklisting import characteristics, write_checklists
from dermalert.stages.explaining import checked_evidence
from dermalert.stages.robustness import judge_robustness
from dermalert.taxonomy import Label, label_of

BATCH = 32


def labelled_manifest(
    data: Path,
    *,
    table: Path | None = None,
    columns: Mapping[str, str] | None = None,
    against: Manifest | None = None,
    workers: int | None = None,
) -> tuple[Manifest, tuple[RefusedFile, ...]]:
    """The audited manifest of `data`, or the one that `data` is (*.parquet), and the files refused."""
    if data.suffix.lower() == ".parquet":
        return Manifest.read(data), ()
    listing = list_data(data, table=table, columns=columns)
    index, suspected = examine_and_suspect(listing, workers=workers)
    report = audit(index, kind=listing.kind, against=against, suspected=suspected)
    return report.manifest, report.refused


class Scored(NamedTuple):
    """Pictures after the model has seen them.

    Attributes:
        manifest: the M pictures that could be decoded, in row order.
        logits: float32 (M, C).
        read: bool (N,), which of those asked for they are.
        angles: float64 (M,), their skin's individual typology angles in degrees; NaN where too little skin is seen.
        refusals: (M,) why the gate would refuse each; "" where it would not, or there is none.
    """

    manifest: Manifest
    logits: NDArray[Any]
    read: NDArray[np.bool_]
    angles: NDArray[np.float64]
    refusals: tuple[str, ...]


def score_labelled(engine: Engine, manifest: Manifest, *, workers: int | None = None) -> Scored:
    """Scores every picture of `manifest` that can be decoded, whatever the gate says; what cannot be is told on stderr.

    Raises:
        DataError: none can be.
    """
    size = engine.bundle.size

    def seen(path: Path) -> tuple[Picture, float] | None:
        try:
            picture = load(path, size=size)
        except RefusedFile as refusal:
            tqdm.write(str(refusal), file=sys.stderr)
            return None
        return picture, typology_angle(picture.pixels)

    stream = tqdm(in_order(seen, manifest.paths(), workers), total=len(manifest), desc="score", unit="picture")
    usable: list[bool] = []
    angles: list[float] = []

    def read() -> Iterator[Picture]:
        for found in stream:
            usable.append(found is not None)
            if found is not None:
                angles.append(found[1])
                yield found[0]

    logits, refusals, pictures = [], [], read()
    while batch := list(islice(pictures, BATCH)):
        given, why = _judged_by_gate(engine, batch)
        logits.append(given)
        refusals += why
    if not logits:
        raise DataError(f"{manifest.root}: none of its pictures can be read any more.")
    kept = np.array(usable, dtype=bool)
    return Scored(manifest.where(usable), np.concatenate(logits), kept, np.array(angles), tuple(refusals))


def _judged_by_gate(engine: Engine, pictures: Sequence[Picture]) -> tuple[NDArray[Any], list[str]]:
    """Logits, float32 (N, C), and why the gate would refuse each; "" where it would not."""
    pixels, gate = np.stack([each.pixels for each in pictures]), engine.bundle.gate
    if gate is None:
        return engine.logits(pixels), [""] * len(pixels)
    found = engine.run(pixels, "logits", *FEATURES)
    qualities = [measure_quality(each.pixels, each.info.width, each.info.height) for each in pictures]
    return found["logits"], [verdict.reason for verdict in judge(gate, found, qualities)]


def scores_of(
    manifest: Manifest, labels: Sequence[Label], classes: tuple[str, ...], probabilities: NDArray[Any]
) -> Scores:
    """The scores of pictures whose labels are given beside them."""
    ids = tuple(manifest.column("image_id"))
    return Scores(ids, classes, probabilities, truth_of(list(labels), classes), group_numbers(manifest))


def as_given(manifest: Manifest) -> list[Label]:
    """The labels that the data's owner gave, whatever the audit proposes; where it gave none that is a diagnosis, the
    one that was filled into the manifest since."""
    told = zip(manifest.column("given_label"), manifest.column("diagnosis"), strict=True)
    return [label_or_none(given) or label_of(word) for given, word in told]


def as_resolved(manifest: Manifest) -> list[Label]:
    """The labels after the audit's resolutions."""
    return [label_of(word) for word in manifest.column("diagnosis")]


def views_of(
    manifest: Manifest, rows: NDArray[np.int64], classes: tuple[str, ...], probabilities: NDArray[Any]
) -> dict[str, Scores]:
    """What a split set is judged on: validation, the test part as its owner gives it, what of that training does not
    know, and the validation pictures of each further set of a pool.

    Args:
        manifest: the whole set, training pictures too, since they say which test pictures are known; the studied
            set of a pool first.
        rows: int64 (M,), the pictures that were scored, ascending.
        probabilities: float (M, C), theirs.
    """
    parts = np.array([part or "" for part in manifest.column("split")], dtype=object)
    sources = np.array(manifest.column("source"), dtype=object)
    validates, (studied, *others) = parts == "validation", dict.fromkeys(sources)
    members = {
        VALIDATION: (validates & (sources == studied), as_resolved),
        RAW_TEST: (parts == "test", as_given),
        CLEAN_TEST: (clean_test(manifest), as_resolved),
        **{f"{VALIDATION}, {name}": (validates & (sources == name), as_resolved) for name in others},
    }
    scored = np.isin(np.arange(len(manifest)), rows)
    views = {}
    for view, (belongs, labels) in members.items():
        if (belongs & scored).any():
            kept = manifest.where(belongs & scored)
            views[view] = scores_of(kept, labels(kept), classes, probabilities[belongs[rows]])
    return views


def write_predictions(
    file: Path, manifest: Manifest, bundle: Bundle, logits: NDArray[Any], refusals: Sequence[str] | None = None
) -> None:
    """One row a picture: what was said of it, where it stood, its calibrated probabilities, and why the gate would
    refuse it."""
    probabilities = bundle.calibration.apply(logits)
    columns = ("image_id", "given_label", "diagnosis", "split", "group", "resolution")
    kept = [manifest.column(name) for name in columns]
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = RowWriter(stream)
        writer.write([*columns, *(f"p_{name.replace(' ', '_')}" for name in bundle.classes), "refused"])
        for told, row, why in zip(
            zip(*kept, strict=True), probabilities, refusals or [""] * len(probabilities), strict=True
        ):
            words = [None if value is None else str(value) for value in told]
            writer.write([*words, *(f"{p:.6f}" for p in row), why])


def write_metrics(file: Path, evaluations: Mapping[str, Evaluation], **facts: Any) -> None:
    """`metrics.json`: each evaluation by the name of its set, and what else is told."""
    content = {**facts, "evaluations": {name: evaluation.to_json() for name, evaluation in evaluations.items()}}
    page.write(file, json.dumps(content, indent=1, allow_nan=False) + "\n")


def data_summary(manifest: Manifest, refused: Iterable[RefusedFile], *, shown: int = 8) -> DataSummary:
    """Class counts by split, and the first pictures of each class by a fixed shuffle."""
    words = [word or "unlabelled" for word in manifest.column("diagnosis")]
    split = manifest.column("split")
    parts = [part or "left out" for part in split] if any(split) else ["all"] * len(split)
    order = [part for part in ("all", "train", "validation", "test", "left out") if part in parts]
    counted = Counter(zip(words, parts, strict=True))
    ids = np.array(manifest.column("image_id"), dtype=object)
    shuffled = np.random.default_rng(0).permutation(len(ids))
    names = np.array(words, dtype=object)[shuffled]
    return DataSummary(
        name=manifest.column("source")[0],
        counts={word: {part: counted[word, part] for part in order} for word in sorted(set(words))},
        samples={word: tuple(ids[shuffled][names == word][:shown]) for word in sorted(set(words))},
        refused=tuple(refused),
    )


def run_evaluate(
    bundle_folder: Path,
    data: Path,
    out: Path,
    *,
    table: Path | None = None,
    columns: Mapping[str, str] | None = None,
    prevalence: float = CLINIC,
    masks: Path | None = None,
    robustness: int = 0,
    seed: int = 0,
    resamples: int = 1000,
    workers: int | None = None,
    command: str,
    made: datetime,
) -> dict[str, Evaluation]:
    """Scores labelled data with a bundle and reports: raw as the owner labels it, clean as the audit would.

    Of the manifest that the bundle was trained from, only the test pictures are judged.

    Args:
        prevalence: of melanoma among the lesions of a clinic, for the decision curve.
        masks: a folder of lesion masks; how much of the evidence lies inside is told then.
        robustness: judge so many of the pictures with corruptions, too; 0 for none.

    Raises:
        DataError: nothing there is labelled, or all of it was trained on; or it is the set that the bundle was trained
            from, and does not say which of its pictures test.
        RunError: `out` holds a training run.
    """
    if (out / "training.json").exists():
        raise RunError(f"{out} holds a training run, whose report this one would replace. Name another folder.")
    outlined = masks_in(masks) if masks else None
    bundle = Bundle.load(bundle_folder)
    manifest, refused = labelled_manifest(data, table=table, columns=columns, workers=workers)
    notes = []
    clean = np.array(manifest.column("resolution"), dtype=object) != "drop"
    if manifest.fingerprint() == bundle.data.get("fingerprint"):
        tests = np.array([part == "test" for part in manifest.column("split")], dtype=bool)
        clean = clean_test(manifest)[tests]
        manifest = manifest.where(tests)
        notes = [f"{bundle.name} was trained on this very set: only its {len(manifest)} test pictures are judged here."]
        if not len(manifest):
            raise DataError(f"{data}: {bundle.name} was trained on this very set, and it has no test pictures.")
    elif manifest.content() == bundle.data.get("content"):
        raise DataError(
            f"{data}: {bundle.name} was trained on pictures of this very set. Judge the manifest.parquet of its run "
            "folder instead: it says which of them are left to test on."
        )
    elif (learnt := _learnt_from(manifest, bundle)).any():
        manifest, clean = manifest.where(~learnt), clean[~learnt]
        notes = [f"{int(learnt.sum())} pictures of lesions that {bundle.name} learnt from are left out."]
        if not len(manifest):
            raise DataError(f"{data}: {bundle.name} learnt from every lesion there. Judge it on others.")
    has_label = np.array([word is not None for word in manifest.column("diagnosis")], dtype=bool)
    labelled, clean = manifest.where(has_label), clean[has_label]
    if not len(labelled):
        raise DataError(f"{data}: no picture there has a diagnosis to judge by. `dermalert score` needs none.")
    engine = Engine(bundle)
    labelled, logits, read, angles, refusals = score_labelled(engine, labelled, workers=workers)
    kept = clean[read]
    probabilities = bundle.calibration.apply(logits)
    views = {"as given": scores_of(labelled, as_given(labelled), bundle.classes, probabilities)}
    if kept.any() and not kept.all():
        rest = labelled.where(kept)
        views["without doubtful pictures"] = scores_of(rest, as_resolved(rest), bundle.classes, probabilities[kept])
    evaluations = judged(views, bundle, resamples=resamples, seed=seed)
    last = list(views)[-1]
    shown = kept if len(views) > 1 else np.ones(len(labelled), dtype=bool)
    scrutiny = scrutinise(
        views[last],
        facts_of(labelled.where(shown), angles[shown]),
        points=bundle.operating_points,
        conformal=bundle.conformal,
        reference=bundle.prevalence,
        clinic=prevalence,
        resamples=resamples,
        seed=seed,
    )
    maps = checked_evidence(engine, labelled.where(shown), masks=outlined, resamples=resamples, seed=seed)
    told = [*sections(scrutiny), evidence_section(maps)]
    further = {"evidence": {"set": last, **maps.to_json()}}
    spoilt = None
    if robustness:
        spoilt = judge_robustness(
            engine,
            labelled.where(shown),
            views[last],
            pictures=robustness,
            resamples=resamples,
            seed=seed,
            workers=workers,
        )
        told.append(section(spoilt))
        further["robustness"] = {"set": last, **spoilt.to_json()}
    out.mkdir(parents=True, exist_ok=True)
    write_predictions(out / "predictions.csv", labelled, bundle, logits, refusals)
    if bundle.gate:
        refused_here = Refused.of(views["as given"], refusals, bundle.operating_point)
        notes.append(refused_here.words())
        further["gate"] = refused_here._asdict()
    write_metrics(
        out / "metrics.json",
        evaluations,
        bundle=bundle.name,
        bundle_digest=digest_of(bundle_folder),
        data=labelled.column("source")[0],
        scrutiny={"set": last, **scrutiny.to_json()},
        **further,
    )
    summary = data_summary(labelled, refused)
    write_report(
        out / "report.html",
        title=f"{bundle.name} on {labelled.column('source')[0]}",
        evaluations=evaluations,
        data=summary,
        mistakes=worst(views[last], threshold=bundle.operating_point.threshold) if bundle.operating_point else None,
        mistakes_on=last,
        pixels_of=pixels_by_id(labelled),
        facts_of=told_of(labelled, angles, bundle, probabilities),
        sections=told,
        notes=notes,
        command=command,
        made=made,
    )
    known = characteristics(labelled)
    run = Run(bundle, evaluations, summary, scrutiny, maps, command, characteristics=known, robustness=spoilt)
    write_checklists(out, run, made=made)
    return evaluations


def _learnt_from(manifest: Manifest, bundle: Bundle) -> NDArray[np.bool_]:
    """bool (N,): pictures in a group of which the bundle learnt from one."""
    groups = group_numbers(manifest)
    seen = np.array([bundle.learnt_from(each or "") for each in manifest.column("sha256")], dtype=bool)
    return np.asarray(np.isin(groups, groups[seen]), dtype=bool)


def facts_of(manifest: Manifest, angles: NDArray[np.float64]) -> dict[str, list[str | None]]:
    """What subgroups are made by, for each picture: age, sex, body site, skin tone, image source.

    Args:
        angles: float64 (N,), the skin's individual typology angles in degrees.
    """
    return {
        "age": age_bands(manifest.column("age_years")),
        "sex": manifest.column("sex"),
        "body site": body_sites(manifest.column("site")),
        "skin tone": tone_bands(angles.tolist()),
        "image source": manifest.column("source"),
    }


def told_of(
    manifest: Manifest, angles: NDArray[np.float64], bundle: Bundle, probabilities: NDArray[np.float64]
) -> dict[str, str]:
    """In words, what is known of each picture and which diagnoses the bundle leaves open, by image id."""
    facts = facts_of(manifest, angles)
    tones = [None if tone is None else f"{tone} skin" for tone in facts["skin tone"]]
    known = zip(facts["sex"], facts["age"], manifest.column("site"), tones, strict=True)
    told = [", ".join(word for word in words if word) for words in known]
    if bundle.conformal:
        left_open = bundle.conformal.sets(probabilities, bundle.classes)
        told = [f"{words}; may be {' or '.join(s)}".lstrip("; ") for words, s in zip(told, left_open, strict=True)]
    return dict(zip(manifest.column("image_id"), told, strict=True))


def judged(views: Mapping[str, Scores], bundle: Bundle, *, resamples: int, seed: int) -> dict[str, Evaluation]:
    """An evaluation for each view, at the bundle's operating point."""
    return {
        name: evaluate(scores, operating_point=bundle.operating_point, resamples=resamples, seed=seed)
        for name, scores in tqdm(views.items(), desc="intervals", unit="set")
    }

"""`dermalert release`: data sets in, a bundle fit to ship out, with out-of-fold figures for all that it was trained on.

Every photograph is held out once: five networks are trained at once, each without a fifth of the lesions, and what a
photograph is given by the one that did not see it is what calibration, thresholds, conformal sets and every figure come
from. Two more networks, each without one collection, say what happens on cameras never seen. A tenth of the lesions is
kept out of all of it and looked at by the bundle that ships, whose network the five have taught to say what they say
together (`learn.student`).

    run/pooled.parquet        all sets, audited
    run/manifest.parquet      every photograph once, those held out as its test part
    run/parts.csv             which part each is in, and the collection it was made for
    run/members.json, .npz    the training, resumable
    run/student.npz           that of the network that ships, too
    run/logits.npz            logits of every photograph by each of the seven networks, whether it saw it or not
    run/bundle/               what ships
    run/metrics.json          every figure
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dermalert.bundle import licences
from dermalert.bundle.card import model_card
from dermalert.bundle.export import export_onnx
from dermalert.bundle.format import LEARNT_DIGITS, Bundle
from dermalert.bundle.reference import Reference
from dermalert.bundle.shrink import shrink
from dermalert.errors import DataError, RunError
from dermalert.intake.sources import walk
from dermalert.intake.split import clean_test, group_numbers
from dermalert.judge.calibration import Calibration, carried_over
from dermalert.judge.categories import seven
from dermalert.judge.conformal import ConformalSets
from dermalert.judge.evaluation import Evaluation
from dermalert.judge.operating import elsewhere, operating_points
from dermalert.judge.scores import Scores
from dermalert.learn.checkpoint import write_arrays
from dermalert.learn.members import fit_members
from dermalert.learn.outputs import for_export
from dermalert.learn.recipes import Recipe
from dermalert.learn.student import fit_student
from dermalert.learn.torch_step import pytorch
from dermalert.score.engine import Engine
from dermalert.score.gate import judge
from dermalert.score.output import RowWriter
from dermalert.stages import judging
from dermalert.stages.gathering import FOLDS, HELD_OUT, Photographs, gather, pooled_sets
from dermalert.stages.gating import Rates, fit_gate, see, see_others, told
from dermalert.stages.reference import reference_of
from dermalert.stages.retrieval import alike
from dermalert.stages.training import bare, logits_of, shares_of, versions
from dermalert.taxonomy import NAMES

SHOWN = (128, 128)
TAUGHT = 8  # epochs of the network that ships, by the five
MOST_COMPARED = 5000  # photographs that the folds and their student are compared on
MOST_GATED = 2000  # pictures of each set
MOST_TOLD_APART = 1500  # pictures of each diagnosis, enough to fit a regression on


def run_release(
    data: Path,
    pools: Sequence[Path],
    out: Path,
    recipe: Recipe,
    *,
    others: Path | None = None,
    resume: bool = False,
    framework: str = "tensorflow",
    cache: Path | None = None,
    resamples: int = 1000,
    workers: int | None = None,
    made: datetime,
) -> dict[str, Evaluation]:
    """Trains, judges and writes a bundle fit to ship.

    Args:
        data: the first set; its own test pictures are judged at the end and never learnt from.
        pools: further sets.
        recipe: `mobilenetv2` with frozen stages.
        others: a folder of pictures that are not dermoscopic, for the gate; without it the gate knows dermoscopic
            pictures alone.
        framework: what trains, one of `members.FRAMEWORKS`.
        cache: where decoded pictures are kept; by default `decoded/` beside `out`.

    Returns:
        evaluations by the name of what was judged: out of fold, by collections never seen, and held out.

    Raises:
        DataError, RunError: as `gather` and `members.fit_members`.
    """
    if (out / "members.json").exists() and not resume:
        raise RunError(f"{out} holds a training. Go on with it with --resume, or name another folder.")
    if framework == "torch":
        pytorch()  # what is missing is told before hours of training
    if others is not None and not any(isinstance(each, str) for each in walk(others)):
        raise DataError(f"{others}: no picture there. Give a folder of ordinary photographs, scans and screens.")
    pooled = pooled_sets(data, pools, out / "pooled.parquet", workers=workers)
    shots = gather(pooled, recipe, cache or out.parent / "decoded", workers=workers)
    models = fit_members(
        shots.pixels,
        shots.allowed,
        shots.strata,
        shots.members(),
        recipe,
        out,
        shown=SHOWN,
        framework=framework,
        resume=resume,
    )
    shots.manifest.write(out / "manifest.parquet")
    _write_parts(out / "parts.csv", shots)
    by_member = {name: _logits(export_onnx(model, size=recipe.size), shots, recipe) for name, model in models.items()}
    write_arrays(out / "logits.npz", by_member, {"classes": list(NAMES)})
    student = fit_student(
        [models[name] for name in FOLDS],
        shots.pixels,
        np.flatnonzero(shots.parts != HELD_OUT),
        shots.strata,
        recipe,
        out,
        shown=SHOWN,
        epochs=min(TAUGHT, recipe.epochs),
        framework=framework,
        resume=resume,
    )
    graph = export_onnx(for_export(student), size=recipe.size)
    bundle = _fitted(shots, by_member, shrink(graph, "float16"), recipe)
    if framework == "torch":
        bundle = replace(bundle, versions={**bundle.versions, "torch": str(pytorch().__version__)})
    views = _unseen_views(shots, by_member, bundle)
    bundle = _carried_over(bundle, shots, by_member)
    bundle, rates = _gated(bundle, shots, others, workers)
    bundle = replace(bundle, reference=_usual(bundle, shots, workers))
    views = {**views, **_held_out_views(shots, bundle, workers)}
    evaluations = judging.judged(views, bundle, resamples=resamples, seed=recipe.seed)
    sevens = {name: seven(scores, bundle.prevalence, resamples=resamples) for name, scores in views.items()}
    judged = [elsewhere(point, views["held out"].melanoma(), seed=recipe.seed) for point in bundle.operating_points]
    bundle = replace(bundle, card=model_card(bundle, evaluations, gate=told(rates), held_out=judged))
    bundle.save(out / "bundle")
    judging.write_metrics(
        out / "metrics.json",
        evaluations,
        recipe=recipe.name,
        made=made.isoformat(timespec="minutes"),
        seven_categories={name: {key: each.to_json() for key, each in found.items()} for name, found in sevens.items()},
        gate=asdict(rates) | {"held_out": _refused_held_out(bundle, shots, workers)},
        sources=_sources_told_apart(bundle, shots),
        similar=alike(Engine(bundle), shots, resamples=resamples, seed=recipe.seed),
    )
    return evaluations


def _logits(graph: bytes, shots: Photographs, recipe: Recipe) -> NDArray[np.float32]:
    """float32 (N, C), of every photograph, seen or not."""
    return logits_of(Engine(bare(graph, recipe, NAMES)), shots.pixels, np.arange(len(shots.pixels)))


def _out_of_fold(shots: Photographs, by_member: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """float32 (N, C): each photograph's logits by the network that did not learn from its fold; NaN where held out."""
    logits = np.full((len(shots.parts), len(NAMES)), np.nan, np.float32)
    for fold in FOLDS:
        logits[shots.parts == fold] = by_member[fold][shots.parts == fold]
    return logits


def _fitted(shots: Photographs, by_member: Mapping[str, NDArray[np.float32]], graph: bytes, recipe: Recipe) -> Bundle:
    """The bundle, everything in it fitted out of fold."""
    learnt = shots.parts != HELD_OUT
    logits = _out_of_fold(shots, by_member)[learnt]
    calibration = Calibration.fit(logits, shots.allowed[learnt], bias=True)
    scores = shots.scores(learnt, calibration.apply(logits))
    points, lacking = operating_points(scores.melanoma(), seed=recipe.seed)
    if lacking:
        raise DataError(" ".join(lacking))
    return Bundle(
        name=recipe.name,
        classes=NAMES,
        size=recipe.size,
        prepare=recipe.prepare,
        calibration=calibration,
        prevalence=shares_of(scores),
        operating_points=points,
        conformal=ConformalSets.fit(scores, alerts=min(point.threshold for point in points)),
        licence=licences.of(shots.manifest.column("source"))[0],
        attribution=licences.of(shots.manifest.column("source"))[1],
        learnt=frozenset(each[:LEARNT_DIGITS] for each in shots.learnt_from()),
        data={
            "source": " + ".join(dict.fromkeys(shots.manifest.column("source"))),
            "fingerprint": shots.manifest.fingerprint(),
            "content": shots.manifest.content(),
            "train_pictures": int(learnt.sum()),
            "test_pictures": int((~learnt).sum()),
            "folds": len(FOLDS),
        },
        versions=versions(),
        model=graph,
        card="",
    )


def _carried_over(bundle: Bundle, shots: Photographs, by_member: Mapping[str, NDArray[np.float32]]) -> Bundle:
    """The bundle with the folds' calibration fitted to their student; no label and no held-out lesion."""
    rows = np.flatnonzero(shots.parts != HELD_OUT)
    rows = rows[:: -(-len(rows) // MOST_COMPARED)]
    others = np.mean([by_member[name][rows] for name in FOLDS], axis=0)
    return replace(
        bundle, calibration=carried_over(bundle.calibration, logits_of(Engine(bundle), shots.pixels, rows), others)
    )


def _gated(bundle: Bundle, shots: Photographs, others: Path | None, workers: int | None) -> tuple[Bundle, Rates]:
    """The bundle with a gate, and how often it refuses what it was not fitted on."""
    engine, random = Engine(bundle), np.random.default_rng(0)
    sets = np.array(shots.manifest.column("source"))
    learnt = [np.flatnonzero((shots.parts != HELD_OUT) & (sets == name)) for name in sorted(set(sets))]
    rows = np.sort(np.concatenate([random.permutation(each)[:MOST_GATED] for each in learnt]))
    paths, groups = shots.manifest.paths(), group_numbers(shots.manifest)
    names = [str(each) for each in sets[rows]]
    seen = see(engine, [paths[row] for row in rows], names, [str(each) for each in groups[rows]], workers=workers)
    strange = None if others is None else see_others(engine, others, workers=workers)
    gate, rates = fit_gate(seen, strange)
    return replace(bundle, gate=gate), rates


def _usual(bundle: Bundle, shots: Photographs, workers: int | None) -> Reference:
    """What is usual, from one photograph of each lesion that nothing was fitted on: two are not two observations."""
    kept = shots.manifest.where(shots.parts == HELD_OUT)
    paths = kept.paths()
    _, first = np.unique(group_numbers(kept), return_index=True)
    return reference_of(bundle, [paths[row] for row in first.tolist()], workers=workers)


def _refused_held_out(bundle: Bundle, shots: Photographs, workers: int | None) -> dict[str, dict[str, float]]:
    """By collection, of the photographs that nothing was fitted on: how many, and the share that the gate refuses."""
    if bundle.gate is None:
        return {}
    kept = shots.parts == HELD_OUT
    paths, names = shots.manifest.where(kept).paths(), shots.collections[kept].astype(str)
    groups = [str(each) for each in group_numbers(shots.manifest)[kept]]
    seen = see(Engine(bundle), paths, names.tolist(), groups, views=0, workers=workers)
    refused = np.array([not each.accepted for each in judge(bundle.gate, dict(seen.features), list(seen.qualities))])
    return {
        str(name): {"pictures": int((names == name).sum()), "refused": float(refused[names == name].mean())}
        for name in np.unique(names)
    }


def _unseen_views(
    shots: Photographs, by_member: Mapping[str, NDArray[np.float32]], bundle: Bundle
) -> dict[str, Scores]:
    """Out of fold, all and by collection; and each collection by the network that saw nothing of it."""
    learnt, made_for = shots.parts != HELD_OUT, shots.collections
    apply = bundle.calibration.apply
    logits = _out_of_fold(shots, by_member)
    views = {"out of fold": shots.scores(learnt, apply(logits[learnt]))}
    for name in sorted(set(made_for)):
        rows = learnt & (made_for == name)
        views[f"out of fold, {name}"] = shots.scores(rows, apply(logits[rows]))
    for name in sorted(set(made_for)):
        rows = shots.alone(name)
        views[f"{name}, never seen"] = shots.scores(rows, apply(by_member[f"without {name}"][rows]))
    return views


def _held_out_views(shots: Photographs, bundle: Bundle, workers: int | None) -> dict[str, Scores]:
    """What the bundle that ships says of lesions that nothing was fitted on."""
    engine, held_out = Engine(bundle), shots.parts == HELD_OUT
    probabilities = bundle.calibration.apply(logits_of(engine, shots.pixels, np.flatnonzero(held_out)))
    views = {"held out": shots.scores(held_out, probabilities)}
    for name in sorted(set(shots.collections)):
        rows = shots.collections[held_out] == name
        views[f"held out, {name}"] = views["held out"].where(rows)
    tests = shots.pooled.where(np.array(shots.pooled.column("split"), dtype=object) == "test")
    clean = clean_test(shots.pooled)[np.array(shots.pooled.column("split"), dtype=object) == "test"]
    scored = judging.score_labelled(engine, tests, workers=workers)
    given, clean = bundle.calibration.apply(scored.logits), clean[scored.read]
    source = tests.column("source")[0]
    rest = scored.manifest.where(clean)
    resolved = judging.scores_of(rest, judging.as_resolved(rest), NAMES, given[clean])
    return {
        **views,
        f"test of {source}": judging.scores_of(scored.manifest, judging.as_given(scored.manifest), NAMES, given),
        f"test of {source}, clean": resolved,
    }


def _sources_told_apart(bundle: Bundle, shots: Photographs) -> dict[str, float]:
    """How well the features tell the collections apart, among melanomas and among nevi: 0.5 is not at all.

    A model that knows the camera can use it in place of the lesion. Mean AUC of a logistic regression on `embedding`,
    five-fold by lesions, that tells the first collection from the others.
    """
    found: dict[str, float] = {}
    engine = Engine(bundle)
    for diagnosis in ("melanoma", "nevus"):
        exact = shots.allowed[:, NAMES.index(diagnosis)] & (shots.allowed.sum(axis=1) == 1)
        rows = np.flatnonzero(exact & (shots.parts != HELD_OUT))
        rows = rows[:: -(-len(rows) // MOST_TOLD_APART)]
        blocks = np.array_split(rows, max(1, len(rows) // judging.BATCH))
        features = np.concatenate([engine.run(shots.pixels[block], "embedding")["embedding"] for block in blocks])
        tell = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500))
        folds = GroupKFold(5).split(features, groups=group_numbers(shots.manifest)[rows])
        known = shots.collections[rows] == sorted(set(shots.collections))[0]
        found[diagnosis] = float(cross_val_score(tell, features, known, cv=list(folds), scoring="roc_auc").mean())
    return found


def _write_parts(file: Path, shots: Photographs) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = RowWriter(stream)
        writer.write(["image_id", "part", "collection"])
        for row in zip(shots.manifest.column("image_id"), shots.parts, shots.collections, strict=True):
            writer.write(row)

"""`dermalert release`: data sets in, a bundle fit to ship out, with out-of-fold figures for all that it was trained on.

Every photograph is held out once: five networks are trained at once, each without a fifth of the lesions, and what a
photograph is given by the one that did not see it is what calibration, thresholds, conformal sets and every figure come
from. Two more networks, each without one collection, say what happens on cameras never seen. A tenth of the lesions is
kept out of all of it and looked at once, by the bundle that ships, whose weights are the mean of the five
(Wortsman et al., "Model soups", ICML 2022).

    run/pooled.parquet        all sets, audited
    run/manifest.parquet      every photograph once, those held out as its test part
    run/parts.csv             which part each is in, and the collection it was made for
    run/members.json, .npz    the training, resumable
    run/out-of-fold.npz       logits of every photograph by a network that did not see it
    run/bundle/               what ships
    run/metrics.json          every figure
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dermalert.bundle import licences
from dermalert.bundle.card import model_card
from dermalert.bundle.export import export_onnx
from dermalert.bundle.format import Bundle
from dermalert.bundle.shrink import shrink
from dermalert.errors import DataError, RunError
from dermalert.intake.manifest import Manifest
from dermalert.intake.pool import collections, concatenated, photographs, pool
from dermalert.intake.split import clean_test, divide, group_numbers, usable
from dermalert.judge.calibration import Calibration
from dermalert.judge.conformal import ConformalSets, categories_of
from dermalert.judge.evaluation import Evaluation, evaluate
from dermalert.judge.intervals import Interval
from dermalert.judge.operating import operating_points
from dermalert.judge.scores import Scores
from dermalert.learn.checkpoint import write_arrays
from dermalert.learn.members import fit_members
from dermalert.learn.outputs import for_export
from dermalert.learn.pipeline import DecodedCache
from dermalert.learn.recipes import Recipe
from dermalert.score.batch import RowWriter
from dermalert.score.engine import Engine
from dermalert.stages import judging
from dermalert.stages.gating import Rates, fit_gate, see, see_others, told
from dermalert.stages.training import logits_of, shares_of, versions
from dermalert.taxonomy import COARSE, NAMES

HELD_OUT, FOLDS = "held-out", tuple(f"fold {number}" for number in range(1, 6))
HELD_OUT_SHARE = 0.1
SHOWN = (128, 128)
# What a set's own documentation says of a label beyond its word: the challenge had three classes.
MEANT = {("isic2017", "not melanoma"): COARSE["nevus or seborrheic keratosis"]}
MOST_GATED = 2000  # pictures of each collection
MOST_TOLD_APART = 1500  # pictures of each diagnosis, enough to fit a regression on
_WORDS = {**{members: word for word, members in COARSE.items()}, **{frozenset({name}): name for name in NAMES}}


@dataclass(frozen=True)
class Photographs:
    """What a release is made from.

    Attributes:
        manifest: N photographs, those held out as its test part.
        pooled: all pictures of all sets, with the first set's own test pictures.
        pixels: uint8 (N, H, W, 3), memory-mapped.
        allowed: bool (N, C), what each may be; columns as `NAMES`.
        collections: str (N,), see `pool.collections`.
        parts: str (N,), `HELD_OUT` or one of `FOLDS`.
        strata: int64 (N,), collection and label.
    """

    manifest: Manifest
    pooled: Manifest
    pixels: NDArray[np.uint8]
    allowed: NDArray[np.bool_]
    collections: NDArray[np.object_]
    parts: NDArray[np.object_]
    strata: NDArray[np.int64]

    def members(self) -> dict[str, NDArray[np.int64]]:
        """Who learns from what: for each fold all but it, and for each collection all but it."""
        learning = self.parts != HELD_OUT
        left_out = {f"without {name}": self.collections != name for name in sorted(set(self.collections))}
        folds = {name: self.parts != name for name in FOLDS}
        return {name: np.flatnonzero(learning & kept) for name, kept in {**folds, **left_out}.items()}

    def scores(self, rows: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> Scores:
        """The scores of some of them; `probabilities` of just these rows."""
        ids = tuple(np.array(self.manifest.column("image_id"), dtype=object)[rows])
        return Scores(ids, NAMES, probabilities, self.allowed[rows], group_numbers(self.manifest)[rows])


def pooled_sets(data: Path, pools: Sequence[Path], file: Path, *, workers: int | None = None) -> Manifest:
    """The sets audited, the first against all others, and pooled; read again where an earlier start left them.

    Raises:
        DataError: a set cannot be read.
    """
    if file.exists():
        return Manifest.read(file)
    others = [judging.labelled_manifest(each, workers=workers)[0] for each in pools]
    against = concatenated(others) if others else None
    pooled = pool([judging.labelled_manifest(data, against=against, workers=workers)[0], *others])
    file.parent.mkdir(parents=True, exist_ok=True)
    pooled.write(file)
    return pooled


def gather(pooled: Manifest, recipe: Recipe, cache: Path, *, workers: int | None = None) -> Photographs:
    """Keeps each photograph once, and divides the lesions.

    Of the first set, test pictures and lesions that stand among them are left out, whatever set holds them.

    Raises:
        DataError: sets contradict each other, or a picture cannot be read any more.
    """
    parts = np.array(pooled.column("split"), dtype=object)
    learnt = pooled.where(usable(pooled) & np.isin(parts, ["train", "validation"]))
    facts = zip(learnt.column("source"), learnt.column("diagnosis"), learnt.labels(), strict=True)
    believed = [MEANT.get((source, word)) or frozenset(label.stands_for) for source, word, label in facts if label]
    manifest, meant = photographs(learnt, believed)
    decoded = DecodedCache.build(
        manifest.paths(), manifest.column("sha256"), size=recipe.size, folder=cache, workers=workers
    )
    if decoded.refused:
        raise DataError(f"{decoded.refused[0]} It could be read in the audit: was the file changed meanwhile?")
    made_for = collections(manifest)
    words = [f"{made}|{','.join(sorted(may))}" for made, may in zip(made_for, meant, strict=True)]
    strata = np.unique(words, return_inverse=True)[1].astype(np.int64)
    shares = {HELD_OUT: HELD_OUT_SHARE, **dict.fromkeys(FOLDS, (1 - HELD_OUT_SHARE) / len(FOLDS))}
    divided = divide(group_numbers(manifest), strata, shares)
    manifest = manifest.with_columns(
        diagnosis=[_WORDS[may] for may in meant],
        split=["test" if part == HELD_OUT else "train" for part in divided],
        resolution=["keep"] * len(manifest),
    )
    allowed = np.array([[name in may for name in NAMES] for may in meant])
    return Photographs(manifest, pooled, decoded.pixels, allowed, made_for, divided, strata)


def run_release(
    data: Path,
    pools: Sequence[Path],
    out: Path,
    recipe: Recipe,
    *,
    others: Path | None = None,
    resume: bool = False,
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
        others: a folder of pictures that show no skin, for the gate; without it the gate knows dermoscopic pictures
            alone.
        cache: where decoded pictures are kept; by default `decoded/` beside `out`.

    Returns:
        evaluations by the name of what was judged: out of fold, by collections never seen, and held out.

    Raises:
        DataError, RunError: as `gather` and `members.fit_members`.
    """
    if (out / "members.json").exists() and not resume:
        raise RunError(f"{out} holds a training. Go on with it with --resume, or name another folder.")
    pooled = pooled_sets(data, pools, out / "pooled.parquet", workers=workers)
    shots = gather(pooled, recipe, cache or out.parent / "decoded", workers=workers)
    models = fit_members(
        shots.pixels, shots.allowed, shots.strata, shots.members(), recipe, out, shown=SHOWN, resume=resume
    )
    shots.manifest.write(out / "manifest.parquet")
    _write_parts(out / "parts.csv", shots)
    unseen = {name: _logits(export_onnx(model, size=recipe.size), shots, recipe) for name, model in models.items()}
    write_arrays(out / "out-of-fold.npz", unseen, {"classes": list(NAMES)})
    graph = export_onnx(for_export(mean_of([models[name] for name in FOLDS])), size=recipe.size)
    bundle = _fitted(shots, unseen, shrink(graph, "float16"), recipe)
    bundle, rates = _gated(bundle, shots, others, workers)
    views = {**_unseen_views(shots, unseen, bundle), **_held_out_views(shots, bundle, workers)}
    evaluations = judging.judged(views, bundle, resamples=resamples, seed=recipe.seed)
    sevens = {name: seven(scores, bundle.prevalence, resamples=resamples) for name, scores in views.items()}
    bundle = replace(bundle, card=model_card(bundle, evaluations, gate=told(rates)))
    bundle.save(out / "bundle")
    judging.write_metrics(
        out / "metrics.json",
        evaluations,
        recipe=recipe.name,
        made=made.isoformat(timespec="minutes"),
        seven_categories={name: {key: each.to_json() for key, each in found.items()} for name, found in sevens.items()},
        gate=asdict(rates),
        sources=_sources_told_apart(bundle, shots),
    )
    return evaluations


def mean_of(models: Sequence[Any]) -> Any:
    """The last of the models with the mean of all their weights.

    All began at the same weights and learnt most of the same pictures in the same order, so that they lie in one
    valley and their mean does at least as well as each (Wortsman et al., ICML 2022), in the time of one.
    """
    *_, mean = models
    for index, variable in enumerate(mean.trainable_variables):
        variable.assign(np.mean([model.trainable_variables[index].numpy() for model in models], axis=0))
    return mean


def seven(scores: Scores, prevalence: Mapping[str, float], *, resamples: int) -> dict[str, Interval]:
    """Figures on the seven categories of ISIC 2018, into which all labels but `not melanoma` fall.

    Returns:
        `macro_auc`; `accuracy` and `balanced_accuracy` of the likeliest category; and `even_balanced_accuracy` of the
        category that is likeliest where all are equally common, which is what balanced accuracy rewards.
    """
    merged, even = in_categories(scores, {}), in_categories(scores, prevalence)
    likely = evaluate(merged, operating_point=None, resamples=resamples).figures
    evenly = evaluate(even, operating_point=None, resamples=resamples).figures
    names = ("macro_auc", "accuracy", "balanced_accuracy")
    return {**{name: likely[name] for name in names}, "even_balanced_accuracy": evenly["balanced_accuracy"]}


def in_categories(scores: Scores, prevalence: Mapping[str, float]) -> Scores:
    """The scores with classes that coarse labels do not tell apart as one, on pictures whose label is one category.

    Args:
        prevalence: what each class's probability is divided by first, so that all are equally common; none: as it is.
    """
    categories = categories_of(scores.classes)
    belongs = np.array([[name in members for members in categories.values()] for name in scores.classes])
    probabilities = scores.probabilities @ belongs
    if prevalence:
        probabilities = probabilities / (np.array([prevalence[name] for name in scores.classes]) @ belongs)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    truth = (scores.truth.astype(np.int64) @ belongs) > 0
    merged = Scores(scores.image_ids, tuple(categories), probabilities, truth, scores.groups)
    return merged.where(truth.sum(axis=1) == 1)


def _logits(graph: bytes, shots: Photographs, recipe: Recipe) -> NDArray[np.float32]:
    """float32 (N, C), of every photograph, seen or not."""
    return logits_of(Engine(_bare(graph, recipe)), shots.pixels, np.arange(len(shots.pixels)))


def _bare(graph: bytes, recipe: Recipe) -> Bundle:
    return Bundle(
        name=recipe.name,
        classes=NAMES,
        size=recipe.size,
        calibration=Calibration.none(len(NAMES)),
        prevalence=dict.fromkeys(NAMES, 1 / len(NAMES)),
        data={},
        versions={},
        model=graph,
        card="",
    )


def _out_of_fold(shots: Photographs, unseen: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """float32 (N, C): each photograph's logits by the network that did not learn from its fold; NaN where held out."""
    logits = np.full((len(shots.parts), len(NAMES)), np.nan, np.float32)
    for fold in FOLDS:
        logits[shots.parts == fold] = unseen[fold][shots.parts == fold]
    return logits


def _fitted(shots: Photographs, unseen: Mapping[str, NDArray[np.float32]], graph: bytes, recipe: Recipe) -> Bundle:
    """The bundle, everything in it fitted out of fold."""
    learnt = shots.parts != HELD_OUT
    logits = _out_of_fold(shots, unseen)[learnt]
    calibration = Calibration.fit(logits, shots.allowed[learnt], bias=True)
    scores = shots.scores(learnt, calibration.apply(logits))
    points, _ = operating_points(scores.melanoma(), seed=recipe.seed)
    return Bundle(
        name=recipe.name,
        classes=NAMES,
        size=recipe.size,
        calibration=calibration,
        prevalence=shares_of(scores),
        operating_points=points,
        conformal=ConformalSets.fit(scores),
        licence=licences.WEIGHTS,
        attribution=licences.ATTRIBUTION,
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


def _gated(bundle: Bundle, shots: Photographs, others: Path | None, workers: int | None) -> tuple[Bundle, Rates]:
    """The bundle with a gate, and how often it refuses what it was not fitted on."""
    engine, random = Engine(bundle), np.random.default_rng(0)
    learnt = [np.flatnonzero((shots.parts != HELD_OUT) & (shots.collections == n)) for n in set(shots.collections)]
    rows = np.sort(np.concatenate([random.permutation(each)[:MOST_GATED] for each in learnt]))
    paths, groups = shots.manifest.paths(), group_numbers(shots.manifest)
    names = [str(each) for each in shots.collections[rows]]
    seen = see(engine, [paths[row] for row in rows], names, [str(each) for each in groups[rows]], workers=workers)
    strange = None if others is None else see_others(engine, others, workers=workers)
    gate, rates = fit_gate(seen, strange)
    return replace(bundle, gate=gate), rates


def _unseen_views(shots: Photographs, unseen: Mapping[str, NDArray[np.float32]], bundle: Bundle) -> dict[str, Scores]:
    """Out of fold, all and by collection; and each collection by the network that saw nothing of it."""
    learnt, made_for = shots.parts != HELD_OUT, shots.collections
    apply = bundle.calibration.apply
    logits = _out_of_fold(shots, unseen)
    views = {"out of fold": shots.scores(learnt, apply(logits[learnt]))}
    for name in sorted(set(made_for)):
        rows = learnt & (made_for == name)
        views[f"out of fold, {name}"] = shots.scores(rows, apply(logits[rows]))
    for name in sorted(set(made_for)):
        rows = learnt & (made_for == name)
        views[f"{name}, never seen"] = shots.scores(rows, apply(unseen[f"without {name}"][rows]))
    return views


def _held_out_views(shots: Photographs, bundle: Bundle, workers: int | None) -> dict[str, Scores]:
    """What the bundle that ships says of lesions that nothing was fitted on: looked at once."""
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
    five-fold by lesions.
    """
    found: dict[str, float] = {}
    engine = Engine(bundle)
    for diagnosis in ("melanoma", "nevus"):
        rows = np.flatnonzero(shots.allowed[:, NAMES.index(diagnosis)] & (shots.parts != HELD_OUT))
        rows = rows[:: max(1, len(rows) // MOST_TOLD_APART)]
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

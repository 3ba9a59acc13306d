"""What each choice of a release does: one change at a time, trained briefly, judged where it did not learn.

    dermalert release isic9/ --pool ham10000/ --pool isic2017/ --others photographs/ --out runs/release
    python scripts/ablation.py runs/release --out runs/ablation --lite0 lite0.npz --lite2 lite2.npz
    cp runs/ablation/ablation.json docs/ablation.json
    python scripts/results.py runs/release runs/held-out docs/ablation.json > docs/results.md

Comes in: a finished release, for its photographs, their division and, as teachers, its networks' logits. Goes out, for
each arm: the logits of three networks. One leaves out fold 1, and two a collection each; they start at ImageNet's
weights, see the same augmented pictures in the same order, and stop after `--epochs`. The held-out tenth has no part
in it. An arm that is there already is not trained again.

The base is the release's recipe without its colour constancy, which is an arm like the others.

Few epochs rank arms only roughly, and one seed a network: differences within the interval say nothing. What chooses is
the melanoma AUC on collections never seen and within collections, not the pooled one.

Group-robust: Sagawa et al., "Distributionally robust neural networks for group shifts", ICLR 2020, with groups of
collection and melanoma. Source-adversarial: Ganin et al., "Domain-adversarial training of neural networks", JMLR 17,
2016, the collection told from the pooled features. Distilled: Furlanello et al., "Born-again neural networks", ICML
2018, each network taught by the release's own that left out the same. Statistics mixed: Zhou et al., "Domain
generalization with MixStyle", ICLR 2021, between what the frozen stages make of a network's own pictures. Weights
averaged: Cha et al., "SWAD: domain generalization by seeking flat minima", NeurIPS 2021, without its choice of an end.
Cut to the lesion: at each epoch another half of the pictures that `--masks` has a mask of; all are scored whole, since
nobody outlines lesions in a clinic.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from dermalert.bundle.export import export_onnx
from dermalert.bundle.format import Bundle
from dermalert.intake.manifest import Manifest
from dermalert.intake.masks import load_mask, masks_in
from dermalert.judge.calibration import Calibration
from dermalert.judge.categories import in_categories
from dermalert.judge.intervals import group_bootstrap, paired_difference
from dermalert.judge.metrics import macro_auc, roc_auc
from dermalert.judge.scores import Scores
from dermalert.learn import balance, networks
from dermalert.learn.augment import Augmented, Augmenter
from dermalert.learn.backend import backend
from dermalert.learn.checkpoint import read_arrays, write_arrays, write_text
from dermalert.learn.members import rate_at, turns
from dermalert.learn.pipeline import batches
from dermalert.learn.recipes import RELEASE, Recipe
from dermalert.learn.step import coarse_losses
from dermalert.score.engine import Engine
from dermalert.stages.gathering import Photographs, gather
from dermalert.stages.training import bare, logits_of
from dermalert.taxonomy import MELANOMA, NAMES

LEFT_OUT = "fold 1"
BASE = "base"
ROBUST_STEP = 0.01  # eta of the group weights
MIX_CHANCE, MIX_ALPHA = 0.5, 0.1  # of a batch; of the beta distribution
STEADY_RATE, STEADY_FROM = 0.6, 0.03  # of the highest rate; of the training
AVERAGED_FROM, AVERAGED_EVERY = 0.4, 5  # of the training; batches
SKIN = 0.25  # of the lesion's longer side, left on each side of it

Box = tuple[int, int, int, int]  # left, upper, right, lower, in pixels


@dataclass(frozen=True)
class Arm:
    """One change of the base.

    Attributes:
        words: what is changed, for the table.
        recipe: changes of the recipe's fields.
        shown: side at which training pictures are shown.
        robust: whether the weight of each group grows with its loss.
        adversary: strength of the reversed gradient of a head that tells collections; 0: none.
        teacher: share of the teacher's probabilities in the loss; 0: none.
        mixed: whether means and deviations of maps are mixed between pictures.
        averaged: whether the rate stays, and the weights are the mean of those on the way.
        cut: chance of a picture that has a lesion mask to be shown cut to the lesion and some skin around it.
    """

    words: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    shown: int = 128
    robust: bool = False
    adversary: float = 0.0
    teacher: float = 0.0
    mixed: bool = False
    averaged: bool = False
    cut: float = 0.0


def arms(lite0: Path | None, lite2: Path | None, masks: Path | None) -> dict[str, Arm]:
    """Those that can be trained with the weights and masks at hand."""
    lite = {
        name: Arm(f"network {name}", {"network": name, "weights": str(file)})
        for name, file in (("efficientnet-lite0", lite0), ("efficientnet-lite2", lite2))
        if file is not None
    }
    cut = Arm("half of the pictures that have a lesion mask cut to the lesion", cut=0.5)
    plain = {name: each for name, each in RELEASE.augment.items() if name in ("flip", "rotate", "zoom", "shift")}
    return {
        BASE: Arm("the release's recipe without colour constancy, for as many epochs as all arms"),
        **lite,
        "larger": Arm("scored at 192 px, shown at 160", {"size": (192, 192)}, shown=160),
        "all stages": Arm("all stages but the first learn", {"frozen_stages": 1}),
        "colour constancy": Arm("shades of gray before the network", {"prepare": ("shades-of-gray",)}),
        "geometry alone": Arm("no augmentation of colour, shape, degradation or artefacts", {"augment": plain}),
        "group-robust": Arm("group-robust loss", robust=True),
        "source-adversarial": Arm("source-adversarial loss, strength 0.3", adversary=0.3),
        "distilled": Arm("half of the target from the release's own network", teacher=0.5),
        "statistics mixed": Arm("means and deviations of maps mixed between pictures", mixed=True),
        "weights averaged": Arm(
            "a steady rate, and the mean of the weights from 0.4 of the training on", averaged=True
        ),
        **({"cut to the lesion": cut} if masks else {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path, help="the run folder of a finished release")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lite0", type=Path, help="weights that scripts/convert_lite.py made")
    parser.add_argument("--lite2", type=Path, help="likewise")
    parser.add_argument("--masks", type=Path, help="a folder of lesion masks, named like the pictures")
    parser.add_argument("--only", action="append", help="an arm to train; may be given again; by default all")
    parser.add_argument("--cache", type=Path, help="decoded pictures; by default the release's own")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    pooled = Manifest.read(asked.release / "pooled.parquet")
    teachers, _ = read_arrays(asked.release / "logits.npz")
    known = arms(asked.lite0, asked.lite2, asked.masks)
    for name in asked.only or known:
        file, arm = asked.out / f"{name}.npz", known[name]
        if file.exists():
            continue
        recipe = replace(RELEASE, **{"prepare": (), "epochs": asked.epochs, **arm.recipe})
        shots = gather(pooled, recipe, asked.cache or asked.release.parent / "decoded")
        found = trained(name, arm, recipe, shots, teachers, lesion_boxes(shots, asked.masks) if arm.cut else {})
        write_arrays(file, found, {"arm": {**asdict(arm), "epochs": asked.epochs}})
    shots = gather(pooled, RELEASE, asked.cache or asked.release.parent / "decoded")
    prior = Bundle.load(asked.release / "bundle").prevalence
    write_text(asked.out / "ablation.json", json.dumps(judged(asked.out, known, shots, prior), indent=2))


# Training


def trained(
    name: str,
    arm: Arm,
    recipe: Recipe,
    shots: Photographs,
    teachers: Mapping[str, NDArray[np.float32]],
    boxes: Mapping[int, Box],
) -> dict[str, NDArray[np.float32]]:
    """Logits, float32 (N, C), of all photographs by each network."""
    members = {key: rows for key, rows in shots.members().items() if key == LEFT_OUT or key.startswith("without")}
    shown = (arm.shown, arm.shown)
    lessons = {key: _Lesson(rows, shots, arm, recipe, teachers[key]) for key, rows in members.items()}
    trunk = next(iter(lessons.values())).trunk
    every = np.unique(np.concatenate(list(members.values())))
    augmenter = Augmenter(recipe.augment, size=shown, given=recipe.size, seed=recipe.seed)
    for number in range(1, recipe.epochs + 1):
        order = balance.tempered_order(every, shots.strata, np.random.default_rng((recipe.seed, number)))

        pixels = _PartlyCut(shots.pixels, _some(boxes, arm.cut, (recipe.seed, number, 1)))

        def change(batch: NDArray[np.uint8], index: int, epoch: int = number) -> Augmented:
            return augmenter(batch, epoch=epoch, batch=index)

        done = 0
        with tqdm(total=len(order), desc=f"{name} {number}/{recipe.epochs}", unit="picture") as bar:
            for rows, made in batches(cast("NDArray[np.uint8]", pixels), order, recipe.batch_size, change=change):
                progress = (number - 1 + done / len(order)) / recipe.epochs
                features = trunk(made.pixels)
                for lesson in lessons.values():
                    lesson.learn(features, rows, progress)
                done += len(rows)
                bar.update(len(rows))
    return {key: lesson.logits(recipe, shots) for key, lesson in lessons.items()}


def lesion_boxes(shots: Photographs, folder: Path) -> dict[int, Box]:
    """Of each photograph that has a mask, by its row: the lesion and some skin around it."""
    known, boxes = masks_in(folder), {}
    height, width = shots.pixels.shape[1:3]
    for row, path in enumerate(shots.manifest.paths()):
        if path.stem not in known:
            continue
        across, down = (np.flatnonzero(load_mask(known[path.stem], (width, height)).any(axis=axis)) for axis in (0, 1))
        if len(across):
            skin = round(SKIN * max(np.ptp(across), np.ptp(down)))
            left, upper = max(across[0] - skin, 0), max(down[0] - skin, 0)
            boxes[row] = (left, upper, min(across[-1] + 1 + skin, width), min(down[-1] + 1 + skin, height))
    return boxes


def _some(boxes: Mapping[int, Box], share: float, seed: tuple[int, ...]) -> dict[int, Box]:
    chance = np.random.default_rng(seed).random(len(boxes))
    return {row: box for (row, box), drawn in zip(boxes.items(), chance, strict=True) if drawn < share}


class _PartlyCut:
    """Pictures by row, some of them cut to a box and enlarged."""

    def __init__(self, pixels: NDArray[np.uint8], boxes: Mapping[int, Box]) -> None:
        self._pixels, self._boxes = pixels, boxes

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        taken = self._pixels[rows]
        for place, row in enumerate(rows.tolist()):
            if box := self._boxes.get(row):
                whole = Image.fromarray(taken[place])
                taken[place] = np.asarray(whole.resize(whole.size, Image.Resampling.BICUBIC, box=box))
        return taken


class _Lesson:
    """One network and the rows that it may learn from."""

    def __init__(
        self,
        rows: NDArray[np.int64],
        shots: Photographs,
        arm: Arm,
        recipe: Recipe,
        teacher: NDArray[np.float32],
    ) -> None:
        keras, tf = backend()
        self.model = networks.build(replace(recipe, size=(arm.shown, arm.shown)), len(NAMES))
        self.trunk, upper = networks.divided(self.model, recipe.frozen_stages)
        self._upper = _with_pooled(upper)
        self._stages, self._rates = networks.learning(self.model, recipe)
        self._optimizers = [keras.optimizers.Adam(1e-3) for _ in self._stages]
        for optimizer, stage in zip(self._optimizers, self._stages, strict=True):
            optimizer.build(list(stage))
        names, self._source = np.unique(shots.collections, return_inverse=True)
        self._adversary = keras.Sequential([keras.Input((1280,)), keras.layers.Dense(len(names))])
        self._against = keras.optimizers.Adam(1e-3)
        self._against.build(self._adversary.trainable_variables)
        shares = balance.likeliest_shares(shots.allowed[rows], turns(shots.strata[rows]))
        self._offset = tf.constant(np.log(shares + 1e-4).astype(np.float32))
        self._mine = np.isin(np.arange(len(shots.allowed)), rows)
        self._allowed = shots.allowed.astype(np.float32)
        self._recipe, self._random = recipe, np.random.default_rng(recipe.seed)
        self._sum, self._summed, self._batches = [0.0] * len(self.model.trainable_variables), 0, 0
        self._taught = Calibration.none(len(NAMES)).apply(teacher).astype(np.float32)
        self._group = 2 * self._source + shots.allowed[:, NAMES.index(MELANOMA)]
        self._heavy = np.ones(2 * len(names))
        self._arm = arm
        self._step = tf.function(self._graph, reduce_retracing=True)

    def learn(self, features: Any, rows: NDArray[np.int64], progress: float) -> None:
        """From its own rows of a batch, when so much of the training is done."""
        tf, mine = backend().tf, np.flatnonzero(self._mine[rows])
        if not len(mine):
            return
        rows = rows[mine]
        weights = np.ones(len(rows), np.float32)
        if self._arm.robust:
            weights = self._heavy[self._group[rows]].astype(np.float32)
            weights /= weights.mean()
        features = tf.gather(features, mine)
        if self._arm.mixed and self._random.random() < MIX_CHANCE:
            features = _mixed(features, self._random)
        rate = rate_at(self._recipe, progress)
        if self._arm.averaged:
            rate = STEADY_RATE * rate_at(self._recipe, min(progress, STEADY_FROM))
        for optimizer, factor in zip(self._optimizers, self._rates, strict=True):
            optimizer.learning_rate.assign(rate * factor)
        losses = self._step(features, self._allowed[rows], self._taught[rows], self._source[rows], weights).numpy()
        if not np.isfinite(losses).all():
            raise SystemExit("The loss became no number.")
        if self._arm.robust:
            for group in np.unique(self._group[rows]):
                self._heavy[group] *= math.exp(ROBUST_STEP * losses[self._group[rows] == group].mean())
            self._heavy /= self._heavy.mean()
        self._batches += 1
        if self._arm.averaged and progress > AVERAGED_FROM and self._batches % AVERAGED_EVERY == 0:
            now = [variable.numpy() for variable in self.model.trainable_variables]
            self._sum, self._summed = [a + b for a, b in zip(self._sum, now, strict=True)], self._summed + 1

    def _graph(self, features: Any, allowed: Any, taught: Any, source: Any, weights: Any) -> Any:
        tf, arm = backend().tf, self._arm
        flat = [variable for stage in self._stages for variable in stage]
        with tf.GradientTape() as tape:
            pooled, logits = self._upper(features, training=True)
            losses = coarse_losses(logits + self._offset, allowed)
            objective = (1 - arm.teacher) * tf.reduce_mean(weights * losses)
            if arm.teacher:
                from_teacher = tf.nn.softmax_cross_entropy_with_logits(labels=taught, logits=logits)
                objective += arm.teacher * tf.reduce_mean(from_teacher)
            if arm.adversary:
                told = self._adversary(_reversed(pooled, arm.adversary))
                guess = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=source, logits=told)
                objective += tf.reduce_mean(guess)
        learnt = [variable.value for variable in (*flat, *self._adversary.trainable_variables)]
        gradients = tape.gradient(objective, learnt)
        start = 0
        for optimizer, stage in zip(self._optimizers, self._stages, strict=True):
            optimizer.apply(gradients[start : start + len(stage)])
            start += len(stage)
        if arm.adversary:
            self._against.apply(gradients[start:])
        return losses

    def logits(self, recipe: Recipe, shots: Photographs) -> NDArray[np.float32]:
        """float32 (N, C), at the recipe's size."""
        scored = networks.build(recipe, len(NAMES))
        last = [variable.numpy() for variable in self.model.trainable_variables]
        kept = [each / self._summed for each in self._sum] if self._arm.averaged else last
        for variable, learned in zip(scored.trainable_variables, kept, strict=True):
            variable.assign(learned)
        graph = export_onnx(scored, size=recipe.size)
        return logits_of(Engine(bare(graph, recipe, NAMES)), shots.pixels, np.arange(len(shots.pixels)))


def _with_pooled(upper: Any) -> Any:
    """A model that gives its pooled features too."""
    keras = backend().keras
    pooled, values = None, (given := keras.Input(upper.input_shape[1:]))
    for layer in upper.layers[1:]:
        values = layer(values)
        pooled = values if layer.name == "pooled" else pooled
    return keras.Model(given, [pooled, values])


def _reversed(values: Any, strength: float) -> Any:
    """The values; their gradient comes back reversed."""
    tf = backend().tf
    return (1 + strength) * tf.stop_gradient(values) - strength * values


def _mixed(maps: Any, random: np.random.Generator) -> Any:
    """Maps (B, h, w, C) with means and deviations partly those of another picture of the batch."""
    tf, count = backend().tf, len(maps)
    share = random.beta(MIX_ALPHA, MIX_ALPHA, (count, 1, 1, 1)).astype(np.float32)
    mean, deviation = tf.reduce_mean(maps, (1, 2), True), tf.math.reduce_std(maps, (1, 2), True) + 1e-5
    other = random.permutation(count)
    means, deviations = (share * each + (1 - share) * tf.gather(each, other) for each in (mean, deviation))
    return (maps - mean) / deviation * deviations + means


# Judging


def judged(folder: Path, known: Mapping[str, Arm], shots: Photographs, prior: Mapping[str, float]) -> dict[str, Any]:
    """Figures of the arms that are there, with intervals over lesions, and their differences from the first.

    Args:
        prior: how common each class is, by which logits become probabilities: they were learnt without.
    """
    if not (folder / f"{BASE}.npz").exists():
        raise SystemExit(f"{folder} has no {BASE}.npz, from which differences are told: train `--only {BASE}` first.")
    told: dict[str, Any] = {}
    first: dict[str, Scores] = {}
    for name, arm in known.items():
        if not (folder / f"{name}.npz").exists():
            continue
        found, about = read_arrays(folder / f"{name}.npz")
        views = views_of(found, shots, Calibration(1.0, tuple(math.log(prior[each]) for each in NAMES)))
        first = first or views
        told[name] = {
            "words": arm.words,
            "epochs": about["arm"]["epochs"],
            "melanoma_auc": {view: _auc(scores) for view, scores in views.items()},
            "difference": {view: _difference(views[view], first[view]) for view in views},
            "macro_auc": float(macro_auc(in_categories(views[LEFT_OUT], {}))),
        }
    return told


def views_of(
    found: Mapping[str, NDArray[np.float32]], shots: Photographs, calibration: Calibration
) -> dict[str, Scores]:
    """Fold 1, by collection too, and each collection by the network that learnt from nothing of it."""
    fold = shots.parts == LEFT_OUT
    rows = {LEFT_OUT: (LEFT_OUT, fold)}
    for name in sorted(set(shots.collections)):
        rows[f"{LEFT_OUT}, {name}"] = (LEFT_OUT, fold & (shots.collections == name))
        rows[f"{name}, never seen"] = (f"without {name}", shots.alone(name))
    return {view: shots.scores(kept, calibration.apply(found[key][kept])) for view, (key, kept) in rows.items()}


def _auc(scores: Scores) -> dict[str, Any]:
    binary = scores.melanoma()
    return group_bootstrap(lambda weights: roc_auc(binary, weights), binary.groups).to_json()


def _difference(scores: Scores, base: Scores) -> dict[str, Any]:
    mine, theirs = scores.melanoma(), base.melanoma()
    return paired_difference(
        lambda weights: roc_auc(mine, weights), lambda weights: roc_auc(theirs, weights), mine.groups
    ).to_json()


if __name__ == "__main__":
    main()

"""Studies drawn at random, for the tests of the comparison and its page: no training, no picture of skin."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import BrokenPicture
from dermalert.judge.evaluation import evaluate
from dermalert.judge.scores import Scores
from dermalert.judge.study import Arm, ArmRun, Cost, Curves, Leak, LeakSide, Study
from dermalert.taxonomy import NAMES

HOSTILE = '"><script>alert(1)</script>\u202egpj.exe'
TEST_VIEWS = ("validation", "test, raw", "test, clean")
RESAMPLES = 60
TRAINED_ON = (92, 301, 76, 351, 286, 370, 62, 145, 111)  # by class, as unlike as in a real collection

# name, what it does, what differs, how much it knows, what its curves say
WAYS = (
    ("plain", "the tutorial's network, from nothing", (), 1.0, "overfitting"),
    ("augmented", "turned, flipped and recoloured", ("flips and turns", "light and colour"), 1.25, "still improving"),
    ("balanced", "rare diagnoses multiplied in training", ("training pictures resampled",), 1.05, "overfitting"),
    ("class-weights", "rare diagnoses count more in the loss", ("weights by class",), 0.95, "unstable"),
    ("balanced-sampling", "each batch holds all diagnoses", ("batches drawn by class",), 1.1, "overfitting"),
    ("focal", "hard pictures count more", ("focal loss, gamma 2",), 0.9, "good fit"),
    ("logit-adjusted", "the prior taken out of the loss", ("logits shifted by class share",), 1.15, "good fit"),
    ("transfer", "EfficientNet-Lite0 from ImageNet, fine-tuned", ("another network", "224 px"), 2.4, "good fit"),
    ("plain + flips", "one augmentation alone", ("flips",), 1.1, "overfitting"),
    ("pooled", "a second collection beside the first", ("two collections",), 1.8, "good fit"),
)


def scores(pictures: int, *, skill: float, seed: int, difficulty: int = 0) -> Scores:
    """A model that knows `skill` of the truth; `difficulty` draws what is hard in these pictures for every model."""
    hard, own = np.random.default_rng(difficulty), np.random.default_rng(seed)
    truth = np.arange(pictures) % len(NAMES)
    logits = hard.normal(size=(pictures, len(NAMES))) + 0.6 * own.normal(size=(pictures, len(NAMES)))
    logits[np.arange(pictures), truth] += skill
    odds = np.exp(logits)
    ids = tuple(f"{NAMES[kind]}/{i:03}.jpg" for i, kind in enumerate(truth.tolist()))
    groups = np.arange(pictures, dtype=np.int64) // 2 // len(NAMES) * len(NAMES) + truth
    return Scores(ids, NAMES, odds / odds.sum(axis=1, keepdims=True), np.eye(len(NAMES), dtype=bool)[truth], groups)


def run(*, skill: float = 1.0, seed: int = 0, verdict: str = "good fit", views: tuple[str, ...] = TEST_VIEWS) -> ArmRun:
    """One training, its curves after its skill."""
    sizes = {"validation": 180, "test, raw": 117, "test, clean": 72}
    judged = {
        view: scores(sizes.get(view, 90), skill=skill, seed=seed + 31 * number, difficulty=number)
        for number, view in enumerate(views)
    }
    return ArmRun(
        seed=seed,
        evaluations={view: evaluate(one, operating_point=None, resamples=RESAMPLES) for view, one in judged.items()},
        scores=judged,
        cost=Cost(95.0 + 400 * skill, 210.0 / skill, int(3.9e6 * skill), 1500.0 + 100 * seed, 14, 9),
        curves=curves(skill, seed),
        verdict=verdict,
        sentences=("After epoch 9 the validation loss rises while the training loss falls.",),
        suggestions=("Augment the training pictures.", "Get more lesions."),
    )


def curves(skill: float, seed: int, epochs: int = 14) -> Curves:
    random, at = np.random.default_rng(seed), np.arange(epochs)
    loss = 2.1 * np.exp(-at * 0.12 * skill) + 0.05
    val_loss = 2.1 * np.exp(-at * 0.12) + 0.6 / skill + 0.015 * at**1.3 + 0.04 * random.normal(size=epochs)
    accuracy = 1 - np.exp(-0.15 * skill * (at + 1))
    val_accuracy = 0.25 * skill * (1 - np.exp(-0.3 * (at + 1))) + 0.02 * random.normal(size=epochs)
    return Curves(loss.tolist(), accuracy.tolist(), val_loss.tolist(), np.clip(val_accuracy, 0, 1).tolist())


def arm(
    name: str,
    summary: str = "",
    changes: tuple[str, ...] = (),
    *,
    skill: float = 1.0,
    verdict: str = "good fit",
    seeds: tuple[int, ...] = (0,),
    views: tuple[str, ...] = TEST_VIEWS,
) -> Arm:
    balanced = "balanc" in name
    return Arm(
        name=name,
        summary=summary,
        recipe_json='{\n  "name": "drawn",\n  "epochs": 14\n}',
        changes=changes,
        runs=[run(skill=skill + 0.05 * seed, seed=seed, verdict=verdict, views=views) for seed in seeds],
        training_counts={kind: 370 if balanced else n for kind, n in zip(NAMES, TRAINED_ON, strict=True)},
    )


def leak() -> Leak:
    """A leaky way that promises much and a honest one that promises what it keeps."""
    sides = []
    for skill, siblings in ((3.5, 611), (1.0, 0)):
        side = run(skill=1.0, seed=int(skill))
        seen = scores(180, skill=skill, seed=1)
        evaluations = {**side.evaluations, "validation": evaluate(seen, operating_point=None, resamples=RESAMPLES)}
        sides.append(LeakSide(5400 if siblings else 1794, 640 if siblings else 445, siblings, evaluations))
    return Leak(honest=sides[1], leaky=sides[0])


def whole_study() -> Study:
    """Twelve arms: one failed, one skipped, two of them trained thrice, one with sources of its own; and a leak."""
    arms = [
        arm(
            name,
            summary,
            changes,
            skill=skill,
            verdict=verdict,
            seeds=(0, 1, 2) if name in ("plain", "transfer") else (0,),
            views=(*TEST_VIEWS, "validation, isic9", "validation, ham10000") if name == "pooled" else TEST_VIEWS,
        )
        for name, summary, changes, skill, verdict in WAYS
    ]
    lost = Arm("plain + cutout", "a hole in each picture", "{}", ("cutout",), (), "failed", f"out of memory {HOSTILE}")
    skipped = Arm("transfer-large", "a larger network", "{}", ("Lite2",), (), "skipped", "Its weights are not here.")
    return Study(
        name="drawn",
        baseline="plain",
        arms=[*arms, lost, skipped],
        views=TEST_VIEWS,
        class_counts={
            kind: {"train": n, "validation": n // 4, "test": 13} for kind, n in zip(NAMES, TRAINED_ON, strict=True)
        },
        refused=[BrokenPicture(HOSTILE, "cut off", "Copy it again")],
        notes=["155 groups of identical files carry contradictory labels; they were left out."],
        leak=leak(),
        resamples=RESAMPLES,
    )


def samples() -> dict[str, list[NDArray[np.uint8]]]:
    """An original and five versions for three augmentations."""
    random = np.random.default_rng(0)
    down, across = np.mgrid[:90, :120]
    spot = np.hypot(down - 45, across - 60) < 28
    original = np.where(spot[..., None], (96, 58, 40), (214, 170, 150)).astype(np.uint8)
    original[spot] += random.integers(0, 40, size=(int(spot.sum()), 3), dtype=np.uint8)
    turned = [np.ascontiguousarray(np.rot90(original, k)) for k in (1, 2, 3)]
    flipped = [np.ascontiguousarray(original[::-1]), np.ascontiguousarray(original[:, ::-1])]
    lit = [np.clip(original * factor, 0, 255).astype(np.uint8) for factor in (0.6, 0.8, 1.15)]
    return {"flips": [original, *flipped], "quarter turns": [original, *turned], "light": [original, *lit]}


def diverged(one: Arm) -> Arm:
    """The same arm, its losses no numbers after the second epoch, its cost not measured."""
    first = one.runs[0]
    lost = [first.curves.loss[0], first.curves.loss[1], *([math.nan] * 12)]
    cost = replace(first.cost, images_per_second=math.nan, peak_mib=math.nan, best_epoch=None)
    curve = replace(first.curves, loss=lost, val_loss=lost)
    return replace(one, runs=[replace(first, curves=curve, cost=cost, verdict="diverged")])

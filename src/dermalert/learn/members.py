"""Several networks trained at once on one frozen trunk: the folds of a cross-validation, or one network a left-out set.

Comes in: pixels, labels, and for each member the rows that it learns from. Goes out: a trained model a member.

All members start from the same backbone and leave its lowest stages as they are. What these make of an augmented batch
is therefore the same for all and is computed once; each member then learns from its own rows of the batch. Five folds
cost about half of five trainings, and see the same pictures in the same order. Nothing is chosen on held-out rows:
training runs for as many epochs as the recipe says, and the last weights are kept.

    run/members.json      the recipe, and a fingerprint of the data and the members
    run/members.npz       weights and optimizers of all members after the last whole epoch
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dermalert.errors import RunError
from dermalert.learn import balance, networks, torch_step
from dermalert.learn.augment import Augmented, Augmenter
from dermalert.learn.backend import backend
from dermalert.learn.checkpoint import fingerprint, read_arrays, write_arrays, write_text
from dermalert.learn.pipeline import batches
from dermalert.learn.recipes import Recipe
from dermalert.learn.step import Labels, State, Step
from dermalert.learn.train import training_part

Rows = NDArray[np.int64]
_ABOUT, _STATE = "members.json", "members.npz"
_ALWAYS = {
    "precision": "float32",
    "balance": "tempered",
    "loss": "logit-adjusted",
    "schedule": "cosine",
    "keep": "last",
    "views": 1,
    "frozen_epochs": 0,
}
_RARE = 1e-4  # added to shares: a member without one collection may see nothing of a class
_WARM_UP = 0.03  # of the training, in which the rate climbs to its height


def fit_members(
    pixels: NDArray[np.uint8],
    allowed: NDArray[np.bool_],
    strata: Rows,
    members: Mapping[str, Rows],
    recipe: Recipe,
    run: Path,
    *,
    shown: tuple[int, int],
    resume: bool = False,
    framework: str = "tensorflow",
    progress: bool = True,
) -> dict[str, Any]:
    """Trains all members, or goes on where `run` stopped.

    Args:
        pixels: uint8 (N, H, W, 3) at the recipe's size.
        allowed: bool (N, C), the classes that each label may stand for.
        strata: int64 (N,), what `balance.tempered_order` keeps in proportion.
        members: name -> int64 (T,), the rows that it learns from.
        recipe: its backbone, rates, augmentation and number of epochs. The loss is logit-adjusted with the class shares
            of what each member is shown, so that logits know no prevalence.
        run: folder for checkpoints.
        shown: width and height at which training pictures are shown. Smaller than the recipe's size is faster and no
            loss: augmentation makes objects larger than scoring does (Touvron et al., NeurIPS 2019).
        framework: one of `FRAMEWORKS`; `torch` trains on a GPU where there is one. Either goes on with what the other
            began.

    Returns:
        name -> keras.Model, float32, from (N, H, W, 3) at the recipe's size to logits (N, C).

    Raises:
        RunError: `run` holds another training, or one and `resume` is off; the recipe blends pictures, freezes
            nothing, or training diverged.
        MissingExtra: the framework is not installed.
    """
    _check(recipe)
    using = FRAMEWORKS[framework]()
    lessons = {name: _Member(rows, allowed, strata, recipe, shown, using) for name, rows in members.items()}
    trunk = next(iter(lessons.values())).trunk
    done = _begin(lessons, pixels, allowed, strata, members, recipe, shown, run, resume)
    every = np.unique(np.concatenate(list(members.values())))
    augmenter = Augmenter(recipe.augment, size=shown, given=recipe.size, seed=recipe.seed)
    for number in range(done + 1, recipe.epochs + 1):
        epoch(list(lessons.values()), trunk, pixels, every, strata, augmenter, recipe, number, progress=progress)
        states = {f"{name}|{key}": array for name, each in lessons.items() for key, array in each.step.state().items()}
        write_arrays(run / _STATE, states, {"epochs": number})
    return {name: at_size(each.model, recipe) for name, each in lessons.items()}


class Framework(Protocol):
    """What computes."""

    def divided(self, model: Any, frozen_stages: int) -> tuple[Any, Any]:
        """A function from pixels to what the frozen stages make of them, and the rest of the model."""

    def step(self, upper: Any, **options: Any) -> Any:
        """A `step.Step` of the rest, or what stands for one."""

    def some(self, features: Any, rows: Rows) -> Any:
        """Those of some pictures of a batch."""

    def mean_said(self, uppers: Sequence[Any]) -> Callable[[Any], NDArray[np.float32]]:
        """A function from features to the softmax of the models' mean logits, (B, C)."""


class _TensorFlow:
    """On the processor."""

    def divided(self, model: Any, frozen_stages: int) -> tuple[Any, Any]:
        return networks.divided(model, frozen_stages)

    def step(self, upper: Any, **options: Any) -> Step:
        return Step(upper, takes="float32", **options)

    def some(self, features: Any, rows: Rows) -> Any:
        return backend().tf.gather(features, rows)

    def mean_said(self, uppers: Sequence[Any]) -> Callable[[Any], NDArray[np.float32]]:
        tf = backend().tf

        def mean(features: Any) -> Any:
            return tf.nn.softmax(tf.add_n([upper(features, training=False) for upper in uppers]) / len(uppers))

        given = tf.TensorSpec((None, *uppers[0].input_shape[1:]), tf.float32)
        compiled = tf.function(mean, input_signature=[given])
        return lambda features: np.asarray(compiled(features))


class _Torch:
    """On a GPU, where there is one."""

    def __init__(self) -> None:
        self._device = torch_step.best_device()
        if self._device == "cpu":
            tqdm.write("PyTorch sees no GPU, and trains on the processor.", file=sys.stderr)

    def divided(self, model: Any, frozen_stages: int) -> tuple[Any, Any]:
        return torch_step.divided(model, frozen_stages, self._device)

    def step(self, upper: Any, **options: Any) -> torch_step.TorchStep:
        return torch_step.TorchStep(upper, device=self._device, **options)

    def some(self, features: Any, rows: Rows) -> Any:
        return features[rows]

    def mean_said(self, uppers: Sequence[Any]) -> Callable[[Any], NDArray[np.float32]]:
        return torch_step.mean_said(uppers, self._device)


FRAMEWORKS: dict[str, Callable[[], Framework]] = {"tensorflow": _TensorFlow, "torch": _Torch}


class _Member:
    """One network: its own head and upper stages, and the rows that it may learn from."""

    def __init__(
        self,
        rows: Rows,
        allowed: NDArray[np.bool_],
        strata: Rows,
        recipe: Recipe,
        shown: tuple[int, int],
        using: Framework,
    ) -> None:
        self._using = using
        self.model = networks.build(replace(recipe, size=shown), allowed.shape[1])
        self.trunk, upper = using.divided(self.model, recipe.frozen_stages)
        stages, rates = networks.learning(self.model, recipe)
        shares = balance.likeliest_shares(allowed[rows], turns(strata[rows]))
        offset = np.log(shares + _RARE).astype(np.float32)
        self.step = using.step(upper, stages=stages, rates=rates, offset=offset)
        self._learns = np.isin(np.arange(len(allowed)), rows)
        self._allowed = allowed.astype(np.float32)

    def learn(self, features: Any, rows: Rows, rate: float) -> tuple[float, int, int]:
        """From its own rows of a batch: summed loss, hits, and how many rows it learned from."""
        mine = np.flatnonzero(self._learns[rows])
        if not len(mine):
            return 0.0, 0, 0
        part = features if len(mine) == len(rows) else self._using.some(features, mine)
        loss, hits = self.step.train(part, Labels.plain(self._allowed[rows[mine]]), rate)
        return loss, hits, len(mine)


def at_size(model: Any, recipe: Recipe) -> Any:
    """The same weights in a network at the recipe's size."""
    made = networks.build(recipe, model.output_shape[-1])
    for variable, learned in zip(made.trainable_variables, model.trainable_variables, strict=True):
        variable.assign(learned)
    return made


def turns(strata: Rows) -> NDArray[np.float64]:
    """How much each picture counts in what `balance.tempered_order` shows."""
    _, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = 1 / np.sqrt(counts[inverse])
    return weights


class Lesson(Protocol):
    """A network that learns."""

    def learn(self, features: Any, rows: Rows, rate: float) -> tuple[float, int, int]:
        """From a batch: summed loss, hits, and how many rows it learned from."""


def epoch(
    lessons: Sequence[Lesson],
    trunk: Any,
    pixels: NDArray[np.uint8],
    every: Rows,
    strata: Rows,
    augmenter: Augmenter,
    recipe: Recipe,
    number: int,
    *,
    before: int = 0,
    title: str = "epoch",
    progress: bool = True,
) -> None:
    """One epoch of the recipe's, of the rows `every`.

    Args:
        number: from 1 to `recipe.epochs`.
        before: epochs of other trainings on the same pictures; these are then shown otherwise than in any of them.
    """
    drawn = before + number
    order = balance.tempered_order(every, strata, np.random.default_rng((recipe.seed, drawn)))

    def change(batch: NDArray[np.uint8], index: int) -> Augmented:
        return augmenter(batch, epoch=drawn, batch=index)

    told, done = np.zeros(3), 0
    with tqdm(total=len(order), desc=f"{title} {number}/{recipe.epochs}", unit="picture", disable=not progress) as bar:
        for rows, made in batches(pixels, order, recipe.batch_size, change=change):
            rate = rate_at(recipe, (number - 1 + done / len(order)) / recipe.epochs)
            features = trunk(made.pixels)
            told += np.sum([lesson.learn(features, rows, rate) for lesson in lessons], axis=0)
            if not np.isfinite(told[0]):
                raise RunError(f"The loss became {told[0]} in epoch {number}. Lower the learning rate.")
            done += len(rows)
            bar.set_postfix(loss=f"{told[0] / told[2]:.3f}", accuracy=f"{told[1] / told[2]:.3f}", refresh=False)
            bar.update(len(rows))


def rate_at(recipe: Recipe, progress: float) -> float:
    """A short climb, then half a cosine down to 0."""
    return recipe.learning_rate * min(1.0, progress / _WARM_UP) * (1 + math.cos(math.pi * progress)) / 2


def _check(recipe: Recipe) -> None:
    if {"mixup", "cutmix"} & set(recipe.augment):
        raise RunError("Members cannot blend pictures: the other half might be one that a member must not see.")
    if not recipe.frozen_stages:
        raise RunError("Members share their lowest stages: `frozen_stages` must be 1 or more.")
    for name, value in _ALWAYS.items():
        if getattr(recipe, name) != value:
            raise RunError(
                f"Members are always trained with {name} {value!r}; this recipe says {getattr(recipe, name)!r}."
            )


def _begin(
    lessons: Mapping[str, _Member],
    pixels: NDArray[np.uint8],
    allowed: NDArray[np.bool_],
    strata: Rows,
    members: Mapping[str, Rows],
    recipe: Recipe,
    shown: tuple[int, int],
    run: Path,
    resume: bool,
) -> int:
    """Claims the run folder or restores what it holds; the number of epochs done."""
    names = sorted(members)
    data = fingerprint((pixels.shape, shown, names), (allowed, strata, *(members[name] for name in names)))
    about = {"recipe": json.loads(training_part(recipe).to_json()), "data": data}
    file = run / _ABOUT
    if not file.exists():
        run.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(about, indent=2))
        return 0
    if not resume:
        raise RunError(f"{run} holds a training. Go on with it with --resume, or name another folder.")
    if json.loads(file.read_text(encoding="utf-8")) != about:
        raise RunError(f"{run} was begun with another recipe or on other data. Name another folder.")
    if not (run / _STATE).exists():
        return 0
    arrays, told = read_arrays(run / _STATE)
    for name, member in lessons.items():
        state: State = {key.split("|", 1)[1]: array for key, array in arrays.items() if key.split("|", 1)[0] == name}
        member.step.restore(state)
    return int(told["epochs"])

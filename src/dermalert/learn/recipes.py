"""Recipes: what a training run does, as one short value.

Comes in: a name, or the JSON that an earlier run wrote or a person edited. Goes out: a `Recipe`.
It imports no training framework and touches no data; `train.fit` does what a recipe says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from dermalert.errors import RunError

PRECISIONS = ("auto", "float32", "mixed_bfloat16")
SCHEDULES = ("constant", "cosine")
KEPT = ("best", "last")
BALANCES = ("none", "augmentor", "class-weights", "sampling", "tempered")
LOSSES = ("cross-entropy", "focal", "logit-adjusted")
PREPARATIONS = ("shades-of-gray", "remove-vignette")
VIEWS = (1, 4)
# What an augmentation's number means, and its highest value. `augment.Augmenter` draws them.
AUGMENTATIONS: dict[str, tuple[str, float]] = {
    "flip": ("chance of a mirror image, along each axis", 1.0),
    "rotate": ("turn either way, at most so many full turns", 0.5),
    "zoom": ("nearer or farther by at most this share", 0.9),
    "shift": ("moved by at most this share of the width and height", 0.9),
    "brightness": ("lighter or darker by at most this share of the range", 1.0),
    "contrast": ("more or less by at most this share", 0.9),
    "colour": ("hue by at most this share of half a turn, saturation by at most this share", 1.0),
    "randaugment": ("two operations by chance, of at most this strength", 1.0),
    "hair": ("chance of drawn hairs", 1.0),
    "ruler": ("chance of a drawn ruler", 1.0),
    "mixup": ("two pictures blended, by a share from Beta(a, a) with this a", 10.0),
    "cutmix": ("a patch of another picture, its area by Beta(a, a) with this a", 10.0),
    # A name's place seeds its chance: add at the end.
    "aspect": ("stretched along one axis and squeezed along the other by at most this share", 0.9),
    "illuminant": ("each of red, green and blue by at most this share, as under another lamp", 0.9),
    "ink": ("chance of drawn marker strokes", 1.0),
    "frame": ("chance of a drawn black frame, round or straight", 1.0),
    "degrade": ("chance of lost resolution and strong JPEG compression", 1.0),
}


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Attributes:
        name: what `--recipe` calls it.
        network: a name that `networks.build` knows: `plain-cnn`, `mobilenetv2`, `efficientnet-lite0`,
            `efficientnet-lite2`, or `keras/NAME` for any model of `keras.applications`.
        summary: what it is for, in one sentence.
        weights: what the backbone starts from: `none` (chance), `imagenet`, or the path of a weights file.
        size: width and height in pixels of the pictures that the network sees.
        batch_size: pictures a step.
        epochs: passes over the training pictures, at most.
        learning_rate: of Adam, in the head.
        schedule: of the learning rate: `constant`, or `cosine` from the first step down to 0 at the last of `epochs`.
        backbone_rate: factor of the learning rate from the head to the last stage of a backbone.
        depth_decay: factor of the learning rate from one stage of a backbone to the next one below.
        frozen_epochs: epochs at the beginning in which only the head learns.
        frozen_stages: so many of a backbone's lowest stages never learn.
        patience: epochs without a lower validation loss after which training stops.
        keep: which epoch's weights are kept: `best`, of the lowest validation loss, or `last`.
        precision: `float32`, `mixed_bfloat16` (weights stay float32, arithmetic is bfloat16), or
            `auto`: whichever is faster on this machine, measured once and recorded in the run.
        dropout: fraction of the features before the dense layers that each step leaves out.
        prepare: what is done to every picture inside the network, in training and in scoring alike:
            `shades-of-gray`, `remove-vignette`.
        augment: how training pictures are changed by chance, names of `AUGMENTATIONS` and their strength.
        balance: what is done about rare classes, on training pictures only: `none`; `augmentor`, filled up by the
            Augmentor library to the largest; `class-weights` in the loss; `sampling`, each class as often;
            `tempered`, each kind of label as often as the square root of its pictures.
        loss: `cross-entropy`; `focal` (Lin et al., ICCV 2017); `logit-adjusted` (Menon et al., ICLR 2021).
        views: mirror images that are averaged when a picture is scored: 1, or all 4.
        pooled: whether it also learns from the other sets that a study is given.
        seed: of the weights, the order of the pictures, augmentation and dropout.
    """

    name: str
    network: str
    summary: str = ""
    weights: str = "none"
    size: tuple[int, int] = (180, 180)
    batch_size: int = 32
    epochs: int = 20
    learning_rate: float = 1e-3
    schedule: str = "constant"
    backbone_rate: float = 1.0
    depth_decay: float = 1.0
    frozen_epochs: int = 0
    frozen_stages: int = 0
    patience: int = 5
    keep: str = "best"
    precision: str = "auto"
    dropout: float = 0.0
    prepare: tuple[str, ...] = ()
    augment: Mapping[str, float] = field(default_factory=dict)
    balance: str = "none"
    loss: str = "cross-entropy"
    views: int = 1
    pooled: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(isinstance(side, int) and side >= 1 for side in self.size):
            self._refuse("size", "it is a width and a height in whole pixels")
        for name in ("batch_size", "epochs", "patience"):
            if getattr(self, name) < 1:
                self._refuse(name, "it must be 1 or more")
        for name in ("frozen_epochs", "frozen_stages", "seed"):
            if getattr(self, name) < 0:
                self._refuse(name, "it must be 0 or more")
        if not self.learning_rate > 0:
            self._refuse("learning_rate", "it must be above 0")
        for name in ("backbone_rate", "depth_decay"):
            if not 0 < getattr(self, name) <= 1:
                self._refuse(name, "it must be above 0 and at most 1")
        if not 0 <= self.dropout < 1:
            self._refuse("dropout", "it must be from 0 to below 1")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                self._refuse(name, f"it must be one of {', '.join(map(str, known))}")
        for name in self.prepare:
            if name not in PREPARATIONS:
                self._refuse("prepare", f"{name!r} is none of {', '.join(PREPARATIONS)}")
        for name, strength in self.augment.items():
            if name not in AUGMENTATIONS:
                self._refuse("augment", f"{name!r} is none of {', '.join(AUGMENTATIONS)}")
            if not 0 < strength <= AUGMENTATIONS[name][1]:
                self._refuse("augment", f"{name} must be above 0 and at most {AUGMENTATIONS[name][1]:g}")

    def _refuse(self, name: str, why: str) -> None:
        raise RunError(f"Recipe {self.name!r}: {name} is {getattr(self, name)!r}; {why}.")

    def to_json(self) -> str:
        """The recipe as a JSON object, one key a field."""
        return json.dumps({**asdict(self), "augment": dict(self.augment)}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that `to_json` wrote or a person did; what is left out has its default.

        Raises:
            RunError: not JSON, without name or network, with an unknown field, or a value outside its range.
        """
        try:
            values = json.loads(text)
            if not isinstance(values, dict):
                raise TypeError("it must be a JSON object")
            known = [each.name for each in fields(cls)]
            if unknown := sorted(set(values) - set(known)):
                raise RunError(f"A recipe has no field {', '.join(unknown)}. It has: {', '.join(known)}.")
            return cls(**_of_kind(values))
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(f"Not a recipe: {error}.") from None


def recipe_from(file: Path) -> Recipe:
    """The recipe that a file holds.

    Raises:
        RunError: the file cannot be read, or holds none.
    """
    try:
        return Recipe.from_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{file}: not a recipe ({error}). `dermalert recipes NAME` prints one.") from None
    except RunError as error:
        raise RunError(f"{file}: {error}") from None


_CHOICES: dict[str, tuple[Any, ...]] = {
    "precision": PRECISIONS,
    "schedule": SCHEDULES,
    "keep": KEPT,
    "balance": BALANCES,
    "loss": LOSSES,
    "views": VIEWS,
}


def _of_kind(values: dict[str, Any]) -> dict[str, Any]:
    """JSON's values as the fields hold them, once each is of its field's kind: nothing is converted silently."""
    kinds = {each.name: str(each.type) for each in fields(Recipe)}
    made = dict(values)
    for name, value in values.items():
        kind = kinds[name]
        if kind.startswith("tuple") and isinstance(value, list):
            made[name] = tuple(value)
        elif not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "bool"):
            raise TypeError(f"{name} is {value!r}; it must be {_KIND_WORDS[kind]}")
    return made


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "Mapping[str, float]": (dict,),
    "tuple[int, int]": (),
    "tuple[str, ...]": (),
}
_KIND_WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "Mapping[str, float]": "an object of names and numbers",
    "tuple[int, int]": "a list of two whole numbers",
    "tuple[str, ...]": "a list of names",
}

# TensorFlow's image classification tutorial, as the public copies it for the nine-class set. The tutorial
# fixes the number of epochs; here validation ends the run, and the number is only a ceiling.
PLAIN = Recipe(
    name="plain",
    network="plain-cnn",
    summary="The small network of TensorFlow's tutorial, trained from nothing: the baseline.",
)
AUGMENTED = replace(
    PLAIN,
    name="augmented",
    summary="Plain, its training pictures mirrored, turned, zoomed, shifted and recoloured by chance.",
    augment={
        "flip": 0.5,
        "rotate": 0.5,
        "zoom": 0.2,
        "shift": 0.1,
        "brightness": 0.1,
        "contrast": 0.2,
        "colour": 0.1,
    },
    epochs=40,
    patience=8,
)
TRANSFER = replace(
    AUGMENTED,
    name="transfer",
    network="mobilenetv2",
    weights="imagenet",
    summary="Augmented, on MobileNetV2 that knows ImageNet: the head first, then all, deeper stages slower.",
    size=(160, 160),
    epochs=16,
    schedule="cosine",
    backbone_rate=0.3,
    depth_decay=0.3,
    frozen_epochs=2,
    patience=6,
    dropout=0.2,
)

_BALANCING: dict[str, tuple[str, dict[str, Any]]] = {
    "balanced": ("Plain, rare classes filled up by the Augmentor library after the split.", {"balance": "augmentor"}),
    "class-weights": ("Plain, rare classes weighing more in the loss.", {"balance": "class-weights"}),
    "balanced-sampling": ("Plain, every class shown equally often.", {"balance": "sampling"}),
    "focal": ("Plain, with the focal loss: what is learned already weighs less.", {"loss": "focal"}),
    "logit-adjusted": ("Plain, its logits offset by how common each class is.", {"loss": "logit-adjusted"}),
}
# One thing more each, on top of `augmented`.
_ADDED: dict[str, tuple[str, dict[str, Any]]] = {
    "mixup": ("pairs of pictures blended", {"augment": {"mixup": 0.2}}),
    "cutmix": ("patches of other pictures", {"augment": {"cutmix": 1.0}}),
    "randaugment": ("two strong operations by chance", {"augment": {"randaugment": 0.5}}),
    "colour-constancy": ("shades-of-gray colour constancy", {"prepare": ("shades-of-gray",)}),
    "occlusion": ("drawn hairs and rulers", {"augment": {"hair": 0.3, "ruler": 0.2}}),
    "no-vignette": ("dark corners filled with skin", {"prepare": ("remove-vignette",)}),
    "test-time": ("four mirror images averaged when scoring", {"views": 4}),
}


def _added(name: str, words: str, change: Mapping[str, Any]) -> Recipe:
    more = {**change, "augment": {**AUGMENTED.augment, **change.get("augment", {})}}
    return replace(AUGMENTED, name=name, summary=f"Augmented, and {words}.", **more)


def _all() -> dict[str, Recipe]:
    balancing = [replace(PLAIN, name=name, summary=words, **change) for name, (words, change) in _BALANCING.items()]
    added = [_added(name, *change) for name, change in _ADDED.items()]
    pooled = replace(
        AUGMENTED, name="pooled", pooled=True, summary="Augmented, learning from other data sets as well (--pool)."
    )
    return {recipe.name: recipe for recipe in (PLAIN, AUGMENTED, *balancing, TRANSFER, *added, pooled)}


RECIPES: dict[str, Recipe] = _all()
# What `dermalert release` trains the folds by; `summary` and `name` are the bundle's.
RELEASE = Recipe(
    name="dermalert-1",
    network="mobilenetv2",
    summary="Folds on one frozen trunk, shown every collection and diagnosis by the root of its pictures.",
    weights="imagenet",
    size=(160, 160),
    prepare=("shades-of-gray",),
    batch_size=64,
    epochs=22,
    schedule="cosine",
    backbone_rate=0.2,
    depth_decay=0.5,
    frozen_stages=3,
    patience=22,
    keep="last",
    precision="float32",
    dropout=0.2,
    augment={
        "flip": 0.5,
        "rotate": 0.5,
        "zoom": 0.3,
        "aspect": 0.25,
        "shift": 0.1,
        "brightness": 0.12,
        "contrast": 0.3,
        "colour": 0.06,
        "illuminant": 0.12,
        "hair": 0.1,
        "ruler": 0.03,
        "ink": 0.03,
        "frame": 0.08,
        "degrade": 0.25,
    },
    balance="tempered",
    loss="logit-adjusted",
)
AUGMENT_SEARCH: tuple[str, ...] = tuple(_ADDED)


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    >>> recipe_named("plain").size
    (180, 180)

    Raises:
        RunError: there is none; the message lists those there are.
    """
    if name not in RECIPES:
        raise RunError(f"There is no recipe {name!r}. Known: {', '.join(RECIPES)}.")
    return RECIPES[name]


def differences(recipe: Recipe, other: Recipe) -> tuple[str, ...]:
    """What `recipe` does otherwise than `other`, in words; names, summaries and seeds do not count.

    >>> differences(recipe_named("focal"), recipe_named("plain"))
    ('loss: focal (not cross-entropy)',)
    """
    silent = {"name", "summary", "seed"}
    mine, theirs = asdict(recipe), asdict(other)
    return tuple(
        f"{name.replace('_', ' ')}: {_told(mine[name])} (not {_told(theirs[name])})"
        for name in mine
        if name not in silent and mine[name] != theirs[name]
    )


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {strength:g}" for name, strength in value.items()) or "nothing"
    if isinstance(value, tuple):
        return (
            "×".join(map(str, value))
            if all(isinstance(each, int) for each in value) and value
            else ", ".join(value) or "nothing"
        )
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)

"""Recipes: what a training run does, as one short value.

Comes in: a name, or the JSON that an earlier run wrote. Goes out: a `Recipe`.
It imports no training framework and touches no data; `train.fit` does what a recipe says.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from dermalert.errors import RunError

PRECISIONS = ("auto", "float32", "mixed_bfloat16")


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Attributes:
        name: what `--recipe` calls it.
        network: a name that `networks.build` knows.
        size: width and height in pixels of the pictures that the network sees.
        batch_size: pictures a step.
        epochs: passes over the training pictures, at most.
        learning_rate: of Adam.
        patience: epochs without a lower validation loss after which training stops.
        precision: `float32`, `mixed_bfloat16` (weights stay float32, arithmetic is bfloat16), or
            `auto`: whichever is faster on this machine, measured once and recorded in the run.
        dropout: fraction of the features before the dense layers that each step leaves out.
        seed: of the weights, the order of the pictures and dropout.
    """

    name: str
    network: str
    size: tuple[int, int]
    batch_size: int
    epochs: int
    learning_rate: float
    patience: int
    precision: str
    dropout: float
    seed: int

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise RunError(f"Recipe {self.name!r}: size is {self.size}; it is a width and a height in pixels.")
        for name in ("batch_size", "epochs", "patience"):
            if getattr(self, name) < 1:
                raise RunError(f"Recipe {self.name!r}: {name} is {getattr(self, name)}; it must be 1 or more.")
        if not self.learning_rate > 0:
            raise RunError(f"Recipe {self.name!r}: learning_rate is {self.learning_rate}; it must be above 0.")
        if not 0 <= self.dropout < 1:
            raise RunError(f"Recipe {self.name!r}: dropout is {self.dropout}; it must be from 0 to below 1.")
        if self.seed < 0:
            raise RunError(f"Recipe {self.name!r}: seed is {self.seed}; it must be 0 or more.")
        if self.precision not in PRECISIONS:
            raise RunError(f"Recipe {self.name!r}: precision {self.precision!r} is none of {', '.join(PRECISIONS)}.")

    def to_json(self) -> str:
        """The recipe as a JSON object, one key a field."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that `to_json` wrote.

        Raises:
            RunError: not JSON, a field is missing or unknown, or a value is outside its range.
        """
        try:
            values = json.loads(text)
            expected = {field.name for field in fields(cls)}
            if set(values) != expected:
                raise RunError(
                    f"A recipe has the fields {', '.join(sorted(expected))}; got {', '.join(sorted(values))}."
                )
            return cls(**{**values, "size": tuple(values["size"])})
        except (ValueError, TypeError) as error:
            raise RunError(f"Not a recipe: {error}.") from None


# TensorFlow's image classification tutorial, as the public copies it for the nine-class set. The tutorial
# fixes the number of epochs; here validation ends the run, and the number is only a ceiling.
PLAIN = Recipe(
    name="plain",
    network="plain-cnn",
    size=(180, 180),
    batch_size=32,
    epochs=20,
    learning_rate=1e-3,
    patience=5,
    precision="auto",
    dropout=0.0,
    seed=0,
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (PLAIN,)}


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

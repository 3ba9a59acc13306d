"""What a release is made from: data sets audited and pooled, each photograph once, its lesions divided.

Comes in: folders of data sets. Goes out: `Photographs`: who learns from what, and who judges what.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError, RunError
from dermalert.intake.manifest import Manifest
from dermalert.intake.pool import collections, concatenated, photographs, pool
from dermalert.intake.split import divide, group_numbers, usable
from dermalert.judge.scores import Scores
from dermalert.learn.pipeline import DecodedCache
from dermalert.learn.recipes import Recipe
from dermalert.stages import judging
from dermalert.taxonomy import COARSE, NAMES

HELD_OUT, FOLDS = "held-out", tuple(f"fold {number}" for number in range(1, 6))
HELD_OUT_SHARE = 0.1
# What a set's own documentation says of a label beyond its word: the challenge had three classes.
MEANT = {("isic2017", "not melanoma"): COARSE["nevus or seborrheic keratosis"]}
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

    def alone(self, name: str) -> NDArray[np.bool_]:
        """bool (N,): the photographs of a collection that were learnt from, of lesions in no other."""
        groups = group_numbers(self.manifest)
        elsewhere = groups[(self.collections != name) & (self.parts != HELD_OUT)]
        return np.asarray((self.collections == name) & (self.parts != HELD_OUT) & ~np.isin(groups, elsewhere))

    def learnt_from(self) -> set[str]:
        """SHA-256 of every picture of the pool that shows a lesion somebody learnt from."""
        learnt = group_numbers(self.manifest)[self.parts != HELD_OUT]
        shown = np.isin(group_numbers(self.pooled), learnt)
        return {each for each, known in zip(self.pooled.column("sha256"), shown, strict=True) if known}

    def scores(self, rows: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> Scores:
        """The scores of some of them; `probabilities` of just these rows."""
        ids = tuple(np.array(self.manifest.column("image_id"), dtype=object)[rows])
        return Scores(ids, NAMES, probabilities, self.allowed[rows], group_numbers(self.manifest)[rows])


def pooled_sets(data: Path, pools: Sequence[Path], file: Path, *, workers: int | None = None) -> Manifest:
    """The sets audited, the first against all others, and pooled; read again where an earlier start left them.

    Raises:
        DataError: a set cannot be read.
        RunError: an earlier start was of other sets.
    """
    asked, told = [str(each) for each in (data, *pools)], file.with_suffix(".json")
    if file.exists():
        if json.loads(told.read_text(encoding="utf-8")) != asked:
            raise RunError(f"{file} was made of other data sets. Name another folder, or the same sets in their order.")
        return Manifest.read(file)
    others = [judging.labelled_manifest(each, workers=workers)[0] for each in pools]
    against = concatenated(others) if others else None
    pooled = pool([judging.labelled_manifest(data, against=against, workers=workers)[0], *others])
    file.parent.mkdir(parents=True, exist_ok=True)
    told.write_text(json.dumps(asked), encoding="utf-8")
    pooled.write(file)
    return pooled


def gather(pooled: Manifest, recipe: Recipe, cache: Path, *, workers: int | None = None) -> Photographs:
    """Keeps each photograph once, and divides the lesions.

    Of the first set, test pictures and lesions that stand among them are left out, whatever set holds them.

    Raises:
        DataError: sets contradict each other; a picture cannot be read any more; or there are no test pictures, less
            than two collections, or a diagnosis that no label allows.
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
    allowed = np.array([[name in may for name in NAMES] for may in meant])
    _check(pooled, made_for, allowed)
    words = [f"{made}|{','.join(sorted(may))}" for made, may in zip(made_for, meant, strict=True)]
    strata = np.unique(words, return_inverse=True)[1].astype(np.int64)
    shares = {HELD_OUT: HELD_OUT_SHARE, **dict.fromkeys(FOLDS, (1 - HELD_OUT_SHARE) / len(FOLDS))}
    divided = divide(group_numbers(manifest), strata, shares)
    manifest = manifest.with_columns(
        diagnosis=[_word(may) for may in meant],
        split=["test" if part == HELD_OUT else "train" for part in divided],
        resolution=["keep"] * len(manifest),
    )
    return Photographs(manifest, pooled, decoded.pixels, allowed, made_for, divided, strata)


def _check(pooled: Manifest, made_for: NDArray[np.object_], allowed: NDArray[np.bool_]) -> None:
    """What is missing is told before hours of training."""
    if "test" not in pooled.column("split"):
        raise DataError("The first data set has no test pictures. Give it a Test/ folder or a column that says `test`.")
    if len(set(made_for)) < 2:
        raise DataError(f"All photographs were made for {made_for[0]}: nothing can be said of cameras never seen.")
    if lacking := [name for place, name in enumerate(NAMES) if not allowed[:, place].any()]:
        raise DataError(f"No photograph may show {', '.join(lacking)}. Pool a data set that has some.")


def _word(may: frozenset[str]) -> str:
    if may not in _WORDS:
        raise DataError(f"Two sets together leave {', '.join(sorted(may))} open, for which there is no label.")
    return _WORDS[may]

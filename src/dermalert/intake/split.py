"""Splits: which pictures train, which validate, which test.

Comes in: a Manifest with groups. Goes out: the same with `split` filled. A group (lesion, patient, duplicates)
never stands in both training and validation; each diagnosis is divided in the same proportion as far as whole
groups allow. Folders' own Train and Test are respected; `clean_test` says which Test pictures no other part knows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import DataError
from dermalert.intake.manifest import Manifest


def split(manifest: Manifest, *, validation: float = 0.2, test: float = 0.2, seed: int = 0) -> Manifest:
    """Fills `split` for every labelled picture that the audit does not propose to drop from training.

    Args:
        validation: share of the training pictures held out to choose epoch, temperature and threshold.
        test: share held out for the final figure, where the data set has no test part of its own.
        seed: of the division.

    Raises:
        DataError: shares that are no shares, or no picture left to train or validate on.
    """
    if not (0 < validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise DataError(f"validation={validation} and test={test} must be shares that leave something to train on.")
    given = np.array([word or "train" for word in manifest.column("given_split")], dtype=object)
    groups, labelled, kept = group_numbers(manifest), _labelled(manifest), usable(manifest)
    parts = given.copy()
    if "validation" in given:
        _keep_groups_whole(parts, groups)
    else:
        shares = {"train": 1 - validation, "validation": validation}
        if "test" not in given:
            shares = {"train": 1 - validation - test, "validation": validation, "test": test}
        rows = kept & (given != "test")
        parts[rows] = divide(groups[rows], _classes(manifest)[rows], shares, seed=seed)
    # A given test folder stays whole, dubious labels included: `clean_test` is the other view of it.
    parts[~kept & (given != "test")] = ""
    parts[~labelled] = ""
    _check_parts(parts)
    return manifest.with_columns(split=[part or None for part in parts])


def _check_parts(parts: NDArray[np.object_]) -> None:
    for part in ("train", "validation"):
        if not (parts == part).any():
            raise DataError(f"No picture is left for {part}: too few labelled pictures or groups to divide.")


def keep_groups_whole(manifest: Manifest) -> Manifest:
    """The same split, but for validation pictures whose group stands in training too: they train."""
    parts = np.array([part or "" for part in manifest.column("split")], dtype=object)
    _keep_groups_whole(parts, group_numbers(manifest))
    return manifest.with_columns(split=[part or None for part in parts])


def _keep_groups_whole(parts: NDArray[np.object_], groups: NDArray[np.int64]) -> None:
    """Moves a given validation folder's pictures to training where their group stands there too."""
    in_training = np.isin(groups, groups[parts == "train"])
    parts[(parts == "validation") & in_training] = "train"


def clean_test(manifest: Manifest) -> NDArray[np.bool_]:
    """bool (N,): test pictures whose group is in no other part and whose label is not in dispute."""
    parts = np.array(manifest.column("split"), dtype=object)
    groups = group_numbers(manifest)
    known = np.isin(groups, groups[(parts == "train") | (parts == "validation")])
    disputed = np.array(manifest.column("resolution"), dtype=object) == "drop"
    return np.asarray((parts == "test") & ~known & ~disputed, dtype=bool)


def divide(
    groups: NDArray[np.int64], classes: NDArray[np.int64], shares: Mapping[str, float], *, seed: int = 0
) -> NDArray[np.object_]:
    """The part of each row: whole groups, each class in proportion as far as they allow.

    Largest groups are placed first, each where its classes are most wanting, so that the many groups of one
    can even out what the large ones left: the greedy rule of scikit-learn's StratifiedGroupKFold, in
    O(groups) for groups of one.

    Args:
        groups: int64 (N,).
        classes: int64 (N,), from 0.
        shares: part -> share of each class; the shares are normalised. A part without a share gets nothing.
    """
    names = [name for name in shares if shares[name] > 0]
    share = np.array([shares[name] for name in names]) / sum(shares.values())
    counts, row_group = _counts_by_group(groups, classes)
    wanting = share[:, None] * counts.sum(axis=0)[None, :]  # parts x classes
    placed = np.full(len(counts), -1, dtype=np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    sizes = counts.sum(axis=1)
    large = shuffled[sizes[shuffled] > 1]
    for group in large[np.argsort(-sizes[large], kind="stable")]:
        placed[group] = _most_wanting(wanting, counts[group], share)
        wanting[placed[group]] -= counts[group]
    singles = shuffled[sizes[shuffled] == 1]
    for column in range(counts.shape[1]):
        members = singles[counts[singles, column] == 1]
        placed[members] = _fill(wanting[:, column], len(members))
    return np.array(names, dtype=object)[placed[row_group]]


def _counts_by_group(
    groups: NDArray[np.int64], classes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    _, row_group = np.unique(groups, return_inverse=True)
    counts = np.zeros((row_group.max(initial=-1) + 1, classes.max(initial=-1) + 1), dtype=np.int64)
    np.add.at(counts, (row_group, classes), 1)
    return counts, row_group


def _most_wanting(wanting: NDArray[np.float64], count: NDArray[np.int64], share: NDArray[np.float64]) -> int:
    """The part whose shortfall in this group's classes is greatest in proportion to its share."""
    weight = np.where(count > 0, count / np.maximum(wanting.sum(axis=0), 1e-9), 0.0)
    return int(((wanting * weight).sum(axis=1) / share).argmax())


def _fill(wanting: NDArray[np.float64], members: int) -> NDArray[np.int64]:
    """Part numbers for `members` alike groups: the shortfalls filled, the rounding given to the largest rests."""
    room = np.maximum(wanting, 0)
    ideal = room / room.sum() * members if room.sum() > 0 else np.eye(len(wanting))[0] * members
    whole = np.floor(ideal).astype(np.int64)
    rest = np.argsort(-(ideal - whole), kind="stable")[: members - whole.sum()]
    whole[rest] += 1
    return np.repeat(np.arange(len(wanting)), whole)


def usable(manifest: Manifest) -> NDArray[np.bool_]:
    """bool (N,): pictures with a label that the audit does not propose to drop."""
    kept = np.array(manifest.column("resolution"), dtype=object) != "drop"
    return np.asarray(_labelled(manifest) & kept, dtype=bool)


def _labelled(manifest: Manifest) -> NDArray[np.bool_]:
    return np.array([word is not None for word in manifest.column("diagnosis")], dtype=bool)


def group_numbers(manifest: Manifest) -> NDArray[np.int64]:
    """int64 (N,): pictures that no audit has grouped stand alone, below zero."""
    return np.array(
        [-1 - row if group is None else group for row, group in enumerate(manifest.column("group"))], dtype=np.int64
    )


def _classes(manifest: Manifest) -> NDArray[np.int64]:
    words = [word or "" for word in manifest.column("diagnosis")]
    return np.unique(words, return_inverse=True)[1].astype(np.int64)

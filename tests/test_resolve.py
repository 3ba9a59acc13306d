from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert.intake.duplicates import find
from dermalert.intake.manifest import SCHEMA, Manifest
from dermalert.intake.resolve import DROP, KEEP, RELABEL, Resolution, resolve
from dermalert.taxonomy import label_of


def picture(seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(32)


def manifest(*rows: dict[str, Any], source: str = "ours") -> Manifest:
    """Unless it says otherwise, each row is another nevus in training, named by its number."""
    filled = [
        {
            "image_id": f"{n}.jpg",
            "path": f"{n}.jpg",
            "source": source,
            "given_split": "train",
            "diagnosis": "nevus",
            "width": 100,
            "height": 100,
            "sha256": f"{source}{n}",
            "dhash": picture(1000 + n),
        }
        | row
        for n, row in enumerate(rows)
    ]
    return Manifest(Path("pictures"), pa.Table.from_pylist(filled, schema=SCHEMA))


def resolved(*rows: dict[str, Any], against: Manifest | None = None) -> list[Resolution]:
    ours = manifest(*rows)
    return resolve(ours, find(ours, against), against)


def short(resolutions: list[Resolution]) -> list[tuple[str, str | None]]:
    return [(one.action, one.label.name if one.label else None) for one in resolutions]


SAME: dict[str, Any] = {"sha256": "same", "dhash": picture(0)}


def archive(*diagnoses: str | None) -> Manifest:
    """Another set that shows the picture `SAME`, under these labels."""
    return manifest(*({"diagnosis": word, "dhash": picture(0)} for word in diagnoses), source="archive")


def test_a_picture_beyond_doubt_is_kept_and_nothing_is_said_of_it() -> None:
    assert resolved({}, {"diagnosis": None}) == [Resolution(KEEP, label_of("nevus")), Resolution(KEEP, None)]


def test_of_copies_in_one_part_one_is_kept_and_each_other_names_it() -> None:
    first, second, other = resolved(SAME, SAME, {})
    assert (first.action, first.reason) == (KEEP, None)
    assert (second.action, second.reason) == (DROP, "A copy of 0.jpg.")
    assert other.action == KEEP


@pytest.mark.parametrize(
    ("first", "second", "best"),
    [
        ({"path": "x(1).jpg"}, {"path": "x.jpg"}, 1),
        ({"width": 90}, {}, 1),
        ({"path": "b.jpg"}, {"path": "a.jpg"}, 1),
        ({"diagnosis": None, "width": 900}, {"path": "x(1).jpg"}, 1),
        ({"diagnosis": "bkl", "width": 900}, {"diagnosis": "seborrheic keratosis"}, 1),
    ],
    ids=["the original's name", "more pixels", "the first name", "the one with a label", "the more exact label"],
)
def test_the_copy_kept_is_the_best(first: dict[str, Any], second: dict[str, Any], best: int) -> None:
    for rows in ((first, second, best), (second, first, 1 - best)):
        actions = [one.action for one in resolved(SAME | rows[0], SAME | rows[1])]
        assert actions[rows[2]] == KEEP
        assert actions[1 - rows[2]] == DROP


def test_a_copy_across_train_and_test_stays_in_both_and_each_is_told_of_the_other() -> None:
    train, test = resolved(SAME, SAME | {"given_split": "test"})
    assert (train.action, train.reason) == (KEEP, "The same picture stands in another part too: 1.jpg.")
    assert (test.action, test.reason) == (KEEP, "The same picture stands in another part too: 0.jpg.")


def test_contradictory_labels_that_nothing_decides_are_all_dropped_and_told_of() -> None:
    resolutions = resolved(SAME, SAME | {"diagnosis": "actinic keratosis"}, SAME | {"given_split": "test"})
    assert [one.action for one in resolutions] == [DROP] * 3
    assert {one.reason for one in resolutions} == {
        "One picture labelled actinic keratosis and nevus, and nothing decides."
    }
    assert short(resolutions)[1] == (DROP, "actinic keratosis")


def test_labels_that_one_diagnosis_can_satisfy_do_not_contradict() -> None:
    resolutions = resolved(SAME, SAME | {"diagnosis": "not melanoma", "given_split": "test"})
    assert short(resolutions) == [(KEEP, "nevus"), (KEEP, "not melanoma")]


def test_where_the_source_decides_the_right_copy_is_kept_and_the_other_dropped_with_the_reason() -> None:
    right, wrong = resolved(SAME | {"diagnosis": "melanoma"}, SAME, against=archive("melanoma"))
    assert (right.action, right.label) == (KEEP, label_of("melanoma"))
    assert right.reason == "One picture labelled melanoma and nevus; archive says melanoma, so melanoma."
    assert (wrong.action, wrong.label) == (DROP, label_of("nevus"))
    assert wrong.reason == right.reason + " This copy has the other label."


def test_a_label_that_its_source_contradicts_is_changed_with_the_reason() -> None:
    (one,) = resolved(SAME, against=archive("melanoma"))
    assert one == Resolution(
        RELABEL, label_of("melanoma"), "One picture labelled nevus; archive says melanoma, so melanoma."
    )


def test_a_coarse_source_decides_where_one_of_the_labels_fits_it() -> None:
    resolutions = resolved(SAME, SAME | {"diagnosis": "actinic keratosis"}, against=archive("akiec"))
    assert short(resolutions) == [(DROP, "nevus"), (KEEP, "actinic keratosis")]


def test_a_coarse_source_that_only_contradicts_drops_and_never_guesses() -> None:
    (one,) = resolved(SAME, against=archive("akiec"))
    assert (one.action, one.label) == (DROP, label_of("nevus"))
    assert one.reason == "One picture labelled nevus; archive says akiec, which none of them fits."


def test_a_coarse_source_that_several_labels_fit_decides_nothing() -> None:
    resolutions = resolved(
        SAME | {"diagnosis": "actinic keratosis"},
        SAME | {"diagnosis": "squamous cell carcinoma"},
        against=archive("akiec"),
    )
    assert [one.action for one in resolutions] == [DROP, DROP]


@pytest.mark.parametrize("words", [("melanoma", "nevus"), ("nevus", "melanoma")])
def test_a_source_that_contradicts_itself_decides_nothing(words: tuple[str, str]) -> None:
    assert resolved(SAME, against=archive(*words)) == [Resolution(KEEP, label_of("nevus"))]
    disputed = resolved(SAME, SAME | {"diagnosis": "melanoma"}, against=archive(*words))
    assert [one.action for one in disputed] == [DROP, DROP]


def test_of_a_sources_labels_the_most_exact_decides() -> None:
    (one,) = resolved(SAME, against=archive(None, "malignant", "melanoma"))
    assert (one.action, one.label) == (RELABEL, label_of("melanoma"))


def test_an_unlabelled_picture_gets_no_label_from_a_source() -> None:
    assert resolved(SAME | {"diagnosis": None}, against=archive("melanoma")) == [Resolution(KEEP, None)]


def test_a_source_that_agrees_changes_nothing() -> None:
    assert resolved(SAME, against=archive("nevus")) == [Resolution(KEEP, label_of("nevus"))]
    assert resolved(SAME, against=archive("not melanoma")) == [Resolution(KEEP, label_of("nevus"))]


ROW = st.fixed_dictionaries(
    {
        "diagnosis": st.sampled_from(
            [None, "melanoma", "nevus", "actinic keratosis", "akiec", "not melanoma", "benign"]
        ),
        "given_split": st.sampled_from([None, "train", "test"]),
        "width": st.integers(50, 52),
        "dhash": st.integers(0, 3).map(picture),
    }
)
KNOWN = st.fixed_dictionaries(
    {
        "diagnosis": st.sampled_from([None, "melanoma", "nevus", "akiec", "malignant"]),
        "dhash": st.integers(0, 3).map(picture),
    }
)


@given(st.lists(ROW, min_size=1, max_size=10), st.lists(KNOWN, max_size=4) | st.none())
@settings(deadline=None, max_examples=300)
def test_every_proposal_is_justified(rows: list[dict[str, Any]], known: list[dict[str, Any]] | None) -> None:
    ours = manifest(*rows)
    against = None if known is None else manifest(*known, source="archive")
    found = find(ours, against)
    resolutions = resolve(ours, found, against)
    assert len(resolutions) == len(rows)
    for one, given_label in zip(resolutions, ours.labels(), strict=True):
        assert one.action in {KEEP, DROP, RELABEL}
        assert (one.action == RELABEL) == (one.label != given_label)
        assert one.action == KEEP or one.reason
        # A label changes by another set's word alone.
        assert one.action != RELABEL or (known and "archive says" in (one.reason or ""))
    for group in set(found.picture_group.tolist()):
        members = [row for row in range(len(rows)) if found.picture_group[row] == group]
        kept = [resolutions[row] for row in members if resolutions[row].action != DROP]
        labels = [one.label for one in kept if one.label]
        assert not any(a.contradicts(b) for a in labels for b in labels), "kept under contradictory labels"
        parts = [rows[row]["given_split"] for row in members if resolutions[row].action != DROP]
        assert len(parts) == len(set(parts)), "kept twice in one part"
        if not kept:
            reasons = [resolutions[row].reason or "" for row in members]
            assert all("One picture labelled" in reason for reason in reasons), "all lost without a dispute"

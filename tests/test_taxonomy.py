from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert.errors import DataError
from dermalert.taxonomy import COARSE, DIAGNOSES, MALIGNANT, NAMES, Label, label_of

WORDS = sorted({*NAMES, *COARSE, *(word for one in DIAGNOSES for word in one.synonyms)})


def test_there_are_the_nine_diagnoses_of_the_public_class_folders() -> None:
    assert NAMES == (
        "actinic keratosis",
        "basal cell carcinoma",
        "dermatofibroma",
        "melanoma",
        "nevus",
        "pigmented benign keratosis",
        "seborrheic keratosis",
        "squamous cell carcinoma",
        "vascular lesion",
    )


def test_the_three_cancers_are_malignant_and_the_precursor_is_not() -> None:
    assert frozenset({"melanoma", "basal cell carcinoma", "squamous cell carcinoma"}) == MALIGNANT
    assert {label_of(name).malignant for name in MALIGNANT} == {True}
    assert {label_of(name).malignant for name in set(NAMES) - MALIGNANT} == {False}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        # ISIC 2018 (columns of the ground truth) and HAM10000 (dx)
        ("MEL", "melanoma"),
        ("NV", "nevus"),
        ("BCC", "basal cell carcinoma"),
        ("AKIEC", "akiec"),
        ("BKL", "bkl"),
        ("DF", "dermatofibroma"),
        ("VASC", "vascular lesion"),
        # ISIC 2019 adds
        ("AK", "actinic keratosis"),
        ("SCC", "squamous cell carcinoma"),
        # ISIC 2020 and the ISIC Archive
        ("nevus", "nevus"),
        ("seborrheic keratosis", "seborrheic keratosis"),
        ("benign", "benign"),
        ("malignant", "malignant"),
        # folders, spellings and clinicians' words
        ("pigmented_benign_keratosis", "pigmented benign keratosis"),
        ("Seborrhoeic-Keratosis", "seborrheic keratosis"),
        ("melanocytic naevus", "nevus"),
        ("Bowen's disease", "squamous cell carcinoma"),
        ("melanoma in situ", "melanoma"),
        ("hemangioma", "vascular lesion"),
        ("non-melanoma", "not melanoma"),
        ("benign keratosis-like lesion", "bkl"),
    ],
)
def test_codes_and_spellings_of_the_public_sets_are_understood(written: str, meant: str) -> None:
    assert label_of(written).name == meant


def test_every_exact_word_stands_for_one_diagnosis_and_every_coarse_one_for_several() -> None:
    for diagnosis in DIAGNOSES:
        for word in (diagnosis.name, *diagnosis.synonyms):
            assert label_of(word) == Label(diagnosis.name, (diagnosis.name,))
    for word, stands_for in COARSE.items():
        label = label_of(word)
        assert label.name == word
        assert len(stands_for) > 1
        assert set(label.stands_for) == stands_for <= set(NAMES)
        assert not label.is_exact


def test_coarse_labels_stay_coarse() -> None:
    assert label_of("akiec").stands_for == ("actinic keratosis", "squamous cell carcinoma")
    assert label_of("bkl").stands_for == ("pigmented benign keratosis", "seborrheic keratosis")
    assert set(label_of("not melanoma").stands_for) == set(NAMES) - {"melanoma"}


def test_a_coarse_label_says_melanoma_or_malignant_only_where_all_it_stands_for_agrees() -> None:
    told = {word: (label_of(word).melanoma, label_of(word).malignant) for word in COARSE}
    assert told == {
        "akiec": (False, None),
        "bkl": (False, False),
        "not melanoma": (False, None),
        "nevus or seborrheic keratosis": (False, False),
        "benign": (False, False),
        "malignant": (None, True),
    }
    assert (label_of("mel").melanoma, label_of("nv").melanoma) == (True, False)


@given(
    st.sampled_from(WORDS), st.sampled_from(["_", " ", "-", "  ", "_ _"]), st.sampled_from(["", " ", "_"]), st.data()
)
@settings(deadline=None, max_examples=150)
def test_case_underscores_hyphens_and_spaces_do_not_matter(
    word: str, joint: str, edge: str, data: st.DataObject
) -> None:
    upper = data.draw(st.lists(st.booleans(), min_size=len(word), max_size=len(word)))
    cased = "".join(c.upper() if up else c for c, up in zip(word, upper, strict=True))
    assert label_of(edge + cased.replace(" ", joint) + edge) == label_of(word)


@pytest.mark.parametrize(
    "word", ["", " ", "_", "melanomas of the mind", "unknown", "m e l", "12", "\n", "黑色素瘤", "\ud800"]
)
def test_a_word_that_is_no_diagnosis_is_refused_and_the_known_ones_are_listed(word: str) -> None:
    with pytest.raises(DataError) as refusal:
        label_of(word)
    assert repr(word) in str(refusal.value)
    assert all(name in str(refusal.value) for name in (*NAMES, *COARSE))


@pytest.mark.parametrize("word", ["не melanoma", "非melanoma", "melanoma なし", "νν nv"])
def test_letters_of_another_script_are_part_of_the_word(word: str) -> None:
    # "не melanoma" is Russian for "not melanoma": dropping what is not ASCII would turn it round.
    with pytest.raises(DataError):
        label_of(word)


@given(st.text(max_size=20))
@settings(deadline=None, max_examples=200)
def test_any_text_is_a_label_or_a_data_error(text: str) -> None:
    try:
        label = label_of(text)
    except DataError:
        return
    assert label.name in {*NAMES, *COARSE}


def test_labels_contradict_each_other_only_where_no_diagnosis_fits_both() -> None:
    assert label_of("nevus").contradicts(label_of("actinic keratosis"))
    assert label_of("melanoma").contradicts(label_of("not melanoma"))
    assert label_of("mel").contradicts(label_of("akiec"))
    assert not label_of("akiec").contradicts(label_of("scc"))
    assert not label_of("akiec").contradicts(label_of("not melanoma"))
    assert not label_of("benign").contradicts(label_of("akiec"))


@given(st.sampled_from(WORDS), st.sampled_from(WORDS))
@settings(deadline=None, max_examples=100)
def test_contradiction_is_mutual_and_nothing_contradicts_itself(one: str, other: str) -> None:
    a, b = label_of(one), label_of(other)
    assert a.contradicts(b) == b.contradicts(a)
    assert not a.contradicts(a)
    if a.is_exact and b.is_exact:
        assert a.contradicts(b) == (a != b)

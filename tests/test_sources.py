from __future__ import annotations

import csv
import os
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert.errors import DataError, NotAPicture, Unreadable
from dermalert.intake.sources import Item, Listing, list_data, walk


def touch(root: Path, *paths: str) -> Path:
    """Empty files: a listing opens no picture."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def table(root: Path, header: str, *rows: str, name: str = "metadata.csv", encoding: str = "utf-8") -> Path:
    (root / name).write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return root


def told(listing: Listing) -> dict[str, str | None]:
    """Each picture's label."""
    return {item.path: item.label.name if item.label else None for item in listing.items}


# Class folders


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("Train", "Validation", "Test"), ("train", "val", "test"), ("TRAINING", "valid", "Testing")],
)
def test_folders_for_training_validation_and_test_are_read_as_such(
    tmp_path: Path, train: str, validation: str, test: str
) -> None:
    touch(tmp_path, f"{train}/nevus/a.jpg", f"{validation}/nevus/b.jpg", f"{test}/melanoma/c.jpg")
    listing = list_data(tmp_path)
    assert {item.path[-5]: (item.given_split, item.label.name if item.label else None) for item in listing.items} == {
        "a": ("train", "nevus"),
        "b": ("validation", "nevus"),
        "c": ("test", "melanoma"),
    }
    assert (listing.kind, listing.refused, listing.notes) == ("class folders", (), ())


def test_flat_class_folders_have_no_split_and_folder_names_in_any_spelling(tmp_path: Path) -> None:
    touch(tmp_path, "NV/a.jpg", "Basal_Cell-Carcinoma/b.jpg", "bkl/c.jpg", "melanoma/train/d.jpg")
    listing = list_data(tmp_path)
    assert told(listing) == {
        "Basal_Cell-Carcinoma/b.jpg": "basal cell carcinoma",
        "NV/a.jpg": "nevus",
        "bkl/c.jpg": "bkl",
        "melanoma/train/d.jpg": "melanoma",
    }
    assert {item.path: item.given_split for item in listing.items if item.given_split} == {
        "melanoma/train/d.jpg": "train"
    }
    assert listing.items[0].given_label == "Basal_Cell-Carcinoma"


def test_a_folder_that_names_no_diagnosis_is_told_of_once_and_its_pictures_stay_unlabelled(tmp_path: Path) -> None:
    listing = list_data(touch(tmp_path, "nevus/a.jpg", "rash/b.jpg", "rash/c.jpg"))
    assert told(listing) == {"nevus/a.jpg": "nevus", "rash/b.jpg": None, "rash/c.jpg": None}
    assert listing.notes == ("Folder 'rash' names no diagnosis; its pictures count as unlabelled.",)


def test_a_folder_of_pictures_without_classes_is_a_folder_of_pictures(tmp_path: Path) -> None:
    listing = list_data(touch(tmp_path, "a.jpg", "day 1/b.jpg"))
    assert (listing.kind, told(listing), listing.notes) == ("pictures", {"a.jpg": None, "day 1/b.jpg": None}, ())


def test_one_picture_is_a_data_set_of_one(tmp_path: Path) -> None:
    listing = list_data(touch(tmp_path, "a.jpg", "b.jpg") / "a.jpg")
    assert (listing.root, listing.kind, listing.items) == (tmp_path, "pictures", (Item("a.jpg"),))


def test_extensions_count_in_any_case_and_other_files_do_not(tmp_path: Path) -> None:
    touch(tmp_path, "nevus/a.JPG", "nevus/b.Jpeg", "nevus/c.PNG", "nevus/d.tIf", "nevus/e.txt", "nevus/f", "nevus/.jpg")
    assert [item.path for item in list_data(tmp_path).items] == [
        "nevus/a.JPG",
        "nevus/b.Jpeg",
        "nevus/c.PNG",
        "nevus/d.tIf",
    ]


def test_masks_hidden_folders_and_resource_forks_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "nevus/a.jpg", "nevus/._a.jpg", "Masks/a.png", "nevus/segmentation/a.png", ".trash/nevus/b.jpg")
    assert [item.path for item in list_data(tmp_path).items] == ["nevus/a.jpg"]


def test_pictures_are_sorted_by_path_whatever_the_order_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ["a b/4.jpg", "a/3.jpg", "b/1.jpg", "b/2.jpg", "c.jpg"]
    touch(tmp_path, *reversed(paths))
    assert [item.path for item in list_data(tmp_path).items] == paths
    walked, scandir = list(walk(tmp_path)), os.scandir
    monkeypatch.setattr("os.scandir", lambda folder: sorted(scandir(folder), key=lambda entry: entry.name)[::-1])
    assert list(walk(tmp_path)) == walked


# Names and folders that are not what they should be

NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), max_size=12)


@given(st.lists(NAME, min_size=1, max_size=6))
@settings(deadline=None, max_examples=60)
def test_names_of_any_unicode_and_with_line_breaks_are_listed_as_they_are(names: list[str]) -> None:
    paths = {f"melanoma/{n}{name}\n.jpg" for n, name in enumerate(names)}
    with tempfile.TemporaryDirectory() as folder:
        listing = list_data(touch(Path(folder), *paths))
    assert told(listing) == dict.fromkeys(paths, "melanoma")


def test_a_name_that_is_not_utf8_is_refused_and_the_others_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "nevus/a.jpg")
    try:
        Path(os.fsdecode(bytes(tmp_path / "nevus") + b"/b\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    listing = list_data(tmp_path)
    (refusal,) = listing.refused
    assert isinstance(refusal, NotAPicture)
    assert "not valid UTF-8" in refusal.reason
    assert str(refusal).encode("utf-8").startswith(bytes(tmp_path))
    assert told(listing) == {"nevus/a.jpg": "nevus"}


def test_a_directory_with_a_pictures_name_is_handed_on_to_be_refused_and_not_entered(tmp_path: Path) -> None:
    listing = list_data(touch(tmp_path, "nevus/a.jpg", "nevus/x.jpg/b.jpg"))
    assert [item.path for item in listing.items] == ["nevus/a.jpg", "nevus/x.jpg"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    touch(tmp_path, "nevus/a.jpg")
    (tmp_path / "nevus" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "nevus" / "self.jpg").symlink_to(tmp_path / "nevus" / "self.jpg")
    assert [item.path for item in list_data(tmp_path).items] == ["nevus/a.jpg", "nevus/self.jpg"]
    with pytest.raises(DataError, match="no such file or folder"):
        list_data(tmp_path / "self")


def test_a_folder_that_cannot_be_listed_is_refused_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "melanoma/a.jpg", "nevus/b.jpg")
    scandir = os.scandir

    def denied(folder: Path) -> Any:
        if Path(folder).name == "melanoma":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr("os.scandir", denied)
    listing = list_data(tmp_path)
    assert told(listing) == {"nevus/b.jpg": "nevus"}
    (refusal,) = listing.refused
    assert isinstance(refusal, Unreadable)
    assert refusal.path == str(tmp_path / "melanoma")
    assert "Permission denied" in refusal.reason


def test_nothing_to_read_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        list_data(tmp_path / "none")
    with pytest.raises(DataError, match=r"no pictures below it \(looked for .*\.jpg"):
        list_data(tmp_path)


# Tables


def test_ham10000_columns_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "images/ISIC_1.jpg", "images/ISIC_2.jpg", "masks/ISIC_1.png")
    table(
        tmp_path,
        "lesion_id,image_id,dx,dx_type,age,sex,localization",
        "HAM_1,ISIC_1,akiec,histo,80.0,male,scalp",
        "HAM_2,ISIC_2,nv,consensus,,unknown,unknown",
    )
    listing = list_data(tmp_path)
    one, two = listing.items
    assert (listing.kind, listing.refused, listing.notes) == ("table", (), ())
    assert one.label is not None
    assert one == Item("images/ISIC_1.jpg", None, "akiec", one.label, "HAM_1", None, 80.0, "male", "scalp")
    assert one.label.name == "akiec"
    assert (two.lesion_id, two.age_years, two.sex, two.site) == ("HAM_2", None, None, None)


def test_the_one_column_a_class_tables_of_isic_2018_and_2019_are_read(tmp_path: Path) -> None:
    touch(tmp_path, *(f"ISIC_{n}.jpg" for n in range(5)))
    table(
        tmp_path,
        "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK",
        "ISIC_0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_1,0.0,0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0",
        "ISIC_2,0,0,0,0,0,0,0,1,0",
        "ISIC_3,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0",
        "ISIC_4,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
    )
    assert list(told(list_data(tmp_path)).values()) == ["melanoma", "bkl", "squamous cell carcinoma", None, None]


def test_isic_2017_says_only_melanoma_or_not(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    table(tmp_path, "image_id,melanoma,seborrheic_keratosis", "a,1.0,0.0", "b,0.0,0.0", "c,,")
    assert told(list_data(tmp_path)) == {"a.jpg": "melanoma", "b.jpg": "not melanoma", "c.jpg": None}


def test_isic_2020_falls_back_on_its_target_where_the_diagnosis_is_none_of_ours(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    table(
        tmp_path,
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target",
        "a,IP_1,male,45.0,head/neck,unknown,benign,0",
        "b,IP_1,female,45.0,upper extremity,nevus,benign,0",
        "c,IP_2,female,50.0,torso,melanoma,malignant,1",
        "d,IP_2,female,50.0,torso,lentigo NOS,benign,0",
    )
    listing = list_data(tmp_path)
    assert list(told(listing).values()) == ["not melanoma", "nevus", "melanoma", "not melanoma"]
    assert [item.patient_id for item in listing.items] == ["IP_1", "IP_1", "IP_2", "IP_2"]
    assert listing.items[0].site == "head/neck"
    assert listing.notes == ()


def test_columns_of_other_names_are_mapped_by_hand(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    table(tmp_path, "bild,befund,patient,alter,w/m", "a.jpg,malignant,P1,61,F")
    with pytest.raises(DataError, match="--column image=NAME"):
        list_data(tmp_path, table=tmp_path / "metadata.csv")
    mapped = {"image": "bild", "diagnosis": "befund", "age": "alter", "sex": "w/m"}
    (item,) = list_data(tmp_path, table=tmp_path / "metadata.csv", columns=mapped).items
    assert (item.given_label, item.patient_id, item.age_years, item.sex) == ("malignant", "P1", 61.0, "female")


def test_a_table_whose_columns_are_mapped_by_hand_is_found_by_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    table(tmp_path, "bild,befund", "a.jpg,malignant")
    table(tmp_path, "date,remark", "today,none", name="diary.csv")
    listing = list_data(tmp_path, columns={"image": "bild", "diagnosis": "befund"})
    assert (listing.kind, told(listing)) == ("table", {"a.jpg": "malignant"})


def test_a_mapping_that_no_table_beside_the_pictures_has_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    table(touch(tmp_path, "nevus/a.jpg"), "image,dx", "a,nv")
    with pytest.raises(DataError, match=r"no table there has the columns bild, befund. Name one with --table"):
        list_data(tmp_path, columns={"image": "bild", "diagnosis": "befund"})
    with pytest.raises(DataError, match="'colour' is not one of image, diagnosis"):
        list_data(tmp_path, columns={"colour": "dx"})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"colour": "dx"}, "'colour' is not one of image, diagnosis"),
        ({"diagnosis": "befund"}, "no column 'befund'. It has: image, dx"),
    ],
)
def test_a_mapping_that_names_no_column_is_refused(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    table(touch(tmp_path, "a.jpg"), "image,dx", "a,nv")
    with pytest.raises(DataError, match=message):
        list_data(tmp_path / "metadata.csv", columns=columns)


def test_a_row_may_name_a_picture_by_path_by_file_name_or_by_stem(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "x/b.jpg", "x/c.jpg", "y/c.jpg")
    table(tmp_path, "image,dx", "a,nv", "b.jpg,mel", "x/c.jpg,bcc", "y/c.jpg,df")
    assert list(told(list_data(tmp_path)).values()) == ["nevus", "melanoma", "basal cell carcinoma", "dermatofibroma"]


def test_a_name_that_several_pictures_share_is_refused_not_guessed(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "y/a.jpg", "b.jpg")
    listing = list_data(table(tmp_path, "image,dx", "a,nv", "b,mel"))
    assert told(listing) == {"b.jpg": "melanoma"}
    assert ["2 pictures have that name" in refusal.reason for refusal in listing.refused] == [True]


def test_rows_without_a_picture_are_refused_each_with_its_line(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    listing = list_data(table(tmp_path, "image,dx,site", 'a,nv,"two\nlines"', "", "gone,mel,", ",nv,"))
    assert told(listing) == {"a.jpg": "nevus"}
    assert [(refusal.path, "line 5" in refusal.reason) for refusal in listing.refused] == [
        ("gone", True),
        ("row 6", False),
    ]
    assert all("no picture of that name" in refusal.reason for refusal in listing.refused)


def test_pictures_without_a_row_are_left_out_and_counted(tmp_path: Path) -> None:
    listing = list_data(table(touch(tmp_path, "a.jpg", "b.jpg", "c.jpg"), "image,dx", "a,nv"))
    assert told(listing) == {"a.jpg": "nevus"}
    assert listing.notes == ("2 pictures below the folder are not in metadata.csv and were left out.",)


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "{outside}/secret.jpg", "x/../../secret.jpg", "..", ".", "/", "~/secret.jpg"]
)
def test_a_row_cannot_name_a_picture_outside_the_folder(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "secret.jpg", "set/a.jpg")
    listing = list_data(table(tmp_path / "set", "image,dx", "a,nv", f"{name.format(outside=tmp_path)},mel"))
    assert told(listing) == {"a.jpg": "nevus"}
    assert len(listing.refused) == 1


def test_of_rows_for_one_picture_the_first_counts_and_a_contradiction_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    listing = list_data(table(tmp_path, "image,dx", "a,nv", "a,mel", "b,nv", "b.jpg,nevus"))
    assert told(listing) == {"a.jpg": "nevus", "b.jpg": "nevus"}
    assert listing.notes == ("a.jpg stands twice in metadata.csv with other labels; the first row counts.",)


def test_words_that_are_no_diagnosis_are_counted_once_each(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    listing = list_data(table(tmp_path, "image,dx", "a,rash", "b,rash", "c,nan", "d,nv"))
    assert told(listing) == {"a.jpg": None, "b.jpg": None, "c.jpg": None, "d.jpg": "nevus"}
    assert listing.notes == ("Label 'rash' (2 rows) is no diagnosis known here; they count as unlabelled.",)


@pytest.mark.parametrize(
    ("written", "years"),
    [
        ("45", 45.0),
        ("45.5", 45.5),
        ("0", 0.0),
        ("", None),
        ("-1", None),
        ("121", None),
        ("nan", None),
        ("1e999", None),
        ("old", None),
    ],
)
def test_an_age_is_a_number_of_years_a_person_can_have_or_none(
    tmp_path: Path, written: str, years: float | None
) -> None:
    (item,) = list_data(table(touch(tmp_path, "a.jpg"), "image,age", f"a,{written}")).items
    assert item.age_years == years


def test_a_table_may_name_the_split(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "Test/c.jpg")
    listing = list_data(table(tmp_path, "image,dx,Split", "a,nv,Train", "b,nv,VAL", "c,nv,"))
    assert {item.path: item.given_split for item in listing.items} == {
        "a.jpg": "train",
        "b.jpg": "validation",
        "Test/c.jpg": "test",
    }


def test_a_table_saved_by_excel_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    listing = list_data(table(touch(tmp_path, "é.jpg"), "Image,DX", "é,NV", encoding="utf-8-sig"))
    assert told(listing) == {"é.jpg": "nevus"}


@given(st.lists(NAME.filter(lambda name: name == name.strip()), min_size=1, max_size=6))
@settings(deadline=None, max_examples=60)
def test_a_table_may_name_pictures_of_any_unicode_and_with_line_breaks(names: list[str]) -> None:
    paths = [f"{n}{name}\r\n,.jpg" for n, name in enumerate(names)]
    with tempfile.TemporaryDirectory() as folder:
        touch(Path(folder), *paths)
        with (Path(folder) / "t.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("image", "dx"), *((path, "mel") for path in paths)])
        listing = list_data(Path(folder))
    assert told(listing) == dict.fromkeys(paths, "melanoma")


def test_a_table_is_given_by_itself_found_in_its_folder_or_named_apart(tmp_path: Path) -> None:
    data = table(touch(tmp_path / "set", "a.jpg"), "image,dx", "a,nv")
    table(tmp_path, "image,dx", "a,mel", name="other.csv")
    assert told(list_data(data / "metadata.csv")) == told(list_data(data)) == {"a.jpg": "nevus"}
    assert told(list_data(data, table=tmp_path / "other.csv")) == {"a.jpg": "melanoma"}


def test_tables_that_name_no_pictures_are_passed_over_and_of_two_that_do_none_is_chosen(tmp_path: Path) -> None:
    touch(tmp_path, "nevus/a.jpg")
    table(tmp_path, "date,remark", "today,none", name="diary.csv")
    (tmp_path / "folder.csv").mkdir()
    assert list_data(tmp_path).kind == "class folders"
    table(tmp_path, "image,dx", "a,nv", name="one.csv")
    assert list_data(tmp_path).kind == "table"
    table(tmp_path, "image,dx", "a,mel", name="two.csv")
    with pytest.raises(DataError, match=r"several tables fit \(one\.csv, two\.csv\)"):
        list_data(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"image;dx\na;nv\n",
        "image,dx\na,nv\n".encode("utf-16"),
        b"image,dx\na,nv\n\xff\xfe,mel\n",
        b"image,dx\na," + b"x" * 200_000,
        b"image,dx\nnone,nv\n",
        b"image,dx\n",
        b"\x89PNG\r\n\x1a\n\0\0",
    ],
    ids=[
        "empty",
        "blank",
        "semicolons",
        "UTF-16",
        "broken UTF-8",
        "huge field",
        "no picture fits",
        "no rows",
        "a picture",
    ],
)
def test_a_table_that_cannot_be_read_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"t\.csv: "):
        list_data(tmp_path, table=tmp_path / "t.csv")


# The public sets themselves


def test_the_nine_class_set_is_listed_whole(shared_data: Path) -> None:
    listing = list_data(shared_data / "isic9")
    assert (listing.kind, listing.refused, listing.notes) == ("class folders", (), ())
    assert Counter(item.given_split for item in listing.items) == {"train": 2241, "test": 118}
    assert len(set(told(listing).values())) == 9
    assert None not in told(listing).values()


def test_ham10000_is_listed_whole_without_its_masks(shared_data: Path) -> None:
    listing = list_data(shared_data / "ham10000")
    assert (listing.kind, len(listing.items), listing.refused, listing.notes) == ("table", 8595, (), ())
    assert all(item.lesion_id and item.label for item in listing.items)
    assert set(told(listing).values()) == {
        "akiec",
        "basal cell carcinoma",
        "bkl",
        "dermatofibroma",
        "melanoma",
        "nevus",
        "vascular lesion",
    }


def test_isic_2017_is_listed_whole_with_coarse_labels(shared_data: Path) -> None:
    listing = list_data(shared_data / "isic2017")
    assert (listing.kind, len(listing.items), listing.refused, listing.notes) == ("table", 2148, (), ())
    assert set(told(listing).values()) == {"melanoma", "not melanoma"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s3://bucket/set", "s3:/bucket/set: an address; a data set is read from disk. Copy it there."),
        ("https://host/set.zip", "an address"),
        ("set.tar.gz", "an archive; a data set is read from a folder. Unpack it and give that."),
        ("set.ZIP", "an archive"),
    ],
)
def test_a_data_set_in_an_archive_or_at_an_address_says_what_to_do(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for archive in ("set.tar.gz", "set.ZIP"):
        Path(archive).touch()
    with pytest.raises(DataError, match=re.escape(message)):
        list_data(Path(name))

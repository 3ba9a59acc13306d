"""Data sets as their owners keep them: class folders, or a table beside a folder of pictures.

Comes in: an untrusted folder, table or manifest. Goes out: `Listing`, one `Item` a picture file, unopened.
Nothing here decodes a picture.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dermalert.errors import DataError, NotAPicture, RefusedFile, Unreadable, in_utf8, printable
from dermalert.intake.decode import EXTENSIONS
from dermalert.intake.patience import PATIENCE
from dermalert.taxonomy import Label, label_of

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}

# Folders of lesion masks, as HAM10000 and the ISIC segmentation sets name them: pictures of no skin, under the
# same names as the photographs.
MASK_FOLDERS = frozenset({"mask", "masks", "segmentation", "segmentations"})

ARCHIVES = (
    *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst"),
    ".zip",
)

# Column names of HAM10000, of the ISIC 2017 to 2020 challenge tables and of the ISIC Archive's export.
COLUMNS: dict[str, tuple[str, ...]] = {
    "image": ("image_id", "image", "image_name", "isic_id", "filename", "file", "path"),
    "diagnosis": ("dx", "diagnosis", "label", "class", "target_name", "diagnosis_3"),
    "lesion_id": ("lesion_id", "lesion"),
    "patient_id": ("patient_id", "patient"),
    "age": ("age", "age_approx", "age_approximate", "age_years"),
    "sex": ("sex", "gender"),
    "site": ("localization", "anatom_site_general", "anatom_site_general_challenge", "site", "anatom_site"),
    "split": ("split", "fold_name", "partition"),
}
# The challenges' one-column-a-class ground truth, and the yes-or-no columns of 2017 and 2020.
ONE_HOT = frozenset({"mel", "nv", "bcc", "akiec", "bkl", "df", "vasc", "ak", "scc", "sk", "seborrheic_keratosis"})
YES_OR_NO = ("melanoma", "target")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # of `s3://` a path keeps one slash
NOT_TOLD = frozenset({"", "nan", "na", "n/a", "null", "none", "unknown", "unk"})


@dataclass(frozen=True)
class Item:
    """One picture file and what its data set says of it. `path` is below the root, in POSIX form."""

    path: str
    given_split: str | None = None
    given_label: str | None = None
    label: Label | None = None
    lesion_id: str | None = None
    patient_id: str | None = None
    age_years: float | None = None
    sex: str | None = None
    site: str | None = None


@dataclass(frozen=True)
class Listing:
    """All picture files of a data set, sorted by path, and what was refused on the way.

    Attributes:
        root: the folder that each item's path is below.
        name: the data set's name.
        kind: "class folders", "table" or "pictures".
    """

    root: Path
    name: str
    kind: str
    items: tuple[Item, ...]
    refused: tuple[RefusedFile, ...] = ()
    notes: tuple[str, ...] = field(default=())


def list_data(data: Path, *, table: Path | None = None, columns: Mapping[str, str] | None = None) -> Listing:
    """What lies at `data`: a folder of class folders, a folder with a table, a table, or plain pictures.

    Args:
        data: a folder, a CSV file, or one picture.
        table: the CSV that describes the pictures, where it is not found by itself.
        columns: keys of `COLUMNS` -> this table's own column names.

    Raises:
        DataError: nothing there that can be read as a data set.
    """
    _check_place(data)
    if data.suffix.lower() == ".csv" and data.is_file():
        return _from_table(data.parent, data, columns or {})
    if data.is_file():
        if not _is_utf8(data.name):
            raise DataError(f"{printable(str(data))}: its name is not valid UTF-8. Rename it.")
        return Listing(data.parent, in_utf8(data.stem), "pictures", (Item(data.name),))
    table = table or _find_table(data, columns or {})
    if table is not None:
        return _from_table(data, table, columns or {})
    return _from_folders(data)


def _check_place(data: Path) -> None:
    if not data.exists():
        if _ADDRESS.match(str(data)):
            raise DataError(f"{printable(str(data))}: an address; a data set is read from disk. Copy it there.")
        raise DataError(f"{printable(str(data))}: there is no such file or folder.")
    if data.is_file() and is_archive_name(data.name):
        raise DataError(
            f"{printable(str(data))}: an archive; a data set is read from a folder. Unpack it and give that."
        )


def is_picture_name(name: str) -> bool:
    """Whether a file is taken for a picture by its name; those of a Mac's notes on a file are not."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith("._")  # noqa: PTH122 (much faster)


def is_archive_name(name: str) -> bool:
    """Whether a file is taken for an archive by its name."""
    return name.lower().endswith(ARCHIVES)


def is_passed_over(folder: str) -> bool:
    """Whether a folder of that name is hidden, or holds masks."""
    return folder.startswith(".") or folder.lower() in MASK_FOLDERS


def walk(root: Path, also: Callable[[str], bool] = lambda _: False) -> Iterator[str | RefusedFile]:
    """Every picture file below `root`, as POSIX paths below it, depth first in sorted order.

    A name counts as a picture's by its extension; content is judged when it is decoded. Links to folders are
    not followed, so a loop can't be entered; hidden folders and `MASK_FOLDERS` are left out.

    Args:
        also: whether a file of another name is to be found too.
    """
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            files, below = PATIENCE(partial(names_in, root / folder, also))
        except OSError as error:
            yield Unreadable(root / folder, f"the folder cannot be listed ({error.strerror})", "Mend its permissions.")
            continue
        before = f"{folder}/" if folder else ""
        for name in files:
            if _is_utf8(name):
                yield f"{before}{name}"
            else:
                yield NotAPicture(root / f"{before}{name}", "its name is not valid UTF-8", "Rename it.")
        pending.extend(f"{before}{name}" for name in reversed(below) if not is_passed_over(name))


def names_in(folder: Path, also: Callable[[str], bool] = lambda _: False) -> tuple[list[str], list[str]]:
    """The sorted names of its pictures, with those that are no UTF-8, and of the folders in it.

    Names only: an entry of a million would take three times the memory.
    """
    files, below = [], []
    for entry in os.scandir(folder):
        if not _is_utf8(entry.name) or is_picture_name(entry.name):
            files.append(entry.name)
        elif entry.is_dir(follow_symlinks=False):
            below.append(entry.name)
        elif also(entry.name):
            files.append(entry.name)
    return sorted(files), sorted(below)


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _walked(root: Path) -> tuple[list[str], list[RefusedFile]]:
    paths: list[str] = []
    refused: list[RefusedFile] = []
    for found in walk(root):
        if isinstance(found, str):
            paths.append(found)
        else:
            refused.append(found)
    return paths, refused


def _from_folders(root: Path) -> Listing:
    paths, refused = _walked(root)
    if not paths and not refused:
        raise DataError(f"{printable(str(root))}: no pictures below it (looked for {', '.join(sorted(EXTENSIONS))}).")
    items = tuple(_item_from_folders(path) for path in sorted(paths))
    labelled = any(item.label for item in items)
    unknown = sorted({item.given_label for item in items if item.given_label and not item.label} if labelled else ())
    notes = tuple(
        f"Folder {printable(word)!r} names no diagnosis; its pictures count as unlabelled." for word in unknown
    )
    return Listing(
        root, in_utf8(root.resolve().name), "class folders" if labelled else "pictures", items, tuple(refused), notes
    )


def _item_from_folders(path: str) -> Item:
    """Reads `Train/melanoma/x.jpg`: the folder above the file is the class, one above may name the split."""
    folders = path.split("/")[:-1]
    split = next((SPLIT_FOLDERS[f.lower()] for f in folders if f.lower() in SPLIT_FOLDERS), None)
    word = next((f for f in reversed(folders) if f.lower() not in SPLIT_FOLDERS), None)
    return Item(path, given_split=split, given_label=word, label=label_or_none(word))


def label_or_none(word: str | None) -> Label | None:
    """The label that a data set's word means; None where it is no diagnosis known here."""
    if word is None:
        return None
    try:
        return label_of(word)
    except DataError:
        return None


def _find_table(folder: Path, columns: Mapping[str, str]) -> Path | None:
    """The one table in the folder that names pictures, and has the columns that are mapped, if there is one.

    Raises:
        DataError: several fit; the choice is not ours. Or columns are mapped and none fits.
    """
    _check_keys(columns)
    fitting = []
    for file in sorted(folder.glob("*.csv")):
        try:
            header = read_header(file)
            _mapped(file, header, columns)
        except DataError:
            continue
        fitting.append(file)
    if len(fitting) > 1:
        names = ", ".join(printable(file.name) for file in fitting)
        raise DataError(f"{printable(str(folder))}: several tables fit ({names}). Name one with --table.")
    if columns and not fitting:
        wanted = ", ".join(columns.values())
        raise DataError(f"{printable(str(folder))}: no table there has the columns {wanted}. Name one with --table.")
    return fitting[0] if fitting else None


def _check_keys(columns: Mapping[str, str]) -> None:
    for key, name in columns.items():
        if key not in COLUMNS:
            raise DataError(f"--column {key}={name}: {key!r} is not one of {', '.join(COLUMNS)}.")


def read_header(file: Path) -> list[str]:
    """The column names of a CSV table.

    Raises:
        DataError: it cannot be read, or not as UTF-8.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            return next(csv.reader(stream), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{printable(str(file))}: not a readable CSV table in UTF-8 ({error}).") from None


@dataclass(frozen=True)
class _Mapping:
    """Which column of a table says what."""

    image: str
    plain: Mapping[str, str]
    one_hot: tuple[str, ...]
    yes_or_no: str | None


def _mapped(file: Path, header: list[str], columns: Mapping[str, str]) -> _Mapping:
    lower = {name.lower().strip(): name for name in header}
    _check_keys(columns)
    for name in columns.values():
        if name not in header:
            raise DataError(f"{printable(str(file))}: has no column {name!r}. It has: {', '.join(header)}.")
    plain = {
        key: columns.get(key) or next(lower[alias] for alias in aliases if alias in lower)
        for key, aliases in COLUMNS.items()
        if key in columns or any(alias in lower for alias in aliases)
    }
    if "image" not in plain:
        raise DataError(
            f"{printable(str(file))}: no column names the pictures (looked for {', '.join(COLUMNS['image'])}). "
            "Say which one does: --column image=NAME."
        )
    one_hot = tuple(lower[name] for name in lower if name in ONE_HOT)
    yes_or_no = next((lower[name] for name in YES_OR_NO if name in lower), None)
    return _Mapping(plain["image"], plain, one_hot if len(one_hot) > 1 else (), yes_or_no)


def _from_table(root: Path, table: Path, columns: Mapping[str, str]) -> Listing:
    mapping = _mapped(table, read_header(table), columns)
    paths, refused = _walked(root)
    by_name = _by_name(paths)
    items: dict[str, Item] = {}
    notes: list[str] = []
    unknown_labels: dict[str, int] = {}
    for line, row in rows_of(table):
        name = (row.get(mapping.image) or "").strip()
        found = by_name.get(name) or by_name.get(Path(name).name) or []
        if len(found) != 1:
            why = "no picture of that name lies beside it" if not found else f"{len(found)} pictures have that name"
            mend = "Add the picture or remove the row." if not found else "Give the path below the folder instead."
            refused.append(NotAPicture(name or f"row {line}", f"{table.name} line {line} names it, but {why}", mend))
            continue
        item, word = _item_from_row(found[0], row, mapping)
        if word is not None and item.label is None:
            unknown_labels[word] = unknown_labels.get(word, 0) + 1
        if found[0] in items and items[found[0]].label != item.label:
            notes.append(f"{printable(found[0])} stands twice in {table.name} with other labels; the first row counts.")
        items.setdefault(found[0], item)
    notes += [
        f"Label {printable(w)!r} ({n} rows) is no diagnosis known here; they count as unlabelled."
        for w, n in sorted(unknown_labels.items())
    ]
    if left := len(paths) - len(items):
        notes.append(f"{left} pictures below the folder are not in {table.name} and were left out.")
    if not items:
        raise DataError(f"{printable(str(table))}: none of its rows names a picture below {printable(str(root))}.")
    ordered = tuple(items[path] for path in sorted(items))
    return Listing(root, in_utf8(root.resolve().name), "table", ordered, tuple(refused), tuple(notes))


def _by_name(paths: Iterable[str]) -> dict[str, list[str]]:
    """Each path under its whole, its file name and its stem, so that a table may use any of the three."""
    found: dict[str, list[str]] = {}
    for path in paths:
        for key in {path, path.rsplit("/", 1)[-1], Path(path).stem}:
            found.setdefault(key, []).append(path)
    return found


def rows_of(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row with the line of the file that it ends on: rows may be empty or hold line breaks.

    Raises:
        DataError: the table cannot be read to its end; when the row is asked for.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{printable(str(table))}: cannot be read to its end ({error}).") from None


def _item_from_row(path: str, row: Mapping[str, str], mapping: _Mapping) -> tuple[Item, str | None]:
    told = {key: value for key, name in mapping.plain.items() if (value := _told(row.get(name))) is not None}
    word = _word(told.get("diagnosis"), row, mapping)
    item = Item(
        path,
        given_split=SPLIT_FOLDERS.get(told.get("split", "").lower()) or _item_from_folders(path).given_split,
        given_label=word,
        label=label_or_none(word),
        lesion_id=told.get("lesion_id"),
        patient_id=told.get("patient_id"),
        age_years=_age(told.get("age")),
        sex=_SEX.get(told.get("sex", "").lower()),
        site=told.get("site"),
    )
    return item, word


def _word(diagnosis: str | None, row: Mapping[str, str], mapping: _Mapping) -> str | None:
    """The row's most telling label that we know: ISIC 2020 names diagnoses outside our nine, then says yes or no."""
    words = (diagnosis, _one_hot_word(row, mapping.one_hot), _yes_or_no_word(row, mapping.yes_or_no))
    given = [word for word in words if word is not None]
    return next((word for word in given if label_or_none(word)), given[0] if given else None)


_SEX = {"f": "female", "female": "female", "m": "male", "male": "male"}


def _told(value: str | None) -> str | None:
    text = (value or "").strip()
    return None if text.lower() in NOT_TOLD else text


def _age(text: str | None) -> float | None:
    """Years, or None where it is no number between 0 and 120."""
    try:
        age = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return age if 0 <= age <= 120 else None


def _one_hot_word(row: Mapping[str, str], columns: tuple[str, ...]) -> str | None:
    chosen = [name for name in columns if _is_one(row.get(name))]
    return chosen[0].replace("_", " ") if len(chosen) == 1 else None


def _yes_or_no_word(row: Mapping[str, str], column: str | None) -> str | None:
    if column is None or _told(row.get(column)) is None:
        return None
    return "melanoma" if _is_one(row.get(column)) else "not melanoma"


def _is_one(value: str | None) -> bool:
    try:
        return float(value or "") == 1.0
    except ValueError:
        return False

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert.errors import DataError
from dermalert.intake.manifest import ROW_GROUP, SCHEMA, Manifest, ManifestWriter, stream

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ABOUT = b'{"format": 1, "root": "pictures"}'


def manifest(*rows: dict[str, Any]) -> Manifest:
    """A row for each dict, with an id and a path unless it has its own."""
    filled = [{"image_id": f"{n}.jpg", "path": f"{n}.jpg", "source": "drawn"} | row for n, row in enumerate(rows)]
    return Manifest(Path("pictures"), pa.Table.from_pylist(filled, schema=SCHEMA))


def drawn_rows() -> st.SearchStrategy[dict[str, Any]]:
    """A value for every column: any Unicode, and the ends of each number's range."""
    by_type = {
        pa.string(): TEXT,
        pa.float32(): st.floats(width=32, allow_nan=False),
        pa.int32(): st.integers(-(2**31), 2**31 - 1),
        pa.int64(): st.integers(-(2**63), 2**63 - 1),
        pa.binary(32): st.binary(min_size=32, max_size=32),
    }
    return st.fixed_dictionaries(
        {f.name: by_type[f.type] | st.none() if f.nullable else by_type[f.type] for f in SCHEMA}
    )


def written(folder: Path, table: pa.Table, about: bytes | None = ABOUT) -> Path:
    """A Parquet file that only claims to be a manifest."""
    file = folder / "claimed.parquet"
    pq.write_table(table.replace_schema_metadata(None if about is None else {"dermalert": about}), file)
    return file


@given(st.lists(drawn_rows(), max_size=5), TEXT)
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read_back_value_for_value(rows: list[dict[str, Any]], name: str) -> None:
    before = Manifest(Path("root") / name.replace("\0", ""), pa.Table.from_pylist(rows, schema=SCHEMA))
    with tempfile.TemporaryDirectory() as folder:
        before.write(Path(folder) / "m.parquet")
        after = Manifest.read(Path(folder) / "m.parquet")
    assert after.root == before.root
    assert after.table.to_pylist() == rows
    assert after.table.schema.equals(SCHEMA)
    assert after.fingerprint() == before.fingerprint()


def test_pictures_that_moved_are_found_below_the_root_given(tmp_path: Path) -> None:
    manifest({"path": "Train/melanoma/x.jpg"}).write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").paths() == [Path("pictures/Train/melanoma/x.jpg")]
    moved = Manifest.read(tmp_path / "m.parquet", root=tmp_path)
    assert moved.paths() == [tmp_path / "Train/melanoma/x.jpg"]


def test_a_manifest_in_a_folder_named_like_a_setting_gains_no_column(tmp_path: Path) -> None:
    (tmp_path / "seed=1").mkdir()
    manifest({}).write(tmp_path / "seed=1" / "m.parquet")
    assert len(Manifest.read(tmp_path / "seed=1" / "m.parquet")) == 1


def test_rows_keep_their_ids_and_order_under_filters_and_new_columns() -> None:
    changed = manifest({}, {}, {}).where([True, False, True]).with_columns(split=["train", None], group=[7, 8])
    assert changed.column("image_id") == ["0.jpg", "2.jpg"]
    assert (changed.column("split"), changed.column("group")) == (["train", None], [7, 8])
    assert changed.table.schema.equals(SCHEMA)


def test_labels_are_read_through_the_taxonomy_and_none_stays_none() -> None:
    labels = manifest({"diagnosis": "melanoma"}, {"diagnosis": "akiec"}, {}).labels()
    assert [label and label.name for label in labels] == ["melanoma", "akiec", None]


def test_a_column_that_no_manifest_has_is_refused(tmp_path: Path) -> None:
    manifest({}).write(tmp_path / "m.parquet")
    with pytest.raises(DataError, match="no column 'colour'"):
        manifest({}).with_columns(colour=["red"])
    with pytest.raises(DataError, match="no column colour"):
        list(stream(tmp_path / "m.parquet", columns=["path", "colour"]))


@pytest.mark.parametrize(
    ("column", "value"), [("sha256", "ff"), ("diagnosis", "nevus"), ("split", "test"), ("diagnosis", None)]
)
def test_the_fingerprint_changes_with_what_a_model_learns_from(column: str, value: str | None) -> None:
    row = {"sha256": "00", "diagnosis": "melanoma", "split": "train"}
    assert manifest(row | {column: value}, row).fingerprint() != manifest(row, row).fingerprint()


def test_the_fingerprint_knows_the_number_and_order_of_pictures_but_not_where_they_lie() -> None:
    one, other = {"sha256": "00"}, {"sha256": "11"}
    assert manifest(one, other).fingerprint() != manifest(other, one).fingerprint()
    assert manifest(one).fingerprint() != manifest(one, one).fingerprint()
    assert manifest(one | {"path": "elsewhere.jpg", "site": "back"}).fingerprint() == manifest(one).fingerprint()


@pytest.mark.parametrize("column", SCHEMA.names)
def test_a_manifest_without_one_of_its_columns_is_refused_by_name(tmp_path: Path, column: str) -> None:
    file = written(tmp_path, manifest({}).table.drop_columns([column]))
    with pytest.raises(DataError, match=f"columns {column} differ"):
        Manifest.read(file)
    with pytest.raises(DataError, match=f"columns {column} differ"):
        next(stream(file))


def test_columns_that_no_manifest_has_or_in_another_order_are_refused(tmp_path: Path) -> None:
    table = manifest({}).table
    with pytest.raises(DataError, match="columns colour differ"):
        Manifest.read(written(tmp_path, table.append_column("colour", pa.array(["red"]))))
    with pytest.raises(DataError, match="another order"):
        Manifest.read(written(tmp_path, table.select(SCHEMA.names[::-1])))


@pytest.mark.parametrize(
    ("column", "values"),
    [("age_years", ["forty"]), ("width", ["wide"]), ("group", ["a"]), ("image_id", [None]), ("dhash", [b"short"])],
)
def test_columns_of_another_type_are_refused(tmp_path: Path, column: str, values: list[Any]) -> None:
    table = manifest({}).table
    file = written(tmp_path, table.set_column(SCHEMA.names.index(column), column, pa.array(values)))
    with pytest.raises(DataError, match="not a readable manifest"):
        Manifest.read(file)
    with pytest.raises(DataError, match="not a readable manifest"):
        list(stream(file))


@pytest.mark.parametrize("about", [None, b"", b"{", b"[]", b"null", b"\xff", b'{"format": 1}', b'{"format": 2}'])
def test_a_parquet_file_that_is_no_manifest_we_know_is_refused(tmp_path: Path, about: bytes | None) -> None:
    file = written(tmp_path, manifest({}).table, about)
    with pytest.raises(DataError, match=r"claimed\.parquet"):
        Manifest.read(file)
    with pytest.raises(DataError, match=r"claimed\.parquet"):
        next(stream(file))


def test_a_manifest_of_a_newer_format_says_which_one_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="format 2; this Dermalert reads 1"):
        Manifest.read(written(tmp_path, manifest({}).table, b'{"format": 2, "root": "r"}'))


@given(cut=st.floats(0, 0.999))
@settings(deadline=None, max_examples=40)
def test_a_manifest_cut_off_anywhere_is_refused(cut: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "m.parquet"
        manifest({}, {}).write(file)
        whole = file.read_bytes()
        file.write_bytes(whole[: int(cut * len(whole))])
        for read in (Manifest.read, lambda file: list(stream(file))):
            with pytest.raises(DataError, match=r"m\.parquet"):
                read(file)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such manifest"):
        Manifest.read(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="not a readable manifest"):
        Manifest.read(tmp_path)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    witness, bomb = tmp_path / "opened", pickle.dumps(Bomb(tmp_path / "opened"))
    (tmp_path / "m.parquet").write_bytes(bomb)
    for file in (tmp_path / "m.parquet", written(tmp_path, manifest({}).table, bomb)):
        for read in (Manifest.read, lambda file: list(stream(file))):
            with pytest.raises(DataError):
                read(file)
    assert not witness.exists()
    pickle.loads(bomb)
    assert witness.exists(), "the bomb is a dud: this test shows nothing"


def test_a_write_that_breaks_off_leaves_the_old_manifest_and_nothing_half_done(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    manifest({"source": "old"}).write(file)
    batch = manifest({"source": "new"}).table.to_batches()[0]

    def break_off() -> None:
        with ManifestWriter(file, tmp_path) as writer:
            writer.write(batch)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert Manifest.read(file).column("source") == ["old"]
    assert list(tmp_path.iterdir()) == [file]


def test_a_million_rows_are_written_and_streamed_in_the_memory_of_a_few_row_groups(tmp_path: Path) -> None:
    rows, chunk = 1_000_000, 50_000
    file = tmp_path / "million.parquet"
    template = manifest(*({"sha256": f"{n:064x}", "dhash": bytes(32)} for n in range(chunk))).table
    before, peak, order = pa.total_allocated_bytes(), 0, []
    with ManifestWriter(file, tmp_path) as writer:
        for start in range(0, rows, chunk):
            numbers = pa.array(range(start, start + chunk), pa.int64())
            numbered = template.set_column(SCHEMA.names.index("group"), SCHEMA.field("group"), numbers)
            writer.write(numbered.combine_chunks().to_batches()[0])
            peak = max(peak, pa.total_allocated_bytes() - before)
    counted = 0
    for batch in stream(file):
        assert batch.num_rows <= ROW_GROUP
        order.append(batch.column("group")[0].as_py())
        assert order[-1] == counted
        counted += batch.num_rows
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert counted == rows
    # Measured: 20 of 217 MB, 11 of them the template. No picture of these rows exists to be opened.
    assert peak < rows // chunk * template.nbytes / 5


def test_a_stream_gives_the_columns_asked_for(tmp_path: Path) -> None:
    manifest({"site": "back"}, {"site": "arm"}).write(tmp_path / "m.parquet")
    (batch,) = stream(tmp_path / "m.parquet", columns=["site", "path"])
    assert batch.to_pylist() == [{"site": "back", "path": "0.jpg"}, {"site": "arm", "path": "1.jpg"}]

"""The Manifest: one row an image, in Parquet.

Comes in: rows from `sources`, hashes from `fingerprint`, groups from `audit`, splits from `split`.
Goes out: a `Manifest`, which every later stage takes. It never holds pixels, so a million rows fit in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dermalert.errors import DataError
from dermalert.taxonomy import Label, label_of

FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # POSIX path below the root: stable and unique
        pa.field("path", pa.string(), nullable=False),  # below the root, POSIX separators
        pa.field("source", pa.string(), nullable=False),  # name of the data set it came with
        pa.field("given_split", pa.string()),  # the folder's own split: train, validation, test or null
        pa.field("given_label", pa.string()),  # as its owner wrote it
        pa.field("diagnosis", pa.string()),  # taxonomy word, exact or coarse; null if unlabelled
        pa.field("lesion_id", pa.string()),
        pa.field("patient_id", pa.string()),
        pa.field("age_years", pa.float32()),
        pa.field("sex", pa.string()),  # female, male or null
        pa.field("site", pa.string()),  # where on the body
        pa.field("width", pa.int32()),  # pixels, after EXIF rotation
        pa.field("height", pa.int32()),
        pa.field("bytes", pa.int64()),
        pa.field("format", pa.string()),  # JPEG, PNG, ...
        pa.field("sha256", pa.string()),  # of the file's bytes, hex
        pa.field("dhash", pa.binary(32)),  # 256-bit difference hash of the upright picture
        pa.field("duplicate_group", pa.int64()),  # same or nearly same picture; null if alone
        pa.field("group", pa.int64()),  # lesion, patient and duplicates joined: never parted by a split
        pa.field("split", pa.string()),  # train, validation or test; null before splitting
        pa.field("resolution", pa.string()),  # keep, drop or relabel, as the audit proposes
        pa.field("reason", pa.string()),  # why, in a sentence; null where there is nothing to say
    ]
)


@dataclass(frozen=True)
class Manifest:
    """A data set on disk, one row an image.

    Attributes:
        root: the folder that `path` is below.
        table: rows of `SCHEMA`.
    """

    root: Path
    table: pa.Table

    def __post_init__(self) -> None:
        _check_names(self.table.schema)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> list[Any]:
        """One column as Python values."""
        return self.table.column(name).to_pylist()  # type: ignore[no-any-return]

    def paths(self) -> list[Path]:
        """Each image's file, in row order."""
        return [self.root / path for path in self.column("path")]

    def labels(self) -> list[Label | None]:
        """Each image's label, in row order; None where it has none."""
        return [None if word is None else label_of(word) for word in self.column("diagnosis")]

    def with_columns(self, **columns: Any) -> Manifest:
        """The same rows with these columns replaced (each of length N, Python values or Arrow arrays)."""
        table = self.table
        for name, values in columns.items():
            index = SCHEMA.get_field_index(name)
            if index < 0:
                raise DataError(f"A manifest has no column {name!r}.")
            table = table.set_column(index, SCHEMA.field(index), pa.array(values, SCHEMA.field(index).type))
        return replace(self, table=table)

    def where(self, mask: Any) -> Manifest:
        """The rows where `mask` (bool, N) is true."""
        return replace(self, table=self.table.filter(pa.array(mask, pa.bool_())))

    def fingerprint(self) -> str:
        """SHA-256 over every picture's content hash, diagnosis and split, in row order: what a model learnt from."""
        digest = hashlib.sha256()
        for row in zip(*(self.column(name) for name in ("sha256", "diagnosis", "split")), strict=True):
            digest.update(repr(row).encode())
        return digest.hexdigest()

    def content(self) -> str:
        """SHA-256 over every picture's content hash, in no order: the same pictures, whatever is said of them."""
        return hashlib.sha256("\n".join(sorted(map(str, self.column("sha256")))).encode()).hexdigest()

    def write(self, file: Path) -> None:
        """Writes Parquet, with the root and the format version in its metadata."""
        with ManifestWriter(file, self.root) as writer:
            for batch in self.table.to_batches(max_chunksize=ROW_GROUP):
                writer.write(batch)

    @classmethod
    def read(cls, file: Path, *, root: Path | None = None) -> Manifest:
        """Reads a manifest; `root` replaces the folder written in it, when the pictures have moved.

        Raises:
            DataError: no such file, not Parquet, not a manifest of a version we read, or other columns or types.
        """
        parquet, about = _open(file)
        with parquet, _as_data_error(file):
            return cls(root or Path(about["root"]), parquet.read().cast(SCHEMA))


ROW_GROUP = 16_384


class ManifestWriter:
    """Writes a manifest row group by row group, so that its rows never stand in memory all at once.

    The file appears under its name when it is whole: one that broke off would read as a smaller data set.
    """

    def __init__(self, file: Path, root: Path) -> None:
        about = json.dumps({"format": FORMAT_VERSION, "root": str(root)})
        self._schema = SCHEMA.with_metadata({"dermalert": about})
        self._file, self._part = file, file.with_name(f"{file.name}.part")
        self._writer = pq.ParquetWriter(self._part, self._schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch.cast(self._schema), row_group_size=ROW_GROUP)

    def __enter__(self) -> ManifestWriter:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._writer.close()
        if failure is None:
            self._part.replace(self._file)
        else:
            self._part.unlink()


def stream(file: Path, *, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The manifest's row groups one at a time, for sets too large to hold.

    Raises:
        DataError: as `Manifest.read`, or a column that no manifest has; when the first row group is asked for.
    """
    if unknown := sorted(set(columns or ()) - set(SCHEMA.names)):
        raise DataError(f"A manifest has no column {', '.join(unknown)}.")
    parquet, _ = _open(file)
    with parquet, _as_data_error(file):
        wanted = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
        for batch in parquet.iter_batches(batch_size=ROW_GROUP, columns=columns):
            yield batch.select(wanted.names).cast(wanted)


def paths_in(file: Path) -> Iterator[Path]:
    """Each image's file, in row order; of the manifest, one row group at a time is held.

    Raises:
        DataError: as `Manifest.read`, at once.
    """
    parquet, about = _open(file)
    parquet.close()
    root = Path(about["root"])
    return (root / path for batch in stream(file, columns=["path"]) for path in batch.column(0).to_pylist())


def _open(file: Path) -> tuple[pq.ParquetFile, dict[str, Any]]:
    with _as_data_error(file):
        parquet = pq.ParquetFile(file)
    schema = parquet.schema_arrow
    about = _about(file, schema)
    _check_names(schema)
    return parquet, about


@contextmanager
def _as_data_error(file: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such manifest.") from None
    # Arrow raises plain ValueError for a null where none may be.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file}: not a readable manifest ({error}). Run `dermalert audit` again.") from None


def _check_names(schema: pa.Schema) -> None:
    if schema.names != SCHEMA.names:
        unknown = sorted(set(schema.names) ^ set(SCHEMA.names))
        differ = f"columns {', '.join(unknown)} differ" if unknown else "its columns stand in another order"
        raise DataError(f"Not a manifest of format {FORMAT_VERSION}: {differ}.")


def _about(file: Path, schema: pa.Schema) -> dict[str, Any]:
    raw = (schema.metadata or {}).get(b"dermalert")
    if raw is None:
        raise DataError(f"{file}: a Parquet file, but not a Dermalert manifest. Make one with `dermalert audit`.")
    with _as_data_error(file):
        about = json.loads(raw)
    if not isinstance(about, dict) or about.get("format") != FORMAT_VERSION:
        found = about.get("format") if isinstance(about, dict) else None
        raise DataError(f"{file}: manifest format {found}; this Dermalert reads {FORMAT_VERSION}.")
    if not isinstance(about.get("root"), str):
        raise DataError(f"{file}: its metadata names no root folder. Run `dermalert audit` again.")
    return about

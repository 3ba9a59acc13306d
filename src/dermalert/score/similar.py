"""Similar cases: the pictures of a collection that the model sees as most like one picture.

Comes in: embeddings, the features that the bundle's graph pools before its last layer. Goes out: `Neighbour`s by the
cosine of the angle between them. Likeness to the model is not a diagnosis, and nothing here votes.

The search is exact: one product of matrices for each block of the index, with one block at a time in memory. A million
pictures are 2.6 GB on disk and 13 s of one core a question, which is what reading them takes; beyond that, an
approximate index would be the next step.

The index is a folder of Parquet files, each a block of rows (SHA-256 of a picture's file, its embedding). It knows no
names and no labels, so that it holds for a picture wherever it lies, and each model has an index of its own. Blocks are
only added, each whole or not at all: what was embedded before an interruption is not done again.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dermalert.bundle.format import Bundle
from dermalert.errors import BundleError, DataError, printable
from dermalert.score.engine import Engine

EMBEDDING = "embedding"  # the graph's output that this needs
BLOCK = 1024  # rows a file of the index: what an interruption can cost
MOST_ROWS, MOST_BYTES = 1 << 20, 1 << 30  # of one file of the index
HASH_BYTES = 32


@dataclass(frozen=True)
class Neighbour:
    """A picture of the collection. `similarity` is a cosine in [-1, 1]; 1 is the same direction."""

    sha256: bytes
    similarity: float


def embed(engine: Engine, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 (N, E) of length 1, from uint8 (N, H, W, 3) at the bundle's size.

    Raises:
        BundleError: the graph gives no embedding, or one that is no number.
    """
    if not engine.has(EMBEDDING):
        raise BundleError(
            f"bundle {engine.bundle.name!r}: its network gives no embedding to compare pictures by. Use a bundle of "
            "mobilenetv2 or of a network of keras.applications."
        )
    found = engine.run(pixels, EMBEDDING)[EMBEDDING].astype(np.float32)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    if not np.isfinite(length).all():
        raise BundleError(f"bundle {engine.bundle.name!r}: for some picture its model gives what is no number.")
    unit: NDArray[np.float32] = found / np.maximum(length, np.finfo(np.float32).tiny)
    return unit


def model_hash(bundle: Bundle) -> str:
    """SHA-256 of what an embedding depends on: the graph and the size that pictures are squashed to."""
    return hashlib.sha256(json.dumps(bundle.size).encode() + bundle.model).hexdigest()


class Index:
    """The embeddings of one model on disk, by the SHA-256 of the picture's file."""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        """
        Args:
            folder: of the indexes of all models; made when there is something to write.

        Raises:
            DataError: a file of the index is none, or holds other embeddings than its neighbours.
        """
        self._folder = folder / model_hash(bundle)[:32]
        self._length: int | None = None
        self.known = {one for hashes, _ in self.blocks() for one in hashes}

    def blocks(self) -> Iterator[tuple[list[bytes], NDArray[np.float32]]]:
        """Each block's hashes and its embeddings, float32 (B, E)."""
        for file in sorted(self._folder.glob("*.parquet")):
            yield self._read(file)

    def add(self, hashes: Sequence[bytes], embeddings: NDArray[np.float32]) -> None:
        """Writes a block, float32 (B, E); hashes that are known already must not be among them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        rows = pa.FixedSizeListArray.from_arrays(
            pa.array(embeddings.astype(np.float16).ravel(), pa.float16()), embeddings.shape[1]
        )
        table = pa.table({"sha256": pa.array(hashes, pa.binary(HASH_BYTES)), "embedding": rows})
        name = hashlib.sha256(b"".join(hashes)).hexdigest()[:32]
        part = self._folder / f"{name}.part"
        pq.write_table(table, part, compression="none", use_dictionary=False, write_statistics=False)
        part.replace(self._folder / f"{name}.parquet")
        self.known.update(hashes)

    def _read(self, file: Path) -> tuple[list[bytes], NDArray[np.float32]]:
        try:
            with pq.ParquetFile(file) as parquet:
                length = self._checked_length(parquet)
                table = parquet.read()
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            raise DataError(f"{printable(str(file))}: no part of an index ({error}). Delete it.") from None
        rows = table.column("embedding").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        embeddings = rows.astype(np.float32).reshape(-1, length)
        if table.num_rows != len(embeddings) or not np.isfinite(embeddings).all():
            raise DataError(f"{printable(str(file))}: no part of an index (rows are missing or no number). Delete it.")
        return table.column("sha256").to_pylist(), embeddings

    def _checked_length(self, parquet: pq.ParquetFile) -> int:
        schema, about = parquet.schema_arrow, parquet.metadata
        size = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
        if about.num_rows > MOST_ROWS or size > MOST_BYTES:
            raise ValueError("larger than any that is written")
        if schema.names != ["sha256", "embedding"] or schema.field("sha256").type != pa.binary(HASH_BYTES):
            raise ValueError("other columns")
        kind = schema.field("embedding").type
        if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float16():
            raise ValueError("embeddings of another type")
        if self._length not in (None, kind.list_size):
            raise ValueError(f"embeddings of {kind.list_size} numbers beside others of {self._length}")
        self._length = int(kind.list_size)
        return self._length


class Embedder:
    """Fills an index batch by batch, and writes what it has on leaving, whatever the reason."""

    def __init__(self, engine: Engine, index: Index) -> None:
        self._engine, self._index = engine, index
        self._waiting: dict[bytes, NDArray[np.float32]] = {}

    def add(self, hashes: Sequence[bytes], pixels: NDArray[np.uint8]) -> None:
        """Embeds pictures, uint8 (N, H, W, 3) at the bundle's size, and keeps those whose hash is new."""
        found = zip(hashes, embed(self._engine, pixels), strict=True)
        self._waiting.update((one, row) for one, row in found if one not in self._index.known)
        if len(self._waiting) >= BLOCK:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._index.add(list(self._waiting), np.stack(list(self._waiting.values())))
            self._waiting = {}

    def __enter__(self) -> Embedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()


def nearest(
    query: NDArray[np.float32],
    blocks: Iterable[tuple[list[bytes], NDArray[np.float32]]],
    *,
    among: Container[bytes],
    k: int,
) -> list[Neighbour]:
    """The `k` rows most like `query`, the likest first; equals in the order of their hashes.

    Args:
        query: float32 (E,) of length 1.
        blocks: hashes and embeddings, float32 (B, E) of length 1, as `Index.blocks` gives them.
        among: hashes that count; others of the index belong to other collections.
    """
    best: dict[bytes, float] = {}
    for hashes, embeddings in blocks:
        similarities = (embeddings @ query).tolist()
        best |= {one: value for one, value in zip(hashes, similarities, strict=True) if one in among}
        best = dict(heapq.nsmallest(k, best.items(), key=lambda item: (-item[1], item[0])))
    return [Neighbour(one, value) for one, value in best.items()]

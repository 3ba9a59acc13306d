"""`dermalert similar`: one picture and a collection in, its most similar pictures out."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dermalert import page
from dermalert.bundle.format import Bundle
from dermalert.errors import DataError, RefusedFile, in_utf8, printable
from dermalert.intake.decode import EXTENSIONS, decode, load, read_bytes
from dermalert.intake.manifest import Manifest
from dermalert.intake.overlap import in_order
from dermalert.intake.sources import list_data
from dermalert.page.page import count
from dermalert.score.engine import Engine
from dermalert.score.similar import Embedder, Index, embed, nearest
from dermalert.stages.admission import refuse_strangers

BATCH = 32
EDGE = 240  # pixels of the pictures on the page


@dataclass(frozen=True)
class Case:
    """A picture of the collection that is like the one asked about.

    Attributes:
        paths: of its file; several where the collection holds the same file more than once.
        labels: what the collection calls it: none where it says nothing, several where it contradicts itself.
        similarity: cosine in [-1, 1].
        sha256: of its file.
    """

    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    similarity: float
    sha256: bytes

    def to_json(self) -> dict[str, Any]:
        """As it stands in `--json`."""
        paths = [in_utf8(str(path)) for path in self.paths]
        return {"paths": paths, "labels": list(self.labels), "similarity": self.similarity}


@dataclass(frozen=True)
class Similar:
    """What was found.

    Attributes:
        picture: the one asked about.
        cases: the most similar first.
        searched: files that were compared with it.
        refused: files of the collection that could not be used.
    """

    picture: Path
    cases: tuple[Case, ...]
    searched: int
    refused: tuple[RefusedFile, ...]

    def to_json(self) -> dict[str, Any]:
        """As it stands in `--json`."""
        return {
            "picture": in_utf8(str(self.picture)),
            "searched": self.searched,
            "refused": len(self.refused),
            "cases": [case.to_json() for case in self.cases],
        }


def run_similar(
    picture: Path,
    among: Path,
    bundle: Bundle,
    *,
    k: int,
    index: Path,
    out: Path | None = None,
    workers: int | None = None,
    command: str,
    made: datetime,
) -> Similar:
    """Finds the pictures of `among` that are most like `picture`, and writes the page where `out` is named.

    Args:
        among: a folder, with class folders or a table or without; a table; or a manifest.
        k: how many.
        index: folder where embeddings are kept, so that each picture goes through the model once.

    Raises:
        RefusedFile: the picture cannot be used, or the bundle's gate rejects it.
        DataError: nothing there, not one picture of the collection could be used, or `out` is named like a picture.
        BundleError: the bundle cannot be used, or gives no embedding.
    """
    if out is not None and out.suffix.lower() in EXTENSIONS:
        raise DataError(
            f"{printable(str(out))}: is named like a picture, and no picture is ever replaced. Name a page."
        )
    engine = Engine(bundle)
    data = read_bytes(picture)
    asked = decode(data, path=picture, size=bundle.size)
    refuse_strangers(engine, asked, picture)
    query = embed(engine, asked.pixels[None])[0]
    collection = Collection.read(among, engine, index, workers)
    itself = hashlib.sha256(data).digest()
    searched = sum(len(paths) for one, paths in collection.places.items() if one != itself)
    if not searched:
        refused = collection.refused
        others = f"; {len(refused)} files were refused, the first: {refused[0]}" if refused else ""
        raise DataError(f"{printable(str(among))}: no picture there to compare with{others}")
    cases = tuple(collection.nearest(query, k, but=itself))
    similar = Similar(picture, cases, searched, collection.refused)
    if out is not None:
        page.write(out, _page(similar, bundle, command=command, made=made))
    return similar


@dataclass(frozen=True)
class Collection:
    """Labelled pictures, all of whose features are known.

    Attributes:
        labelled: what its owner calls each file.
        places: the files of each hash.
        refused: files that could not be used.
        index: holds the features.
    """

    labelled: Mapping[Path, str | None]
    places: Mapping[bytes, list[Path]]
    refused: tuple[RefusedFile, ...]
    index: Index

    @classmethod
    def read(cls, among: Path, engine: Engine, index: Path, workers: int | None = None) -> Collection:
        """Embeds what the index does not know yet; arguments and errors as of `run_similar`."""
        labelled, kept = _labelled(among), Index(index, engine.bundle)
        hashes, refused = _indexed(engine, kept, list(labelled), workers)
        places: dict[bytes, list[Path]] = {}
        for path, one in hashes.items():
            places.setdefault(one, []).append(path)
        return cls(labelled, places, refused, kept)

    def nearest(self, query: NDArray[np.float32], k: int, *, but: bytes) -> Iterator[Case]:
        """The `k` pictures most like `query`, float32 (E,) of length 1, the likest first; none whose hash is `but`."""
        among = self.places.keys() - {but}
        for found in nearest(query, self.index.blocks(), among=among, k=k):
            paths = self.places[found.sha256]
            yield Case(tuple(paths), _labels(self.labelled, paths), found.similarity, found.sha256)


def _labelled(among: Path) -> Mapping[Path, str | None]:
    """Each picture of the collection and what its owner calls it."""
    if among.suffix.lower() == ".parquet":
        manifest = Manifest.read(among)
        return dict(zip(manifest.paths(), manifest.column("diagnosis"), strict=True))
    listing = list_data(among)
    for refusal in listing.refused:
        tqdm.write(str(refusal), file=sys.stderr)
    return {listing.root / item.path: item.label.name if item.label else None for item in listing.items}


def _labels(labelled: Mapping[Path, str | None], paths: Sequence[Path]) -> tuple[str, ...]:
    return tuple(sorted({label for path in paths if (label := labelled[path]) is not None}))


def _indexed(
    engine: Engine, index: Index, paths: Sequence[Path], workers: int | None
) -> tuple[dict[Path, bytes], tuple[RefusedFile, ...]]:
    """The hash of each picture, all of them in the index now; and the files refused."""
    hashes: dict[Path, bytes] = {}
    refused: list[RefusedFile] = []
    results = iter(tqdm(in_order(_reader(engine, index), paths, workers), "embed", len(paths), unit="picture"))
    with Embedder(engine, index) as embedder:
        while batch := list(islice(results, BATCH)):
            new: dict[bytes, NDArray[np.uint8]] = {}
            for path, result in batch:
                if isinstance(result, RefusedFile):
                    refused.append(result)
                    tqdm.write(str(result), file=sys.stderr)
                    continue
                hashes[path], pixels = result
                if pixels is not None:
                    new[hashes[path]] = pixels
            if new:
                embedder.add(list(new), np.stack(list(new.values())))
    return hashes, tuple(refused)


def _reader(engine: Engine, index: Index) -> Callable[[Path], tuple[Path, Any]]:
    """A function from a file to its hash and, where the index does not know it, its pixels; or to its refusal."""

    def read(path: Path) -> tuple[Path, tuple[bytes, NDArray[np.uint8] | None] | RefusedFile]:
        try:
            data = read_bytes(path)
            one = hashlib.sha256(data).digest()
            return path, (one, None if one in index.known else decode(data, path=path, size=engine.bundle.size).pixels)
        except RefusedFile as refusal:
            return path, refusal

    return read


def _page(similar: Similar, bundle: Bundle, *, command: str, made: datetime) -> str:
    counted = Counter(" or ".join(case.labels) for case in similar.cases if case.labels)
    return page.render(
        "score/similar.html.j2",
        title=f"Similar to {similar.picture.name}",
        command=command,
        made=made,
        query=_shown(similar.picture, "The picture asked about", "", ""),
        cases=list(_cases(similar)),
        labels=[[label, count(number)] for label, number in counted.most_common()],
        searched=similar.searched,
        refused=len(similar.refused),
        bundle=bundle.name,
    )


def _cases(similar: Similar) -> Iterator[page.Picture]:
    for place, case in enumerate(similar.cases, start=1):
        label = " or ".join(case.labels) or "no label"
        note = f"similarity {case.similarity:.3f}"
        if len(case.paths) > 1:
            note += f"; the same file {len(case.paths)} times"
        yield _shown(case.paths[0], f"Similar case {place}: {label}", label, note)


def _shown(path: Path, alt: str, caption: str, note: str) -> page.Picture:
    """The picture, or in its place why it cannot be shown."""
    try:
        return page.picture(load(path).pixels, alt=alt, caption=caption, note=note, name=path.name, edge=EDGE)
    except RefusedFile as refusal:
        gone = f"Picture not shown: {refusal.reason}"
        return page.Picture("", gone, caption, note, EDGE, EDGE, path.name)


def kept_by_default() -> Path:
    """Where features are kept when nobody says where: below the user's cache folder (XDG base directories)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dermalert" / "embeddings"

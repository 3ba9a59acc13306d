"""The plan of a run on many machines: which pictures make which block, fixed before the first is scored.

Comes in: the arguments of `dermalert score`. Goes out: a file that lists every picture once, in blocks, and can be read
at any block by any machine; and the names of the files that the blocks' findings go to. Opens no picture.

The plan is what makes a run's output exact: a block has one name, whoever scores it and however often. A run that is
taken up again goes by the plan that is there, so that pictures which came since can neither shift a block nor be lost
in one.

    out/_plan.arrow                  Arrow IPC, a record batch a block; what the run was asked for stands in its schema
    out/part-000000.parquet          findings of block 0
    out/part-000001-000000.parquet   of block 1, an archive: its first pictures; -000001 the next ones, and so on
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from dermalert.errors import DataError, RefusedFile, printable
from dermalert.intake.decode import DEFAULT_LIMITS, Limits
from dermalert.intake.given import Archive, Found, Given, Place, given_in, places_at
from dermalert.score.durable import PLAN

BLOCK = 512  # pictures: some seconds of one core's work, which is what a lost machine costs, and a file of 50 KB

_COLUMNS = ("name", "path", "url", "reason", "mend")  # of a picture or of one that is refused already
_SCHEMA = pa.schema([pa.field("archive", pa.bool_()), *(pa.field(name, pa.string()) for name in _COLUMNS)])
_T = TypeVar("_T")


class Plan:
    """The plan of one run, as it lies in the output folder."""

    def __init__(self, out: Path) -> None:
        """
        Raises:
            DataError: there is none, or it is damaged.
        """
        self.out = out
        try:
            self._blocks = pa.ipc.open_file(pa.memory_map(str(out / PLAN)))
            self.asked: dict[str, Any] = json.loads(self._blocks.schema.metadata[b"asked"])
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{printable(str(out / PLAN))}: cannot be read here ({error}). Every machine has to see the output "
                "folder by this very path."
            ) from None

    def __len__(self) -> int:
        return int(self._blocks.num_record_batches)

    def parts(self, number: int, limits: Limits = DEFAULT_LIMITS) -> Iterator[tuple[Path, Iterator[Found]]]:
        """The files that a block's findings go to, each with its pictures, which must be used up before the next.

        An archive is read as its pictures are asked for.
        """
        rows = self._blocks.get_batch(number).to_pylist()
        name = f"part-{number:06d}"
        if not rows[0]["archive"]:
            yield self.out / f"{name}.parquet", map(_found, rows)
            return
        for piece, pictures in enumerate(_pieces(given_in(_placed(Archive, rows[0]), limits), self.asked["block"])):
            yield self.out / f"{name}-{piece:06d}.parquet", pictures

    def unfinished(self) -> list[int]:
        """The blocks without a file; and all archives, as only their end tells how many files they make."""
        there = {file.name for file in os.scandir(self.out) if file.is_file()}
        return [number for number in range(len(self)) if f"part-{number:06d}.parquet" not in there]

    def told(self, number: int) -> str:
        """The block in words, by the names of its first and last picture."""
        names = self._blocks.get_batch(number)["name"]
        first, last = (printable(names[at].as_py()) for at in (0, -1))
        return first if len(names) == 1 else f"{first} to {last}"


def planned(out: Path, arguments: Iterable[str | Path], asked: Mapping[str, Any], *, block: int = BLOCK) -> Plan:
    """The plan of the run that goes to `out`: the one that is there, or a new one.

    Args:
        asked: all that the findings depend on, as JSON can hold it.
        block: pictures in a block, and in a file of an archive's findings.

    Raises:
        DataError: the folder holds another run, or none and findings; or an argument names nothing.
    """
    named = [os.fspath(argument) for argument in arguments]
    asked = json.loads(json.dumps({**asked, "pictures": named, "block": block}))
    if (out / PLAN).exists():
        plan = Plan(out)
        if plan.asked != asked:
            other = next(name for name in {**asked, **plan.asked} if asked.get(name) != plan.asked.get(name))
            raise DataError(f"{printable(str(out))}: holds a run of another {other}. Name another folder.")
        return plan
    out.mkdir(parents=True, exist_ok=True)
    if any(out.glob("part-*")):
        raise DataError(f"{printable(str(out))}: holds findings of something else. Name another folder.")
    _write(out / PLAN, _blocks(places_at(named), block), _SCHEMA.with_metadata({"asked": json.dumps(asked)}))
    return Plan(out)


def _write(file: Path, blocks: Iterable[list[dict[str, Any]]], schema: pa.Schema) -> None:
    part = file.with_name(f"{file.name}.part")
    with pa.ipc.new_file(str(part), schema) as writer:
        for block in blocks:
            writer.write_batch(pa.RecordBatch.from_pylist(block, schema=schema))
    part.replace(file)


def _blocks(places: Iterator[Place], size: int) -> Iterator[list[dict[str, Any]]]:
    """The rows of each block: some pictures that lie by themselves, or one archive."""
    pictures: list[dict[str, Any]] = []
    for place in places:
        if isinstance(place, Archive):
            yield from filter(None, [pictures])
            yield [_row(place)]
            pictures = []
            continue
        pictures.append(_row(place))
        if len(pictures) == size:
            yield pictures
            pictures = []
    yield from filter(None, [pictures])


def _row(place: Place) -> dict[str, Any]:
    if isinstance(place, RefusedFile):
        return {"archive": False, "name": place.path, "reason": place.reason, "mend": place.mend}
    path = str(place.path.absolute()) if place.path else None
    return {"archive": isinstance(place, Archive), "name": place.name, "path": path, "url": place.url}


def _found(row: Mapping[str, Any]) -> Found:
    if row["reason"] is not None:
        return RefusedFile(row["name"], row["reason"], row["mend"])
    return _placed(Given, row)


def _placed(kind: Callable[..., _T], row: Mapping[str, Any]) -> _T:
    return kind(row["name"], path=Path(row["path"]) if row["path"] else None, url=row["url"])


def _pieces(items: Iterator[_T], size: int) -> Iterator[Iterator[_T]]:
    """Runs of `size`, each to be used up before the next."""
    for first in items:
        yield chain([first], islice(items, size - 1))

"""The index: every file opened once, measured, hashed, in order, and none that stops the others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bad_files import BYTES, HONEST, ON_DISK, saved
from dermalert.drawn import draw_lesion, draw_many
from dermalert.errors import DataError, RefusedFile
from dermalert.intake import index as index_module
from dermalert.intake.decode import Limits, load
from dermalert.intake.fingerprint import difference_hash
from dermalert.intake.index import EXAMINED, Index, index
from dermalert.intake.manifest import SCHEMA, Manifest
from dermalert.intake.sources import list_data
from dermalert.intake.statistics import STATISTICS


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good, unusual and bad files in two class folders."""
    root = tmp_path_factory.mktemp("mixed")
    draw_many(root / "Train" / "nevus", count=5, size=(90, 60))
    draw_many(root / "Test" / "melanoma", count=2, size=(60, 90), seed=1)
    for folder, contents in (
        ("Train/melanoma", {name: make for name, (make, _) in BYTES.items()}),
        ("Train/nevus", HONEST),
    ):
        (root / folder).mkdir(exist_ok=True)
        for name, content in contents.items():
            (root / folder / f"{name}.jpg").write_bytes(content())
    for name, (put, _) in ON_DISK.items():
        put(root / "Train" / "melanoma" / name)
    return root


@pytest.fixture(scope="module")
def indexed(mixed: Path) -> Index:
    return index(list_data(mixed), workers=2)


def test_every_file_is_a_row_or_refused_and_none_is_both(mixed: Path, indexed: Index) -> None:
    rows = [str(path) for path in indexed.manifest.paths()]
    refused = [one.path for one in indexed.refused]
    files = [str(path) for path in mixed.rglob("*") if path.suffix]
    assert sorted([*rows, *refused]) == sorted(files)
    assert len(set(rows) | set(refused)) == len(files)


def test_what_is_refused_is_what_cannot_be_decoded_each_with_its_reason_and_mend(indexed: Index) -> None:
    for refusal in indexed.refused:
        with pytest.raises(RefusedFile) as caught:
            load(refusal.path)
        assert (caught.value.code, caught.value.reason) == (refusal.code, refusal.reason)
        assert refusal.mend
    for path in indexed.manifest.paths():
        load(path)


def test_rows_hold_what_file_and_folder_say(mixed: Path, indexed: Index) -> None:
    manifest = indexed.manifest
    assert manifest.table.schema.names == SCHEMA.names
    assert manifest.root == mixed.resolve()
    assert manifest.column("image_id") == manifest.column("path")
    assert len(set(manifest.column("path"))) == len(manifest)
    assert set(manifest.column("source")) == {mixed.name}
    for row, path in enumerate(manifest.paths()):
        content = path.read_bytes()
        told = {name: manifest.column(name)[row] for name in ("sha256", "bytes", "width", "height", "format")}
        picture = load(path)
        assert told == {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "width": picture.info.width,
            "height": picture.info.height,
            "format": picture.info.format,
        }
        part, word = path.parts[-3:-1]
        given = (
            manifest.column("given_split")[row],
            manifest.column("given_label")[row],
            manifest.column("diagnosis")[row],
        )
        assert given == (part.lower(), word, word)


def test_what_only_an_audit_or_a_split_can_know_is_left_open(indexed: Index) -> None:
    for name in ("duplicate_group", "group", "split", "resolution", "reason"):
        assert set(indexed.manifest.column(name)) == {None}


def test_hashes_are_of_the_upright_picture_at_the_size_at_which_all_are_examined(indexed: Index) -> None:
    for path, dhash in zip(indexed.manifest.paths(), indexed.manifest.column("dhash"), strict=True):
        assert dhash == difference_hash(load(path, size=EXAMINED).pixels)


def test_statistics_are_finite_with_the_size_of_the_file_itself(indexed: Index) -> None:
    statistics = indexed.statistics
    assert statistics.shape == (len(indexed.manifest), len(STATISTICS))
    assert statistics.dtype == np.float32
    assert np.isfinite(statistics).all()
    width, height, aspect = (statistics[:, STATISTICS.index(name)] for name in ("width", "height", "aspect"))
    assert width.tolist() == indexed.manifest.column("width")
    assert height.tolist() == indexed.manifest.column("height")
    assert np.allclose(aspect, width / height)


def test_a_turned_photograph_counts_as_it_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(saved("JPEG", exif=exif))
    manifest = index(list_data(tmp_path)).manifest
    assert (manifest.column("width"), manifest.column("height")) == ([40], [60])


def test_the_index_is_the_same_whatever_the_number_of_workers(mixed: Path, indexed: Index) -> None:
    alone = index(list_data(mixed), workers=1)
    assert alone.manifest.table.equals(indexed.manifest.table)
    assert np.array_equal(alone.statistics, indexed.statistics)
    assert [one.path for one in alone.refused] == [one.path for one in indexed.refused]


def test_more_rows_than_one_batch_are_kept_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_many(tmp_path, count=1, size=(20, 16))
    listing = list_data(tmp_path)
    one = index_module._examine(listing, listing.items[0], [EXAMINED], Limits())
    assert not isinstance(one, RefusedFile)
    columns = index_module._Columns()
    for number in range(4096 * 2 + 5):
        columns.add(replace(one, row={**one.row, "image_id": str(number)}))
    table, stacked, _ = columns.finish()
    assert table.column("image_id").to_pylist() == [str(number) for number in range(4096 * 2 + 5)]
    assert len(stacked) == table.num_rows
    assert Manifest(tmp_path, table).column("path")[0] == "DRAWN_000000.jpg"


def test_a_manifest_of_an_index_can_be_written_and_read_back(indexed: Index, tmp_path: Path) -> None:
    indexed.manifest.write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").table.equals(indexed.manifest.table)


def test_a_set_of_broken_files_only_is_an_error_that_names_the_first(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"none of its 2 files is a usable picture. First: .*a\.jpg: it is empty"):
        index(list_data(tmp_path))


def test_limits_hold(tmp_path: Path) -> None:
    draw_many(tmp_path, count=2, size=(60, 40))
    Image.fromarray(draw_lesion("nevus", np.random.default_rng(0), width=20, height=16)).save(tmp_path / "small.png")
    found = index(list_data(tmp_path), limits=Limits(max_pixels=1000))
    assert found.manifest.column("path") == ["small.png"]
    assert {one.code for one in found.refused} == {"too_large"}


def test_the_folder_itself_may_have_any_name(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"set \xff\n")
    try:
        draw_many(root / "nevus", count=2, size=(20, 16))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    found = index(list_data(root))
    assert set(found.manifest.column("source")) == {"set \\udcff\n"}
    found.manifest.write(tmp_path / "m.parquet")
    assert [path.is_file() for path in Manifest.read(tmp_path / "m.parquet").paths()] == [True, True]


def test_one_picture_whose_name_is_not_utf8_is_a_clear_error(tmp_path: Path) -> None:
    picture = tmp_path / os.fsdecode(b"b\xff.jpg")
    try:
        picture.write_bytes(saved("JPEG"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DataError, match="not valid UTF-8"):
        index(list_data(picture))


def test_a_bar_is_shown_every_result_and_their_number(mixed: Path) -> None:
    seen: list[Any] = []

    def progress(results: Iterable[Any], total: int) -> Iterator[Any]:
        for result in results:
            seen.append(total)
            yield result

    listing = list_data(mixed)
    index(listing, progress=progress)
    assert seen == [len(listing.items)] * len(listing.items)

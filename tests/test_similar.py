"""Similar cases: exactly the nearest by the model's features, each embedded once, and never the picture itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from dermalert.cli import main
from dermalert.errors import BundleError, DataError
from dermalert.intake.index import index
from dermalert.intake.sources import list_data
from dermalert.score import similar as similar_module
from dermalert.score.engine import Engine
from dermalert.score.similar import Embedder, Index, embed, model_hash, nearest
from graphs import bundle, graph, paint
from pooled import CELL, DARK, SIZE, pooled_bundle
from reading import read

COLOURS = {
    "melanoma/red.png": (220, 40, 40),
    "melanoma/darkred.png": (120, 20, 20),
    "nevus/green.png": (40, 220, 40),
    "nevus/orange.png": (220, 120, 40),
    "vascular lesion/blue.png": (40, 40, 220),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pooled_bundle().save(tmp_path / "bundle")
    for name, colour in COLOURS.items():
        paint(tmp_path / "archive" / name, colour)
    paint(tmp_path / "new.png", (200, 40, 40))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    try:
        main(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    return 0


def asked(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert run("similar", *arguments, "--bundle", "bundle", "--index", "index", "--json") == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def vectors(count: int, length: int = 6, seed: int = 0) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).normal(size=(count, length)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def names(count: int, start: int = 0) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in range(start, start + count)]


# The search


def test_the_search_over_blocks_finds_what_a_full_sort_finds() -> None:
    rows, hashes = vectors(500), names(500)
    query = vectors(1, seed=9)[0]
    blocks = [(hashes[start : start + 70], rows[start : start + 70]) for start in range(0, 500, 70)]
    among = set(hashes[::2])
    found = nearest(query, blocks, among=among, k=7)
    expected = sorted(range(0, 500, 2), key=lambda i: -float(rows[i] @ query))[:7]
    assert [one.sha256 for one in found] == [hashes[i] for i in expected]
    assert [one.similarity for one in found] == pytest.approx([float(rows[i] @ query) for i in expected], abs=1e-6)


def test_equals_come_in_one_order_and_a_row_that_stands_twice_comes_once() -> None:
    rows, hashes = np.repeat(vectors(1), 4, axis=0), names(4)
    found = nearest(rows[0], [(hashes[2:], rows[2:]), (hashes, rows)], among=set(hashes), k=9)
    assert [one.sha256 for one in found] == sorted(hashes)


# The index


def test_embeddings_have_length_1() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE[1], SIZE[0], 3)).astype(np.uint8)
    found = embed(Engine(pooled_bundle()), pixels)
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    cells = pixels.reshape(3, SIZE[1] // CELL, CELL, SIZE[0] // CELL, CELL, 3).mean(axis=(2, 4))
    expected = np.maximum(cells - DARK, 0).mean(axis=(1, 2))
    assert np.allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-4)


def test_a_model_without_an_embedding_is_refused_with_one_that_has_it() -> None:
    pixels = np.zeros((1, 16, 20, 3), np.uint8)
    with pytest.raises(BundleError, match=r"gives no embedding .* mobilenetv2"):
        embed(Engine(bundle(model=graph(outputs=("logits",)))), pixels)


def test_an_index_keeps_what_was_added_and_each_model_has_its_own(tmp_path: Path) -> None:
    model, other = pooled_bundle(), pooled_bundle(np.ones((3, 3), np.float32))
    index = Index(tmp_path, model)
    index.add(names(5), vectors(5))
    index.add(names(3, 5), vectors(3, seed=1))
    again = Index(tmp_path, model)
    assert again.known == set(names(8))
    held = {one: row for hashes, rows in again.blocks() for one, row in zip(hashes, rows, strict=True)}
    assert np.allclose(held[names(8)[6]], vectors(3, seed=1)[1], atol=1e-3)
    assert not Index(tmp_path, other).known
    assert model_hash(model) != model_hash(other)


def test_an_interruption_loses_no_finished_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(pooled_bundle())
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE[1], SIZE[0], 3)).astype(np.uint8)
    monkeypatch.setattr(similar_module, "BLOCK", 3)

    def interrupted() -> None:
        with Embedder(engine, Index(tmp_path, engine.bundle)) as embedder:
            embedder.add(names(3), pixels)
            embedder.add(names(2, 3), pixels[:2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    index = Index(tmp_path, engine.bundle)
    assert index.known == set(names(5))
    assert sorted(len(hashes) for hashes, _ in index.blocks()) == [2, 3]


def some(rows: list[bytes], values: NDArray[np.float16], length: int) -> pa.Table:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float16()), length)
    return pa.table({"sha256": pa.array(rows, pa.binary(32)), "embedding": lists})


@pytest.mark.parametrize(
    "content",
    [
        b"PAR1 and no more",
        b"\x80\x04}q\0.",
        pa.table({"a": [1]}),
        some(names(2), np.full((2, 4), np.nan, np.float16), 4),
        some(names(2), np.ones((2, 3), np.float16), 3),
        pa.table(
            {"sha256": pa.array(names(1), pa.binary(32)), "embedding": pa.array([[1.0, 2.0]], pa.list_(pa.float64()))}
        ),
    ],
    ids=["cut off", "pickle", "other columns", "no numbers", "another length", "another type"],
)
def test_a_file_in_the_index_that_is_none_is_refused_by_name_with_the_mend(
    tmp_path: Path, content: bytes | pa.Table
) -> None:
    model = pooled_bundle()
    index = Index(tmp_path, model)
    index.add(names(4), vectors(4, length=4))
    (folder,) = tmp_path.iterdir()
    if isinstance(content, bytes):
        (folder / "x.parquet").write_bytes(content)
    else:
        pq.write_table(content, folder / "x.parquet")
    with pytest.raises(DataError, match=r"\.parquet: no part of an index \(.*\)\. Delete it\."):
        Index(tmp_path, model)


# The command


def test_the_nearest_come_first_with_the_label_of_their_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked("new.png", "--among", "archive", "--k", "3", capsys=capsys)
    cases = found["cases"]
    assert isinstance(cases, list)
    assert found["searched"] == 5
    assert [Path(case["paths"][0]).name for case in cases][2] == "orange.png"
    assert {Path(case["paths"][0]).name for case in cases[:2]} == {"red.png", "darkred.png"}
    assert [case["labels"] for case in cases] == [["melanoma"], ["melanoma"], ["nevus"]]
    assert all(-1 <= case["similarity"] <= 1.001 for case in cases)


def test_the_picture_itself_is_left_out_wherever_it_lies(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = home / "archive" / "nevus" / "copy of new.png"
    copy.write_bytes((home / "new.png").read_bytes())
    for picture in ("new.png", "archive/nevus/copy of new.png"):
        found = asked(picture, "--among", "archive", "--k", "9", capsys=capsys)
        cases = found["cases"]
        assert isinstance(cases, list)
        assert len(cases) == 5
        assert not any("new.png" in path for case in cases for path in case["paths"])


def test_a_file_that_stands_under_two_labels_comes_once_with_both(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "archive" / "nevus" / "again.png").write_bytes((home / "archive" / "melanoma" / "red.png").read_bytes())
    found = asked("new.png", "--among", "archive", "--k", "9", capsys=capsys)
    cases = found["cases"]
    assert isinstance(cases, list)
    assert len(cases) == 5
    (twice,) = [case for case in cases if len(case["paths"]) == 2]
    assert twice["labels"] == ["melanoma", "nevus"]


def test_each_picture_goes_through_the_model_once(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[int] = []
    real = similar_module.embed

    def counting(engine: Engine, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        embedded.append(len(pixels))
        return real(engine, pixels)

    monkeypatch.setattr(similar_module, "embed", counting)
    first = asked("new.png", "--among", "archive", capsys=capsys)
    assert sum(embedded) == 5
    paint(home / "archive" / "nevus" / "more.png", (60, 200, 60))
    (home / "archive" / "melanoma" / "red.png").rename(home / "archive" / "melanoma" / "renamed.png")
    second = asked("new.png", "--among", "archive", "--k", "6", capsys=capsys)
    assert sum(embedded) == 6  # the new one alone
    assert (first["searched"], second["searched"]) == (5, 6)
    asked("new.png", "--among", "archive/nevus", capsys=capsys)
    assert sum(embedded) == 6


def test_only_pictures_of_the_collection_come_though_the_index_knows_others(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked("new.png", "--among", "archive", capsys=capsys)
    found = asked("new.png", "--among", "archive/nevus", "--k", "9", capsys=capsys)
    cases = found["cases"]
    assert isinstance(cases, list)
    assert {Path(case["paths"][0]).name for case in cases} == {"green.png", "orange.png"}


def test_a_manifest_gives_its_pictures_and_diagnoses(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index(list_data(home / "archive")).manifest.write(home / "manifest.parquet")
    found = asked("new.png", "--among", "manifest.parquet", "--k", "1", capsys=capsys)
    (case,) = found["cases"]  # type: ignore[misc]
    assert case["labels"] == ["melanoma"]


def test_the_page_is_whole_and_shows_each_case_with_its_label(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--among", "archive", "--bundle", "bundle", "--index", "index", "--k", "3", "--out", "page.html")
    assert run("similar", "new.png", *arguments) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 4
    assert "melanoma" in told[0]
    assert told[-1] == "Read page.html"
    reading = read((home / "page.html").read_text(encoding="utf-8"))
    assert reading.problems == []
    assert "no diagnosis" in reading.text
    assert "red.png" in reading.text
    assert (home / "page.html").read_text(encoding="utf-8").count('alt="Similar case') == 3


def test_a_file_that_cannot_be_used_is_told_and_counted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "archive" / "nevus" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    assert run("similar", "new.png", "--among", "archive", "--bundle", "bundle", "--index", "index", "--json") == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["searched"], found["refused"]) == (5, 1)
    assert "broken.jpg" in told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("none.png --among archive", "none.png: "),
        ("new.png --among none", "none: there is no such file or folder"),
        ("new.png --among none.parquet", "none.parquet: there is no such manifest"),
        ("new.png --among new.png", "new.png: no picture there to compare with"),
        ("new.png --among bundle", "bundle: no pictures below it"),
        ("new.png --among archive --out new.png", "new.png: is named like a picture"),
        ("new.png --among archive --bundle plain", "gives no embedding"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_clear_line(
    home: Path, arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle(model=graph(outputs=("logits",))).save(home / "plain")
    words = arguments.split() + ([] if "--bundle" in arguments else ["--bundle", "bundle"])
    assert run("similar", *words, "--index", "index") == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert message in told.err.splitlines()[-1]


def test_features_are_kept_in_the_users_cache_where_nobody_says_where(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    assert run("similar", "new.png", "--among", "archive", "--bundle", "bundle") == 0
    assert len(list((home / "cache" / "dermalert" / "embeddings").rglob("*.parquet"))) == 1
    held = b"".join(file.read_bytes() for file in (home / "cache").rglob("*.parquet"))
    assert b"melanoma" not in held  # neither names nor labels are kept there
    assert b"red.png" not in held

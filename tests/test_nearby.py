"""Near-duplicates on Ray: the pairs of one search, whatever the shards and parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dermalert.errors import DataError
from dermalert.intake.manifest import SCHEMA, Manifest
from dermalert.intake.neighbours import near_pairs
from dermalert.score.cluster import Cluster, connected
from dermalert.stages.nearby import Shards, run_nearby

ROWS, SHARDS, RADIUS = 900, 3, 4


@pytest.fixture(scope="module")
def hashes() -> np.ndarray:
    chance = np.random.default_rng(3)
    bits = chance.random((ROWS // 3, 256))[chance.integers(0, ROWS // 3, ROWS)] < 0.5
    for row in bits:
        row[chance.integers(0, 256, chance.integers(0, RADIUS))] ^= True
    bits[5] = bits[700]  # one hash in two shards
    return np.packbits(bits, axis=1).view(np.uint64)


@pytest.fixture(scope="module")
def manifests(hashes: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    files = []
    for shard, part in enumerate(np.array_split(hashes, SHARDS)):
        rows = [
            {"image_id": f"{n}", "path": f"{n}.jpg", "source": "drawn", "dhash": one.tobytes()}
            for n, one in enumerate(part)
        ]
        files.append(folder / f"{shard}.parquet")
        Manifest(folder, pa.Table.from_pylist(rows, schema=SCHEMA)).write(files[-1])
    return files


@pytest.mark.slow
def test_shards_searched_on_ray_give_the_pairs_of_one_search_and_a_cut_off_run_goes_on(
    hashes: np.ndarray, manifests: list[Path], tmp_path: Path
) -> None:
    out, cluster = tmp_path / "pairs", Cluster(workers=2)
    expected = near_pairs(hashes, radius=RADIUS)
    start = Shards.of(manifests).start

    def search() -> int:
        return run_nearby(manifests, out, radius=RADIUS, cluster=cluster, rows_a_part=500)

    with connected(cluster):
        found = search()
        table = pq.read_table(out).to_pydict()
        first, second = (
            (start[table[f"{name}_shard"]] + np.array(table[f"{name}_row"])).tolist() for name in ("first", "second")
        )
        assert sorted(zip(first, second, table["distance"], strict=True)) == sorted(
            zip(expected.first.tolist(), expected.second.tolist(), expected.distance.tolist(), strict=True)
        )
        assert found == len(expected) > 300
        before = {file: file.stat().st_mtime_ns for file in out.glob("*.parquet")}
        assert len(before) % 2 == 0  # two parts a band
        lost = sorted(before)[3]
        lost.unlink()
        assert search() == found
    assert {file for file in before if file.stat().st_mtime_ns != before[file]} == {lost}


def test_no_manifest_is_an_error_that_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.parquet"):
        run_nearby([], tmp_path / "pairs")

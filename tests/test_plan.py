"""The plan of a run on many machines: every picture once, the same blocks whenever it is asked."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalert.errors import ClusterError, DataError, RefusedFile
from dermalert.intake.given import Found, given_at
from dermalert.score.cluster import Cluster, check_room
from dermalert.score.plan import PLAN, Plan, planned
from graphs import paint

ASKED = {"bundle": "0" * 64}


def pack(archive: Path, pictures: list[Path]) -> Path:
    with tarfile.open(archive, "w") as tar:
        for picture in pictures:
            tar.add(picture, f"img/{picture.name}")
    return archive


def named(found: Found) -> str:
    return found.path if isinstance(found, RefusedFile) else found.name


def pictures(plan: Plan) -> list[Found]:
    return [found for number in range(len(plan)) for _, part in plan.parts(number) for found in part]


def names(plan: Plan) -> list[str]:
    return [named(found) for found in pictures(plan)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve pictures, two shards of five and three, in the folder where we are."""
    monkeypatch.chdir(tmp_path)
    pictures = [paint(tmp_path / "new" / f"{i:02d}.png", (20 * i, 40, 40)) for i in range(12)]
    for number, some in enumerate((pictures[:5], pictures[5:8])):
        pack(tmp_path / f"shard-{number}.tar", some)
    return tmp_path


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 30), block=st.integers(1, 12))
def test_every_picture_stands_in_one_block_in_the_order_given(
    tmp_path_factory: pytest.TempPathFactory, count: int, block: int
) -> None:
    folder = tmp_path_factory.mktemp("plan")
    for i in range(count):
        (folder / f"{i:03d}.png").touch()
    plan = planned(folder / "out", [folder], ASKED, block=block)
    assert names(plan) == [named(found) for found in given_at([folder])]
    assert len(plan) == -(-count // block)


def test_a_block_is_found_by_its_absolute_path_and_told_by_its_name(home: Path) -> None:
    (_, (first, *_)), *_ = planned(home / "out", ["new"], ASKED).parts(0)
    assert not isinstance(first, RefusedFile)
    assert (first.name, first.path) == ("new/00.png", home / "new" / "00.png")


def test_an_archive_is_a_block_whose_files_hold_some_of_its_pictures_each(home: Path) -> None:
    plan = planned(home / "out", ["new/00.png", "shard-*.tar"], ASKED, block=2)
    parts = {file.name: len(list(found)) for number in range(len(plan)) for file, found in plan.parts(number)}
    assert parts == {
        "part-000000.parquet": 1,
        **{f"part-000001-{piece:06d}.parquet": pictures for piece, pictures in enumerate((2, 2, 1))},
        **{f"part-000002-{piece:06d}.parquet": pictures for piece, pictures in enumerate((2, 1))},
    }
    assert names(plan) == [named(found) for found in given_at(["new/00.png", "shard-0.tar", "shard-1.tar"])]
    assert list(parts) == sorted(parts), "read in the order of names, the findings come in the order of the pictures"


def test_what_is_refused_on_the_way_keeps_its_reason(home: Path) -> None:
    (home / "broken.tar").write_bytes(b"no archive" * 100)
    (home / "new" / "old.zip").touch()
    plan = planned(home / "out", ["new", "broken.tar"], ASKED)
    told = [str(found) for found in pictures(plan) if isinstance(found, RefusedFile)]
    assert told == [str(found) for found in given_at(["new", "broken.tar"]) if isinstance(found, RefusedFile)]
    assert len(told) == 2


def test_a_run_that_is_taken_up_goes_by_the_plan_that_is_there(home: Path) -> None:
    before = names(planned(home / "out", ["new"], ASKED, block=5))
    paint(home / "new" / "00-came-since.png", (0, 0, 0))
    plan = planned(home / "out", ["new"], ASKED, block=5)
    assert names(plan) == before
    (home / "out" / "part-000001.parquet").touch()
    assert plan.unfinished() == [0, 2]


@pytest.mark.parametrize(
    ("asked", "pictures", "other"),
    [({"bundle": "1" * 64}, ["new"], "bundle"), (ASKED, ["shard-0.tar"], "pictures")],
)
def test_a_folder_holds_one_run(home: Path, asked: dict[str, str], pictures: list[str], other: str) -> None:
    planned(home / "out", ["new"], ASKED)
    with pytest.raises(DataError, match=f"a run of another {other}. Name another folder"):
        planned(home / "out", pictures, asked)


def test_findings_of_something_else_are_left_alone(home: Path) -> None:
    (home / "out").mkdir()
    (home / "out" / "part-000000.parquet").touch()
    with pytest.raises(DataError, match="findings of something else"):
        planned(home / "out", ["new"], ASKED)


def test_a_machine_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Every machine has to see the output folder by this very path"):
        Plan(tmp_path)
    (tmp_path / PLAN).write_bytes(b"ARROW1" * 9)
    with pytest.raises(DataError, match=PLAN):
        Plan(tmp_path)


def test_a_worker_that_fits_on_no_machine_is_not_waited_for() -> None:
    check_room({"CPU": 2.0}, Cluster(worker_cpus=2))
    with pytest.raises(ClusterError, match="A worker of 4 CPUs does not fit on this machine, which has 2"):
        check_room({"CPU": 2.0}, Cluster(worker_cpus=4))
    with pytest.raises(ClusterError, match="fewer with --worker-gpus"):
        check_room({"CPU": 2.0}, Cluster(worker_gpus=0.5))

"""An interrupted run goes on where it was: every picture once, none twice, and the same bytes at the end."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dermalert.errors import OutputError
from dermalert.score import durable
from dermalert.score.batch import Finding
from dermalert.score.durable import Output
from dermalert.stages.scoring import run_score
from graphs import bundle, paint

PICTURES, BLOCK = 61, 8
OUTS = ["a.csv", "a.jsonl", "a.parquet"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle and pictures of all colours, one of them broken."""
    home = tmp_path_factory.mktemp("home")
    bundle().save(home / "bundle")
    for number in range(PICTURES):
        paint(home / "set" / f"{number:03}.png", (4 * number, 255 - 4 * number, 90))
    (home / "set" / "007.png").write_bytes(b"")
    return home


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "BLOCK", BLOCK)


def score(home: Path, out: Path, **options: object) -> dict[str, int]:
    return run_score([home / "set"], home / "bundle", out, **options)  # type: ignore[arg-type]


def content(out: Path) -> dict[str, bytes]:
    """The bytes of a file, or of each file of a folder."""
    if out.is_file():
        return {"": out.read_bytes()}
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


class Stop(Exception):
    """The run ends here."""


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After so many findings a run stops; empty: it goes to its end."""
    after: list[int] = []
    write, taken = Output.write, 0

    def stopped(output: Output, finding: Finding) -> None:
        nonlocal taken
        if after and taken == after[0]:
            taken = 0
            raise Stop
        taken += len(after)
        write(output, finding)

    monkeypatch.setattr(Output, "write", stopped)
    return after


# Going on


@pytest.mark.parametrize("name", OUTS)
@pytest.mark.parametrize("after", [0, 7, 8, 9, 56, 60])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    home: Path, tmp_path: Path, stopping: list[int], name: str, after: int
) -> None:
    (tmp_path / "whole").mkdir()
    counts = score(home, tmp_path / "whole" / name)
    stopping.append(after)
    with pytest.raises(Stop):
        score(home, tmp_path / name)
    assert not (tmp_path / name).exists()
    stopping.clear()
    assert score(home, tmp_path / name) == counts
    assert content(tmp_path / name) == content(tmp_path / "whole" / name)
    assert sorted(file.name for file in tmp_path.iterdir()) == [name, "whole"]


def test_what_is_done_is_not_scored_again(home: Path, tmp_path: Path, stopping: list[int]) -> None:
    stopping.append(40)
    with pytest.raises(Stop):
        score(home, tmp_path / "a.csv")
    stopping[:] = [PICTURES - 40]  # five blocks of eight are durable: so many are left
    score(home, tmp_path / "a.csv")


def test_a_run_that_was_stopped_before_its_first_block_leaves_nothing(
    home: Path, tmp_path: Path, stopping: list[int]
) -> None:
    stopping.append(BLOCK - 1)
    for name in OUTS:
        with pytest.raises(Stop):
            score(home, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", OUTS)
def test_half_a_block_that_never_counted_is_cut_off(home: Path, tmp_path: Path, stopping: list[int], name: str) -> None:
    score(home, tmp_path / f"whole{name}")
    stopping.append(20)
    with pytest.raises(Stop):
        score(home, tmp_path / name)
    part = tmp_path / f"{name}.part"
    if part.is_dir():
        shutil.copy(part / "part-000000.parquet", part / "part-000002.parquet")
        (part / "part-000003.parquet.tmp").write_bytes(b"half")
    else:
        with part.open("ab") as stream:
            stream.write(b"half a row")
    stopping.clear()
    score(home, tmp_path / name)
    assert content(tmp_path / name) == content(tmp_path / f"whole{name}")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prevalence": 0.1}, "another prevalence"),
        ({"point": "screening"}, "another operating point"),
        ({"form": "jsonl"}, "another format"),
    ],
)
def test_another_run_does_not_go_on_with_it(
    home: Path, tmp_path: Path, stopping: list[int], change: dict[str, object], named: str
) -> None:
    stopping.append(20)
    with pytest.raises(Stop):
        score(home, tmp_path / "a.csv")
    before = content(tmp_path / "a.csv.part")
    stopping.clear()
    with pytest.raises(OutputError, match=f"stopped here after 16 pictures had {named}.*delete a.csv.part"):
        score(home, tmp_path / "a.csv", **change)
    assert content(tmp_path / "a.csv.part") == before


def test_another_model_or_other_pictures_do_not_go_on_with_it(home: Path, tmp_path: Path, stopping: list[int]) -> None:
    stopping.append(20)
    with pytest.raises(Stop):
        score(home, tmp_path / "a.csv")
    stopping.clear()
    bundle(threshold=0.4).save(tmp_path / "other")
    with pytest.raises(OutputError, match="another model"):
        run_score([home / "set"], tmp_path / "other", tmp_path / "a.csv")
    for paths in ([home / "set" / "001.png"], sorted((home / "set").iterdir())[1:]):
        with pytest.raises(OutputError, match="16 pictures that are done are not the first ones now"):
            run_score(paths, home / "bundle", tmp_path / "a.csv")


def test_pictures_that_came_since_are_scored_too(home: Path, tmp_path: Path, stopping: list[int]) -> None:
    stopping.append(20)
    with pytest.raises(Stop):
        score(home, tmp_path / "a.csv")
    stopping.clear()
    new = paint(tmp_path / "new.png", (9, 9, 9))
    run_score([home / "set", new], home / "bundle", tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert len(lines) == 1 + PICTURES + 1
    assert lines[-1].startswith(str(new))


def test_a_broken_journal_is_told_and_what_is_written_is_kept(home: Path, tmp_path: Path, stopping: list[int]) -> None:
    stopping.append(20)
    with pytest.raises(Stop):
        score(home, tmp_path / "a.csv")
    stopping.clear()
    before = content(tmp_path / "a.csv.part")
    journal = tmp_path / "a.csv.progress.json"
    whole = journal.read_text()
    for broken in ("", "{", "[]", '{"journal": 9}', whole.replace('"done"', '"undone"')):
        journal.write_text(broken)
        with pytest.raises(OutputError, match=r"a.csv.progress.json: cannot be read"):
            score(home, tmp_path / "a.csv")
        assert content(tmp_path / "a.csv.part") == before


def test_deleting_the_part_begins_anew(home: Path, tmp_path: Path, stopping: list[int]) -> None:
    score(home, tmp_path / "whole.csv")
    stopping.append(20)
    with pytest.raises(Stop):
        score(home, tmp_path / "a.csv")
    stopping.clear()
    (tmp_path / "a.csv.part").unlink()
    score(home, tmp_path / "a.csv", prevalence=None)
    assert content(tmp_path / "a.csv") == content(tmp_path / "whole.csv")


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks on files")
@pytest.mark.parametrize("name", OUTS)
def test_two_runs_do_not_write_one_output(home: Path, tmp_path: Path, name: str) -> None:
    form = {"a.jsonl": "jsonl", "a.parquet": "parquet"}.get(name, "csv")
    with (
        Output(tmp_path / name, form, ("melanoma", "nevus", "vascular lesion"), {}),
        pytest.raises(OutputError, match="another run is writing it"),
    ):
        score(home, tmp_path / name)


# Kill -9, in a process of its own

RUN = f"""
import sys
from dermalert.score import durable
from dermalert.score.batch import Finding
durable.BLOCK = {BLOCK}
from dermalert.cli import main
main(sys.argv[1:])
"""


def command(home: Path, out: Path) -> list[str]:
    return [sys.executable, "-c", RUN, "score", str(home / "set"), "--bundle", str(home / "bundle"), "--out", str(out)]


# On a slow disk, so that most kills come while something is being written.
KILLED = """
import os, signal, sys, threading, time
import dermalert.cli, dermalert.stages.scoring, pyarrow.parquet
pyarrow.table({"x": [1]})  # which loads pandas, where there is one
fsync = os.fsync
os.fsync = lambda handle: (time.sleep(0.005), fsync(handle), time.sleep(0.005))
killer = threading.Timer(float(sys.argv.pop(1)), os.kill, (os.getpid(), signal.SIGKILL))
killer.daemon = True
killer.start()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("name", OUTS)
def test_killed_at_any_moment_again_and_again_it_ends_with_the_bytes_of_an_unbroken_run(
    home: Path, tmp_path: Path, name: str
) -> None:
    score(home, tmp_path / f"whole{name}")
    chance, out, killed = random.Random(name), tmp_path / name, 0
    for _ in range(4):
        python, option, code, *arguments = command(home, out)
        seconds = str(chance.uniform(0.05, 0.2))
        ran = subprocess.run([python, option, KILLED + code, seconds, *arguments], capture_output=True, timeout=60)
        killed += ran.returncode == -signal.SIGKILL
        if ran.returncode == 0:
            break
    else:
        score(home, out)
    assert killed >= 1
    assert content(out) == content(tmp_path / f"whole{name}")
    assert sorted(file.name for file in tmp_path.iterdir()) == [name, f"whole{name}"]


# Full disks


@pytest.mark.parametrize("name", OUTS)
def test_on_a_full_disk_it_stops_with_one_line_and_the_same_command_goes_on(
    home: Path, tmp_path: Path, name: str
) -> None:
    score(home, tmp_path / f"whole{name}")
    whole = content(tmp_path / f"whole{name}")
    largest = 3 * max(map(len, whole.values())) // 4 if len(whole) == 1 else min(map(len, whole.values())) - 1
    limited = command(home, tmp_path / name)
    limited[2] = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, -1))\n" + RUN
    ran = subprocess.run(limited, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    last = ran.stderr.splitlines()[-1]
    assert last.startswith(f"dermalert: {tmp_path / name}: cannot be written (File too large). Mend that")
    if len(whole) == 1:
        assert "it goes on after " in last
    assert not (tmp_path / name).exists()
    assert subprocess.run(command(home, tmp_path / name), capture_output=True, timeout=60).returncode == 0
    assert content(tmp_path / name) == whole


def test_a_disk_that_cannot_be_written_at_all_is_told_before_anything_is_scored(
    home: Path, tmp_path: Path, stopping: list[int]
) -> None:
    stopping.append(0)
    with pytest.raises(OutputError, match=r"none/a\.csv: cannot be written"):
        score(home, tmp_path / "none" / "a.csv")


# The names


def test_a_folder_of_findings_replaces_one_of_findings_and_nothing_else(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    score(home, out)
    run_score([home / "set" / "000.png"], home / "bundle", out)
    assert pq.read_table(out).num_rows == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something else than findings"):
        score(home, out)
    assert (out / "notes.txt").read_text() == "mine"


def test_the_journal_names_no_picture(home: Path, tmp_path: Path, stopping: list[int]) -> None:
    stopping.append(20)
    with pytest.raises(Stop):
        score(home, tmp_path / "a.csv")
    plain = json.loads((tmp_path / "a.csv.progress.json").read_text())
    assert (plain["done"], plain["counts"]["error"]) == (16, 1)
    assert str(home) not in json.dumps(plain)
    assert plain["position"] == (tmp_path / "a.csv.part").stat().st_size
    assert len(plain["names"]) == len(hashlib.sha256().hexdigest())

"""Scaling: pictures a second of `dermalert score` by cores and by Ray's workers, and a model of what lies beyond.

Comes in: nothing: it draws the pictures and takes the model that ships. Goes out, as a section of docs/scaling.md: what
a picture costs one core, step by step; what was measured with one core, all cores, and 1 to 4 workers of Ray; and what
the constants make of more cores, up to 10 million pictures a day. Every run is a process of its own.

    python benchmarks/scaling.py --pictures 2000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from section import DOCS, measured_on, table, write_section

SIZE = (1024, 768)
DISTINCT = 64  # drawn pictures; the others are links to them
BLOCKS = 32  # so that few pictures make enough for four workers
PLANNED = 512  # `score.plan.BLOCK`
WORKERS = (1, 2, 3, 4)
CORES = (2, 8, 64, 256, 1024)
A_DAY = 10_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument(
        "--quick", action="store_true", help="the constants alone, and nothing written: does it still run?"
    )
    parser.add_argument("--part", help="used by this program for the processes that it starts")
    parser.add_argument("--home", type=Path)
    asked = parser.parse_args()
    if asked.part:
        name, *numbers = asked.part.split(":")
        print(json.dumps(PARTS[name](asked.home, *map(int, numbers))))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        draw(home, DISTINCT if asked.quick else asked.pictures)
        if asked.quick:
            print(part(home, "constants"))
            return
        write_section("scaling", report(home, asked.pictures), page=DOCS / "scaling.md")


def draw(home: Path, count: int) -> None:
    from dermalert.drawn import draw_many

    drawn = draw_many(home / "drawn", count=DISTINCT, size=SIZE)
    (home / "pictures").mkdir()
    for number in range(count):
        os.link(drawn[number % DISTINCT], home / "pictures" / f"{number:07d}.jpg")


def part(home: Path, name: str, *numbers: int) -> dict[str, float]:
    """One of `PARTS`, in a process of its own."""
    command = [sys.executable, __file__, "--home", str(home), "--part", ":".join([name, *map(str, numbers)])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}{numbers} failed:\n{done.stderr[-3000:]}")
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


# What is measured, each in a process of its own


def constants(home: Path) -> dict[str, float]:
    """Milliseconds of one core that each step takes a picture."""
    from dermalert.bundle.format import Bundle
    from dermalert.intake.decode import decode, read_bytes
    from dermalert.score.batch import BATCH, Judge, findings_of
    from dermalert.score.cluster import write_part
    from dermalert.score.engine import Engine

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    bundle = Bundle.shipped()
    files = sorted((home / "drawn").iterdir())
    data = [read_bytes(file) for file in files]
    loaded = [(str(file), decode(each, path=file, size=bundle.size)) for file, each in zip(files, data, strict=True)]
    score = partial(findings_of, Engine(bundle, threads=1), Judge(bundle, bundle.operating_point))
    found = [one for at in range(0, len(loaded), BATCH) for one in score(loaded[at : at + BATCH])]
    steps: dict[str, Callable[[], Any]] = {
        "read": lambda: [read_bytes(file) for file in files],
        "decode": lambda: [decode(each, path=file, size=bundle.size) for file, each in zip(files, data, strict=True)],
        "infer": lambda: [score(loaded[at : at + BATCH]) for at in range(0, len(loaded), BATCH)],
        "write": lambda: write_part(found * 8, bundle.classes, home / "part.parquet"),
    }
    rows = {"read": 1, "decode": 1, "infer": 1, "write": 8}
    taken = {name: milliseconds(step) / len(files) / rows[name] for name, step in steps.items()}
    return {**taken, "kilobytes": sum(map(len, data)) / len(data) / 1000, "findings_bytes": size_of(home, found)}


def size_of(home: Path, found: list[Any]) -> float:
    return (home / "part.parquet").stat().st_size / (8 * len(found))


def milliseconds(step: Callable[[], Any]) -> float:
    """Processor time, the median of five: other work on the machine disturbs it little."""
    times = []
    for _ in range(6):
        start = time.process_time()
        step()
        times.append(1000 * (time.process_time() - start))
    return median(times[1:])


def local(home: Path, cores: int) -> dict[str, float]:
    """`--engine local` on so many cores."""
    from dermalert.bundle.format import Bundle
    from dermalert.intake.given import given_at
    from dermalert.score.batch import score

    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    found = score(given_at([home / "pictures"]), Bundle.shipped())
    next(found)
    start = time.perf_counter()
    count = sum(1 for _ in found)
    return {"per_second": count / (time.perf_counter() - start)}


def on_ray(home: Path, workers: int) -> dict[str, float]:
    """`--engine ray` on this machine; the speed is that between the first block and the last."""
    import psutil

    from dermalert.bundle.format import Bundle
    from dermalert.score.batch import Judge
    from dermalert.score.cluster import Cluster, score_on_cluster
    from dermalert.score.plan import planned

    bundle = Bundle.shipped()
    block = max(1, sum(1 for _ in (home / "pictures").iterdir()) // BLOCKS)
    plan = planned(home / f"out-{workers}", [home / "pictures"], {}, block=block)
    begun, times, memory = time.perf_counter(), [], 0.0
    for done in score_on_cluster(plan, Judge(bundle, bundle.operating_point), Cluster(workers=workers)):
        times.append((time.perf_counter(), done.pictures))
        started = psutil.Process().children(recursive=True)
        actors = [each.memory_info().rss for each in started if "MapWorker" in each.name()]
        memory = max(memory, max(actors, default=0) / 1e6)
    span = times[-1][0] - times[0][0]
    speed = sum(pictures for _, pictures in times[1:]) / span
    return {"per_second": speed, "start": times[0][0] - begun, "worker_megabytes": memory}


def blocks(home: Path, count: int) -> dict[str, float]:
    """Ray's own cost of a block: of pictures that are missing, one a block, so that there is nothing else to do."""
    from dermalert.bundle.format import Bundle
    from dermalert.score.batch import Judge
    from dermalert.score.cluster import Cluster, score_on_cluster
    from dermalert.score.plan import planned

    (home / "empty").mkdir()
    for number in range(count):
        (home / "empty" / f"{number}.jpg").touch()
    plan, bundle = planned(home / "out-empty", [home / "empty"], {}, block=1), Bundle.shipped()
    times = [
        time.perf_counter() for _ in score_on_cluster(plan, Judge(bundle, bundle.operating_point), Cluster(workers=1))
    ]
    return {"milliseconds": 1000 * (times[-1] - times[0]) / (count - 1)}


def listing(home: Path, count: int) -> dict[str, float]:
    """The plan of so many names in one folder."""
    from dermalert.score.plan import PLAN, planned

    (home / "many").mkdir()
    for number in range(count):
        (home / "many" / f"{number:07d}.jpg").touch()
    start = time.perf_counter()
    planned(home / "out-many", [home / "many"], {})
    per_second = count / (time.perf_counter() - start)
    return {"per_second": per_second, "bytes": (home / "out-many" / PLAN).stat().st_size / count}


PARTS = {"constants": constants, "local": local, "ray": on_ray, "blocks": blocks, "listing": listing}


# What is told

MEASURED = ("engine", "pictures/s", "to the first block", "memory of a worker")
STEPS = ("read", "decode", "infer", "write")


def report(home: Path, count: int) -> str:
    cores = len(os.sched_getaffinity(0))
    cost, names = part(home, "constants"), part(home, "listing", 25 * count)
    by_cores = {each: part(home, "local", each)["per_second"] for each in sorted({1, cores})}
    by_workers = {each: part(home, "ray", each) for each in WORKERS}
    block_ms = part(home, "blocks", max(2, count // 10))["milliseconds"]
    ideal = 1000 / sum(cost[step] for step in STEPS)
    efficiency = by_workers[min(cores, max(WORKERS))]["per_second"] / (ideal * cores)
    measured = f"""
{COST.format(count=count, machine=measured_on("ray", "onnxruntime", "pillow"), size=SIZE, **cost)}

{table(["step, of one core", "ms a picture"], [(step, f"{cost[step]:.2f}") for step in STEPS])}

## Measured

{table(MEASURED, [*here(by_cores), *spread(by_workers, cores)])}

{RAYS_OWN.format(block_ms=block_ms, **names)}
"""
    return measured + modelled(ideal * efficiency, efficiency, cost, block_ms, names)


def here(by_cores: dict[int, float]) -> list[tuple[str, ...]]:
    return [(f"local, cores: {cores}", f"{speed:.0f}", "", "") for cores, speed in by_cores.items()]


def spread(by_workers: dict[int, dict[str, float]], cores: int) -> list[tuple[str, ...]]:
    form = "{per_second:.0f}|{start:.0f} s|{worker_megabytes:.0f} MB"
    return [
        (f"ray, workers: {workers}, on {cores} cores", *form.format(**told).split("|"))
        for workers, told in by_workers.items()
    ]


def modelled(
    per_core: float, efficiency: float, cost: dict[str, float], block_ms: float, names: dict[str, float]
) -> str:
    most = 1000 / block_ms * PLANNED
    a_second = A_DAY / 86_400
    rows = []
    for cores in CORES:
        speed = min(cores * per_core, most)
        share = f"{speed * cost['kilobytes'] / 1000:,.0f} MB/s"
        rows.append((f"{cores:,}", f"{speed:,.0f}", duration(A_DAY / speed), share, f"{speed / PLANNED:.1f}"))
    header = ["cores", "pictures/s", "10 million take", "read from the share", "blocks/s handed out"]
    told = BREAKS.format(
        a_second=a_second,
        at_night=3 * a_second,
        cores=a_second / per_core,
        cores_at_night=3 * a_second / per_core,
        listed=duration(A_DAY / names["per_second"]),
        megabytes=a_second * cost["kilobytes"] / 1000,
        findings=A_DAY * cost["findings_bytes"] / 1e9,
        files=A_DAY // PLANNED,
        most=most,
        block_ms=block_ms,
        most_cores=most / per_core,
    )
    return f"{MODEL.format(per_core=per_core, efficiency=efficiency)}\n{table(header, rows)}\n{told}"


def duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


COST = """
## What a picture costs

`python benchmarks/scaling.py --pictures {count}` wrote this section. {machine} Drawn JPEGs of {size[0]} x {size[1]}
and {kilobytes:.0f} kB, in the disk's cache; the model that ships.
"""
RAYS_OWN = """
A worker has a thread that decodes and one that infers, so that one keeps more than one core busy. Ray's own cost of a
block is {block_ms:.0f} ms, its file included. {per_second:,.0f} names a second are planned, at {bytes:.0f} bytes each.
"""
MODEL = """
## Modelled

A core does {per_core:.0f} pictures a second: 1000 ms over the sum of the steps, times {efficiency:.2f}, which is what
as many workers as there are cores here reached of that. More machines do not change it, as pictures are decoded where
they are scored and nothing but numbers of blocks is sent about; that is a model, not a measurement. Two things do not
grow with the cores: one program hands out the blocks, and one lists the names.
"""
BREAKS = """
## What breaks first at 10 million a day

10 million a day are {a_second:.0f} a second: the work of {cores:.1f} cores around the clock, or of
{cores_at_night:.0f} if it has to be done in eight hours. In the order in which things would give way:

1. **The folder.** {listed} to list that many names here, from the cache of a local disk; a share that tells 1,000
   names a second takes almost three hours, during which nothing is scored. Give tar shards by their names: each is
   one name, and its pictures are read by whoever scores them.
2. **The share.** {a_second:.0f} files opened a second, {at_night:.0f} in an eight-hour night, each with two or three
   questions to its server: more than a small one answers. The bytes, {megabytes:.0f} MB/s, are the lesser part.
   Shards again.
3. **Whoever reads the findings.** {findings:.1f} GB and {files:,} files a day are little for a table reader. But if
   one in ten is to be referred, a million pictures a day wait for a dermatologist.
4. **Ray's one program that hands out blocks** does so up to {most:,.0f} pictures a second, which is what
   {most_cores:,.0f} cores do, and more: the {block_ms:.0f} ms of a block are those of one worker, from one block to the
   next. Not at this load.
"""

if __name__ == "__main__":
    main()

"""Copies and faults in a set of pictures: time, memory and what is found, beside CleanVision and imagededup.

    python benchmarks/audit.py                      drawn pictures of 600 x 450 and 1024 x 768
    python benchmarks/audit.py --data ham10000/     real ones, brought to these sizes
    python benchmarks/audit.py --imagededup DIR     with imagededup, which is installed apart (see below)

Comes in: pictures, drawn or given. To each, one copy is planted: recompressed, resized, squashed, cropped by 5 %,
turned, mirrored, brighter or darker. Goes out: for each tool, milliseconds and processor time a picture, peak memory,
the share of the planted copies it finds, and how many other pairs it names; written to docs/performance.md.

Every tool runs as it comes (all cores, its own thresholds), in a process of its own, in turns; imports are not timed.
"Copies" is the search for copies alone, "all checks" each tool's whole look at a set. A copy counts as found where the
tool names the pair, or puts both in one group.

imagededup asks for PyTorch, of which its hashes use nothing. `pip install --no-deps --target DIR imagededup` brings
it, and its hashing modules are loaded as they are, without the package's `__init__`, which imports PyTorch.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from dermalert.drawn import draw_lesion
from dermalert.taxonomy import NAMES
from section import measured_on, table, write_section

Change = Callable[[Image.Image], Image.Image]
Named = Iterable[tuple[str, str]]
SIZES = ((600, 450), (1024, 768))
QUALITY = 92


def _cropped(picture: Image.Image) -> Image.Image:
    """5 % of each side, half at either end."""
    x, y = round(picture.width * 0.025), round(picture.height * 0.025)
    return picture.crop((x, y, picture.width - x, picture.height - y))


CHANGES: dict[str, Change] = {
    "recompressed": lambda picture: picture,  # at quality 70
    "resized": lambda picture: picture.resize((picture.width * 3 // 5, picture.height * 3 // 5)),
    "squashed": lambda picture: picture.resize((picture.height, picture.height)),
    "cropped 5 %": _cropped,
    "turned 90°": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "brighter 20 %": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "darker 20 %": lambda picture: ImageEnhance.Brightness(picture).enhance(0.8),
}


def plant(folder: Path, *, count: int, size: tuple[int, int], data: Path | None) -> list[tuple[str, str, str]]:
    """`count` pictures and a copy of each, in two class folders: the copy's kind, the original's name, the copy's."""
    planted = []
    kinds = list(CHANGES)
    for number, original in enumerate(_originals(count, size, data)):
        kind = kinds[number % len(kinds)]
        home = folder / ("nevus", "melanoma")[number // len(kinds) % 2]
        home.mkdir(parents=True, exist_ok=True)
        names = f"{number:06d}.jpg", f"{number:06d}-{kinds.index(kind)}.jpg"
        original.save(home / names[0], quality=QUALITY)
        CHANGES[kind](original).save(home / names[1], quality=70 if kind == "recompressed" else QUALITY)
        planted.append((kind, *names))
    return planted


def _originals(count: int, size: tuple[int, int], data: Path | None) -> Iterable[Image.Image]:
    if data is None:
        for number in range(count):
            pixels = draw_lesion(
                NAMES[number % len(NAMES)], np.random.default_rng(number), width=size[0], height=size[1]
            )
            yield Image.fromarray(pixels)
        return
    files = sorted(data.rglob("*.jpg"))
    for file in files[:: max(1, len(files) // count)][:count]:
        yield Image.open(file).convert("RGB").resize(size, Image.Resampling.LANCZOS)


# The tools. Each imports what it needs, then is timed.


def our_copies() -> Callable[[Path], Named]:
    from dermalert.intake.copies import find_copies

    def find(folder: Path) -> Named:
        found = find_copies(sorted(folder.rglob("*.jpg")))
        for one, other in zip(found.pairs.first.tolist(), found.pairs.second.tolist(), strict=True):
            yield found.paths[one].name, found.paths[other].name

    return find


def our_audit() -> Callable[[Path], Named]:
    from dermalert.stages.auditing import audited

    def find(folder: Path) -> Named:
        report = audited(folder)
        names = [Path(path).name for path in report.manifest.column("path")]
        for pairs in (report.duplicates.near, report.duplicates.suspected):
            for one, other in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
                yield names[one], names[other]

    return find


def clean_vision(issues: dict[str, Any] | None) -> Callable[[Path], Named]:
    from cleanvision import Imagelab

    def find(folder: Path) -> Named:
        lab: Any = Imagelab(data_path=str(folder))
        lab.find_issues(issues, verbose=False)
        for kind in ("near_duplicates", "exact_duplicates"):
            for one in lab.info[kind]["sets"]:
                names = [Path(path).name for path in one]
                yield from ((first, second) for n, first in enumerate(names) for second in names[n + 1 :])

    return find


def image_dedup(home: Path) -> Callable[[Path], Named]:
    sys.path.insert(0, str(home))
    for name in ("imagededup", "imagededup.methods", "imagededup.utils", "imagededup.handlers"):
        package = types.ModuleType(name)  # a package whose `__init__` is not run
        package.__path__ = [str(home.joinpath(*name.split(".")))]
        sys.modules[name] = package
    from imagededup.methods.hashing import PHash  # type: ignore[import-not-found]

    def find(folder: Path) -> Named:
        found = PHash(verbose=False).find_duplicates(image_dir=folder, recursive=True)
        for name, others in found.items():
            yield from ((Path(name).name, Path(other).name) for other in others if name < other)

    return find


def tools(image_dedup_home: Path | None) -> dict[str, Callable[[], Callable[[Path], Named]]]:
    """In pairs of what may be compared: copies, then all checks."""
    known: dict[str, Callable[[], Callable[[Path], Named]]] = {
        "Dermalert, copies": our_copies,
        "CleanVision, copies": lambda: clean_vision({"near_duplicates": {}, "exact_duplicates": {}}),
        "Dermalert, all checks": our_audit,
        "CleanVision, all checks": lambda: clean_vision(None),
    }
    if image_dedup_home is not None:
        home = image_dedup_home
        known["imagededup, copies (PHash)"] = lambda: image_dedup(home)
    return known


def run_one(tool: str, folder: Path, answer: Path, image_dedup_home: Path | None) -> None:
    """In a process of its own: what the tool names, and what it took."""
    find = tools(image_dedup_home)[tool]()
    cpu, start = _cpu_seconds(), time.perf_counter()
    pairs = sorted({(min(pair), max(pair)) for pair in find(folder)})
    figures = {"seconds": time.perf_counter() - start, "cpu": _cpu_seconds() - cpu, "mebibytes": _peak_mebibytes()}
    answer.write_text(json.dumps(figures | {"pairs": pairs}))


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _peak_mebibytes() -> float:
    """Of the process, and of the largest of those it started and waited for."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def measure(names: Sequence[str], folder: Path, rounds: int, extra: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Every tool in turns, so that a busy moment hits all."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            answer = folder.parent / "answer.json"
            command = [sys.executable, __file__, "--tool", name, "--folder", str(folder), "--answer", str(answer)]
            subprocess.run([*command, *extra], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            found[name].append(json.loads(answer.read_text()))
    return found


def rows(
    found: dict[str, list[dict[str, Any]]], planted: Sequence[tuple[str, str, str]]
) -> tuple[list[list[str]], list[list[str]]]:
    """The table of cost and the table of recall."""
    cost, recall = [], []
    count = 2 * len(planted)
    for name, runs in found.items():
        seconds, cpu, memory = (median(run[key] for run in runs) for key in ("seconds", "cpu", "mebibytes"))
        ours = next(key for key in found if key.startswith("Dermalert") and key.split(", ")[1] in name)
        ratio = median(run["seconds"] for run in runs) / median(run["seconds"] for run in found[ours])
        pairs = {tuple(pair) for pair in runs[0]["pairs"]}
        hit = {kind: [(min(pair), max(pair)) in pairs for each, *pair in planted if each == kind] for kind in CHANGES}
        others = len(pairs) - sum(map(sum, hit.values()))
        cost.append(
            [name, f"{seconds / count * 1000:.2f}", f"{cpu / count * 1000:.2f}", f"{memory:.0f}", f"{ratio:.1f}"]
        )
        recall.append([name, *(f"{np.mean(one):.0%}" if one else "–" for one in hit.values()), f"{others:,}"])
    return cost, recall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of JPEGs to plant copies of, instead of drawn ones")
    parser.add_argument("--count", type=int, default=800, help="pictures; a copy of each is planted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--imagededup", type=Path, help="folder that imagededup was installed into")
    parser.add_argument("--quick", action="store_true", help="few small pictures, and nothing is written")
    parser.add_argument("--tool", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.tool:
        run_one(asked.tool, asked.folder, asked.answer, asked.imagededup)
        return
    sizes, count, rounds = (((200, 150),), 8, 1) if asked.quick else (SIZES, asked.count, asked.rounds)
    extra = ["--imagededup", str(asked.imagededup.absolute())] if asked.imagededup else []
    text = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "set"
            planted = plant(folder, count=count, size=size, data=asked.data)
            cost, recall = rows(measure(list(tools(asked.imagededup)), folder, rounds, extra), planted)
        header = ["", "ms a picture", "processor ms", "peak MiB", "times ours"]
        kind = "drawn" if asked.data is None else "real"
        text.append(f"{2 * count:,} {kind} JPEGs of {size[0]} × {size[1]} pixels, half of them copies:")
        text += [table(header, cost), "Of the copies planted, found:", table(["", *CHANGES, "other pairs"], recall)]
    said = "\n\n".join(text)
    print(said)
    if not asked.quick:
        given = "" if asked.data is None else f" --data {asked.data.parent.name}/{asked.data.name}"
        told = f"`python benchmarks/audit.py --count {count}{given}`{' with imagededup' if asked.imagededup else ''}"
        how = f"{told}, medians of {rounds}."
        measured = measured_on("numpy", "pillow", "cleanvision", "imagehash")
        write_section("audit", f"## The audit\n\n{how} {measured}\n\n{said}")


if __name__ == "__main__":
    main()

"""Scoring: pictures a second with Dermalert, with a notebook's code and with its parts alone; and cold starts.

    python benchmarks/score.py              5,000 pictures of each size, some three quarters of an hour
    python benchmarks/score.py --quick      whether it still runs

Comes in: nothing: it draws `DRAWN` pictures of each size and copies them under other names. Goes out, written to
docs/performance.md: for each size the median pictures a second of

    notebook          `load_img`, then `model.predict` of one picture, as tutorials do it (of `NOTEBOOK` pictures only)
    tutorial          `image_dataset_from_directory`, then `model.predict` in batches of 32
    onnxruntime       ONNX Runtime as it comes, batches of 32 of float32 arrays that are in memory already
    onnxruntime cores the same, a thread for each core and batches of 8: the faster of the two is the limit of inference
    decoder           reading, decoding and scaling alone, on all cores
    dermalert         `dermalert score`: files in, the gate, calibrated rows on the disk

and the seconds of a cold start, beside a script that loads the same network with Keras. Every way is a process of its
own, started by this one, in turns, so that a busy moment of the machine hits all; imports and loading are not timed but
for the cold starts. The network is that of the model that ships, MobileNetV2 at 160 px; Keras's has the weights of
another, which changes no time.

A perfect overlap on machines with cores to spare is as fast as the slower of inference and decoder. On cores that both
must share it is 1 / (1/inference + 1/decoder), since either takes all cores when it is alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from section import measured_on, table, write_section

SIZES = ((200, 150), (1024, 768))
DRAWN, NOTEBOOK = 100, 500  # pictures
BATCH = 32  # of the tutorial, and of ONNX Runtime alone
WARM_UP = 64  # pictures, not timed
AIMS = {"notebook": 20.0, "tutorial": 4.0}  # times faster
SHARE = 0.8  # of the slower of inference and decoder
COLD, IMPORT = 1.2, 0.15  # seconds

# https://www.tensorflow.org/tutorials/images/classification, "Predict on new data".
SCRIPT = """
import sys
import keras

model = keras.models.load_model(sys.argv[1])
picture = keras.utils.load_img(sys.argv[2], target_size=(160, 160))
logits = model.predict(keras.utils.img_to_array(picture)[None])
print(keras.ops.softmax(logits[0]))
"""


def prepare(folder: Path, count: int) -> None:
    """Leaves the pictures of each size and the network as Keras saves it in `folder`."""
    from dataclasses import replace

    from dermalert.drawn import draw_many
    from dermalert.learn import networks
    from dermalert.learn.recipes import recipe_named
    from dermalert.taxonomy import NAMES

    for size in SIZES:
        drawn = draw_many(folder / "drawn", count=min(DRAWN, count), size=size)
        (home := folder / _name(size)).mkdir()
        for number in range(count):
            shutil.copy(drawn[number % len(drawn)], home / f"{number:06d}.jpg")
    recipe = replace(recipe_named("transfer"), size=(160, 160), precision="float32")
    networks.build(recipe, len(NAMES)).save(folder / "model.keras")


def _name(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


# Ways to score: each gets ready and returns what is timed, which says how many pictures it did.

Way = Callable[[Path, Path], Callable[[], int]]


def notebook(folder: Path, pictures: Path) -> Callable[[], int]:
    import keras

    model = keras.models.load_model(folder / "model.keras")
    files = sorted(pictures.iterdir())[:NOTEBOOK]

    def one(file: Path) -> Any:
        picture = keras.utils.load_img(file, target_size=(160, 160))
        return model.predict(keras.utils.img_to_array(picture)[None], verbose=0)

    one(files[0])
    return lambda: len([one(file) for file in files])


def tutorial(folder: Path, pictures: Path) -> Callable[[], int]:
    import keras

    model = keras.models.load_model(folder / "model.keras")
    data = keras.utils.image_dataset_from_directory(
        pictures, labels=None, image_size=(160, 160), batch_size=BATCH, shuffle=False, verbose=False
    )
    model.predict(data.take(2), verbose=0)
    return lambda: len(model.predict(data, verbose=0))


def onnxruntime(_: Path, pictures: Path) -> Callable[[], int]:
    return _inference(pictures, threads=None, batch=BATCH)


def onnxruntime_cores(_: Path, pictures: Path) -> Callable[[], int]:
    return _inference(pictures, threads=1, batch=8)


def _inference(pictures: Path, *, threads: int | None, batch: int) -> Callable[[], int]:
    """`threads` of one run; where it is one, as many runs at once as there are cores."""
    import numpy as np
    import onnxruntime

    from dermalert.bundle.format import Bundle
    from dermalert.intake.decode import load
    from dermalert.intake.overlap import cores, in_order

    bundle = Bundle.shipped()
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
    files = sorted(pictures.iterdir())
    some = [load(file, size=bundle.size).pixels for file in files[:WARM_UP]]
    arrays = np.stack(some).astype(np.float32)[: max(batch, len(some) // batch * batch)]
    batches = [arrays[start : start + batch] for start in range(0, len(arrays), batch)]

    def run(number: int) -> int:
        return len(session.run(["logits"], {"pixels": batches[number % len(batches)]})[0])

    def all_of_them(count: int) -> int:
        return sum(in_order(run, range(-(-count // batch)), 1 if threads is None else cores()))

    all_of_them(WARM_UP)
    return lambda: all_of_them(len(files))


def decoder(_: Path, pictures: Path) -> Callable[[], int]:
    from functools import partial

    from dermalert.bundle.format import Bundle
    from dermalert.intake.decode import Limits
    from dermalert.intake.given import given_at
    from dermalert.intake.overlap import in_order
    from dermalert.score.batch import load_found

    read = partial(load_found, size=Bundle.shipped().size, limits=Limits())
    _count(in_order(read, islice(given_at([pictures]), WARM_UP)))
    return lambda: _count(in_order(read, given_at([pictures])))


def _count(items: Iterable[object]) -> int:
    return sum(1 for _ in items)


def dermalert(folder: Path, pictures: Path) -> Callable[[], int]:
    from dermalert.stages.scoring import run_score

    warm = sorted(pictures.iterdir())[:WARM_UP]
    run_score(warm, None, folder / "warm.csv")

    def whole() -> int:
        counts = run_score([pictures], None, folder / "out.csv")
        return counts["scored"] + counts["rejected"]

    return whole


WAYS: dict[str, Way] = {
    "notebook": notebook,
    "tutorial": tutorial,
    "onnxruntime": onnxruntime,
    "onnxruntime cores": onnxruntime_cores,
    "decoder": decoder,
    "dermalert": dermalert,
}


def measure(name: str, folder: Path, pictures: Path) -> dict[str, float]:
    """Pictures a second of one way, in this process, and the process's peak memory in MiB."""
    ready = WAYS[name](folder, pictures)
    start = time.perf_counter()
    count = ready()
    taken = time.perf_counter() - start
    scale = 1024 if sys.platform == "darwin" else 1  # bytes there, KiB elsewhere
    return {"rate": count / taken, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale / 1024}


# Processes


def run(command: Sequence[str]) -> tuple[str, float]:
    """What a process prints, and how long it takes from its start to its end."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"})
    taken = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed:\n{done.stderr[-3000:]}")
    return done.stdout, taken


def child(*arguments: str | Path) -> dict[str, float]:
    """What this script prints, started anew with these arguments."""
    out, _ = run([sys.executable, __file__, *map(str, arguments)])
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def rates(folder: Path, size: tuple[int, int], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median pictures a second and highest peak of memory of each way, in turns."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for number in range(rounds):
        for name in WAYS:
            found[name].append(child("--way", name, "--folder", folder, "--pictures", folder / _name(size)))
            print(f"  round {number + 1} {_name(size)} {name:18} {found[name][-1]['rate']:7.1f}/s", file=sys.stderr)
    return (
        {name: median(one["rate"] for one in several) for name, several in found.items()},
        {name: max(one["peak"] for one in several) for name, several in found.items()},
    )


def cold_starts(folder: Path, rounds: int) -> dict[str, float]:
    """Median seconds of each, in turns; a first round, not counted, fills the disk's cache."""
    picture = str(next((folder / _name(SIZES[0])).iterdir()))
    python = sys.executable
    commands: Mapping[str, Sequence[str]] = {
        "Keras script": [python, "-c", SCRIPT, str(folder / "model.keras"), picture],
        "`dermalert score`": [python, "-m", "dermalert.cli", "score", picture],
        "`dermalert --help`": [python, "-m", "dermalert.cli", "--help"],
        "`import dermalert`": [python, "-c", "import dermalert"],
        "the interpreter alone": [python, "-c", "pass"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            taken[name].append(run(command)[1])
    return {name: median(values[1:]) for name, values in taken.items()}


# Words


def told(found: Mapping[tuple[int, int], dict[str, float]], cold: Mapping[str, float]) -> str:
    """The tables and what they come to."""
    sizes = [f"{width} × {height}" for width, height in found]
    header = ["pictures a second", *(each for size in sizes for each in (size, "Dermalert is"))]
    rows = [
        [name, *(each for by in found.values() for each in (f"{by[name]:.0f}", f"{by['dermalert'] / by[name]:.2f} ×"))]
        for name in WAYS
    ]
    lines = [table(header, rows), ""]
    for size, by in zip(sizes, found.values(), strict=True):
        inference = max(by["onnxruntime"], by["onnxruntime cores"])
        slower, shared = min(inference, by["decoder"]), 1 / (1 / inference + 1 / by["decoder"])
        lines.append(
            f"- {size}: {by['dermalert'] / by['notebook']:.1f} times the notebook (aim: {AIMS['notebook']:g}), "
            f"{by['dermalert'] / by['tutorial']:.1f} times the tutorial (aim: {AIMS['tutorial']:g}), "
            f"{by['dermalert'] / slower:.0%} of the slower of inference and decoder (aim: {SHARE:.0%}), "
            f"{by['dermalert'] / shared:.0%} of what cores that both share can do ({shared:.0f} a second)."
        )
    lines += ["", table(["cold start", "seconds"], [(name, f"{taken:.3f}") for name, taken in cold.items()]), ""]
    alone = cold["`import dermalert`"] - cold["the interpreter alone"]
    lines.append(
        f"`dermalert score` of one picture in {cold['`dermalert score`']:.2f} s (aim: {COLD:g}), a "
        f"{cold['Keras script'] / cold['`dermalert score`']:.0f}th of the Keras script; `import dermalert` in "
        f"{alone:.3f} s (aim: {IMPORT:g})."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="pictures of each size")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way")
    parser.add_argument("--quick", action="store_true", help="few pictures once, and nothing is written")
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pictures", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.prepare:
        prepare(asked.folder, asked.count)
        print("{}")
        return
    if asked.way:
        print(json.dumps(measure(asked.way, asked.folder, asked.pictures)))
        return
    count, rounds, sizes = (32, 1, SIZES[:1]) if asked.quick else (asked.count, asked.rounds, SIZES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child("--prepare", "--folder", folder, "--count", str(count))
        both = {size: rates(folder, size, rounds) for size in sizes}
        cold = cold_starts(folder, 1 if asked.quick else 5)
        few = folder / "few"
        few.mkdir()
        for file in sorted((folder / _name(sizes[-1])).iterdir())[: count // 10 or 1]:
            (few / file.name).hardlink_to(file)
        small = child("--way", "dermalert", "--folder", folder, "--pictures", few)["peak"]
    words = told({size: by for size, (by, _) in both.items()}, cold)
    large = both[sizes[-1]][1]["dermalert"]
    peaks = f"{small:.0f} MiB for {count // 10:,} pictures, {large:.0f} for {count:,}"
    words += f"\n\nPeak memory of `dermalert score`: {peaks}."
    print(words)
    if not asked.quick:
        how = f"`python benchmarks/score.py`, {count:,} drawn JPEGs of each size, medians of {rounds} in turns."
        measured = measured_on("numpy", "onnxruntime", "pillow", "keras", "tensorflow-cpu")
        write_section("score", f"## Scoring\n\n{how} {measured}\n\n{words}")


if __name__ == "__main__":
    main()

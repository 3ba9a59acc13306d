"""Latency: milliseconds of one core for a picture, by how the graph is stored, beside `keras predict`.

Comes in: nothing: it builds the recipe's network with ImageNet's weights and a head by chance, since what is timed does
not depend on the weights, and draws the pictures. Goes out: for the graph in float32, with its large arrays in float16
and with its large convolutions in int8: megabytes, milliseconds a picture alone and in batches of 32, how many times
faster than Keras's `predict` with the same network, and how far the logits move.

Every library is held to one thread and the process to one core. The figures are processor time, not the clock's, and
medians of rounds in turns: other work on the machine disturbs them little. On an idle machine both agree.

    python benchmarks/latency.py --size 144 --rounds 15
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

BATCHES = (1, 32)
TARGET = 15.0  # milliseconds a picture
CALIBRATION = 64  # pictures


def network(recipe_name: str, size: int) -> tuple[Any, bytes]:
    """The recipe's network as Keras has it, and its graph."""
    from dermalert.bundle.export import export_onnx
    from dermalert.learn import networks
    from dermalert.learn.outputs import for_export
    from dermalert.learn.recipes import recipe_named
    from dermalert.taxonomy import NAMES

    recipe = replace(recipe_named(recipe_name), size=(size, size), precision="float32")
    model = networks.build(recipe, len(NAMES))
    return model, export_onnx(for_export(model), size=recipe.size)


def pictures(count: int, size: int) -> np.ndarray:
    """Drawn lesions, uint8 (count, size, size, 3)."""
    from dermalert.drawn import draw_lesion
    from dermalert.taxonomy import NAMES

    drawn = [
        draw_lesion(NAMES[number % len(NAMES)], np.random.default_rng(number), width=size, height=size)
        for number in range(count)
    ]
    return np.stack(drawn)


def runner(graph: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """Logits from float32 pictures, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["logits"], {"pixels": pixels})[0]  # type: ignore[no-any-return]


def in_turns(
    ways: Mapping[str, Callable[[np.ndarray], np.ndarray]], pixels: np.ndarray, rounds: int
) -> dict[tuple[str, int], float]:
    """Median milliseconds of processor time a picture, for each way and batch size; a first round is not counted."""
    taken: dict[tuple[str, int], list[float]] = {(name, batch): [] for batch in BATCHES for name in ways}
    for number in range(rounds + 1):
        for name, batch in taken:
            start = time.process_time()
            ways[name](pixels[:batch])
            if number:
                taken[name, batch].append(1000 * (time.process_time() - start) / batch)
        print(f"  round {number} of {rounds}", file=sys.stderr)
    return {key: median(values) for key, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="transfer", help="whose network")
    parser.add_argument("--size", type=int, default=144, help="width and height in pixels")
    parser.add_argument("--rounds", type=int, default=15, help="runs of each")
    parser.add_argument("--quick", action="store_true", help="a small network, one run: whether it still runs")
    asked = parser.parse_args()
    if asked.quick:
        asked.recipe, asked.size, asked.rounds = "plain", 48, 1
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    from dermalert.bundle.shrink import WAYS, shrink

    model, graph = network(asked.recipe, asked.size)
    drawn = pictures(CALIBRATION, asked.size)
    graphs = {"float32": graph, **{how: shrink(graph, how, pictures=drawn) for how in WAYS}}
    ways = {
        "keras predict": lambda pixels: model.predict(pixels, batch_size=max(BATCHES), verbose=0),
        **{name: runner(content) for name, content in graphs.items()},
    }
    pixels = drawn[: max(BATCHES)].astype(np.float32)
    logits = {name: run(pixels) for name, run in ways.items()}
    found = in_turns(ways, pixels, asked.rounds)
    print(f"{asked.recipe} at {asked.size} px; milliseconds of one core a picture, medians of {asked.rounds}")
    print(f"{'':16}{'MB':>6}" + "".join(f"{f'batch {batch}':>12}{'x faster':>10}" for batch in BATCHES) + "   moves by")
    for name in ways:
        megabytes = f"{len(graphs[name]) / 1e6:6.2f}" if name in graphs else " " * 6
        times = [(found[name, batch], found["keras predict", batch] / found[name, batch]) for batch in BATCHES]
        moved = np.abs(logits[name] - logits["float32"]).max()
        print(f"{name:16}{megabytes}" + "".join(f"{ms:12.2f}{ratio:10.1f}" for ms, ratio in times) + f"{moved:11.4f}")
    worst = max(found[name, batch] for name in graphs for batch in BATCHES)
    print(f"slowest of ours: {worst:.1f} ms (target: {TARGET:g} or less)")


if __name__ == "__main__":
    main()

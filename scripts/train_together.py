"""Trains the same recipe alone and by several processes of this machine, and prints both losses and their difference.

    python scripts/train_together.py PICTURES --out runs/together --workers 2 --recipe plain --epochs 2

PICTURES and all further options are those of `dermalert train`. What each process writes lies in a folder of its own.
On several machines, each starts `dermalert train` itself, with a TF_CONFIG as this script makes it (docs/scaling.md).

Losses are equal but for rounding where the recipe's precision is float32 and its network has neither dropout nor batch
normalization that learns: their chance and their averages are each process's own.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    asked, options = parser.parse_known_args()
    train = [str(Path(sys.executable).with_name("dermalert")), "train", str(asked.pictures), *options]
    alone = histories([asked.out / "alone"], train)[0]
    together = histories([asked.out / f"worker-{rank}" for rank in range(asked.workers)], train)
    print(f"all {asked.workers} processes have one history: {all(same(each, together[0]) for each in together)}")
    for epoch, (one, several) in enumerate(zip(alone, together[0], strict=True), start=1):
        for what in ("train_loss", "validation_loss"):
            here, there = one[what], several[what]
            print(f"epoch {epoch} {what:<15} alone {here:.6f} together {there:.6f} differ {abs(here - there):.1e}")
        speeds = one["images_per_second"], several["images_per_second"]
        print(f"epoch {epoch} pictures/s      alone {speeds[0]:.0f} together {speeds[1]:.0f}")


def histories(runs: list[Path], train: list[str]) -> list[list[dict[str, Any]]]:
    """The epochs of each of some runs that train together, a process each."""
    started = zip(runs, tasks(len(runs)), strict=True)
    processes = [subprocess.Popen([*train, "--out", str(run)], env=environment) for run, environment in started]  # noqa: S603 -- our own command
    if sum(process.wait() != 0 for process in processes):
        sys.exit("A process failed; what it told stands above.")
    return [json.loads((run / "history.json").read_text())["epochs"] for run in runs]


def tasks(count: int) -> list[dict[str, str]]:
    """The environment of each process; TF_CONFIG names them all, on free ports of this machine."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        workers = [f"127.0.0.1:{each.getsockname()[1]}" for each in taken]
    configs = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}} for rank in range(count)]
    return [{**os.environ, "TF_CONFIG": json.dumps(config)} for config in configs]


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether two histories have the same figures; the clock may differ."""
    timed = {"seconds", "images_per_second"}
    return [{k: v for k, v in each.items() if k not in timed} for each in one] == [
        {k: v for k, v in each.items() if k not in timed} for each in other
    ]


if __name__ == "__main__":
    main()

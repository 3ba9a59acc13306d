"""What is lost when one network stands for five: one of them, the mean of their outputs, of their weights, and a
student of theirs, judged where none of them learnt.

    python scripts/students.py runs/release --out runs/students

Comes in: a finished release, for its photographs and their division. A release's own five networks have between them
seen every photograph but the tenth held out, so they cannot tell. Here fold 1, and each collection, is left out of all:
of the rest, one network is trained without each fold. Goes out: melanoma AUC of each way to make one of them, and the
paired difference from a single network, with intervals over lesions; `students.json`, of the form of `ablation.json`.
The held-out tenth has no part in it. It goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ablation import BASE, LEFT_OUT, Arm, judged
from numpy.typing import NDArray

from dermalert.bundle.export import export_onnx
from dermalert.bundle.format import Bundle
from dermalert.intake.manifest import Manifest
from dermalert.learn.checkpoint import write_arrays, write_text
from dermalert.learn.members import fit_members
from dermalert.learn.recipes import RELEASE
from dermalert.learn.student import fit_student, mean_weights
from dermalert.score.engine import Engine
from dermalert.stages.gathering import FOLDS, Photographs, gather
from dermalert.stages.release import SHOWN, TAUGHT
from dermalert.stages.training import bare, logits_of
from dermalert.taxonomy import NAMES

Logits = NDArray[np.float32]
ARMS = {
    BASE: Arm("one network"),
    "together": Arm("the mean of the networks' logits"),
    "mean": Arm("the mean of their weights"),
    "student": Arm("a student of theirs"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path, help="the run folder of a finished release")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=5, help="of each network")
    parser.add_argument("--taught", type=int, default=TAUGHT, help="epochs of the student")
    asked = parser.parse_args()
    recipe = replace(RELEASE, epochs=asked.epochs)
    shots = gather(Manifest.read(asked.release / "pooled.parquet"), recipe, asked.release.parent / "decoded")
    left_out = [name for name in shots.members() if name == LEFT_OUT or name.startswith("without")]
    rows = {(name, fold): _without(shots, name, fold) for name in left_out for fold in FOLDS if fold != name}
    models = fit_members(
        shots.pixels,
        shots.allowed,
        shots.strata,
        {" but ".join(key): each for key, each in rows.items()},
        recipe,
        asked.out / "teachers",
        shown=SHOWN,
        resume=True,
    )
    found: dict[str, dict[str, Logits]] = {arm: {} for arm in ARMS}
    for name in left_out:
        teachers = [models[" but ".join(key)] for key in rows if key[0] == name]
        student = fit_student(
            teachers,
            shots.pixels,
            shots.members()[name],
            shots.strata,
            recipe,
            asked.out / name,
            shown=SHOWN,
            epochs=asked.taught,
            resume=True,
        )
        alone = [_logits(each, shots, name) for each in teachers]
        found[BASE][name] = alone[0]
        found["together"][name] = np.mean(alone, axis=0)
        found["mean"][name] = _logits(mean_weights(teachers, recipe), shots, name)
        found["student"][name] = _logits(student, shots, name)
    for arm, logits in found.items():
        write_arrays(asked.out / f"{arm}.npz", logits, {"arm": {"epochs": asked.epochs}})
    told = judged(asked.out, ARMS, shots, Bundle.load(asked.release / "bundle").prevalence)
    write_text(asked.out / "students.json", json.dumps(told, indent=2))
    print("\n".join(_lines(told)))


def _without(shots: Photographs, name: str, fold: str) -> NDArray[np.int64]:
    rows = shots.members()[name]
    return rows[shots.parts[rows] != fold]


def _logits(model: Any, shots: Photographs, name: str) -> Logits:
    """float32 (N, C) of the photographs that `name` leaves out; NaN of the others."""
    judged_by = shots.parts == name if name == LEFT_OUT else shots.alone(name.removeprefix("without "))
    rows = np.flatnonzero(judged_by)
    logits = np.full((len(shots.parts), len(NAMES)), np.nan, np.float32)
    graph = export_onnx(model, size=RELEASE.size)
    logits[rows] = logits_of(Engine(bare(graph, RELEASE, NAMES)), shots.pixels, rows)
    return logits


def _lines(told: Mapping[str, Any]) -> Sequence[str]:
    views = list(told[BASE]["melanoma_auc"])
    lines = [["", *views]]
    for name, arm in told.items():
        cells = []
        for view in views:
            auc, moved = arm["melanoma_auc"][view], arm["difference"][view]
            ends = (auc["low"], auc["high"]) if name == BASE else (moved["low"], moved["high"])
            change = "" if name == BASE else f": {moved['value']:+.3f}"
            cells.append(f"{auc['value']:.3f}{change} ({ends[0]:.3f} to {ends[1]:.3f})")
        lines.append([arm["words"], *cells])
    lines.insert(1, ["---", *["---:"] * len(views)])
    return ["| " + " | ".join(line) + " |" for line in lines]


if __name__ == "__main__":
    main()

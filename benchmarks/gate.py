"""The gate: what share of some folders it refuses, for which reasons, and what it costs.

Comes in: folders of pictures, dermoscopic or not. Goes out: for each, the share that is refused and that is flagged,
and the reasons; then milliseconds of one core for a picture, with and without the gate. A folder that the gate was
fitted on flatters it: the model card has the rates on pictures left out of the fit.

    OMP_NUM_THREADS=1 python benchmarks/gate.py photographs/ dermoscopic/ [--bundle runs/mine/bundle]
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np

from dermalert.bundle.format import Bundle
from dermalert.drawn.others import OTHERS, draw_other
from dermalert.intake.given import given_at
from dermalert.score.batch import score
from dermalert.score.engine import Engine
from dermalert.score.gate import FEATURES, judge, measure_quality

PICTURES, ROUNDS = 32, 9


def rates(bundle: Bundle, folder: Path) -> None:
    """Prints what becomes of the pictures in `folder`."""
    findings = [finding for finding in score(given_at([folder]), bundle) if finding.status != "error"]
    reasons = Counter(finding.message.partition(":")[0].partition(".")[0] for finding in findings if finding.message)
    refused = sum(finding.status == "rejected" for finding in findings)
    flagged = sum(finding.status == "scored" and bool(finding.message) for finding in findings)
    shares = f"{refused / len(findings):.2%} refused, {flagged / len(findings):.2%} flagged"
    print(f"{folder}: {len(findings)} pictures, {shares}")
    for reason, count in reasons.most_common():
        print(f"  {count:6d}  {reason}")


def cost(bundle: Bundle, rounds: int) -> None:
    """Prints the processor time of a picture without and with the gate, the quickest of several rounds in turns."""
    engine, gate = Engine(bundle, threads=1), bundle.gate
    if gate is None:
        raise SystemExit(f"bundle {bundle.name!r} has no gate")
    kinds, rng = list(OTHERS), np.random.default_rng(0)
    pixels = np.stack([draw_other(kinds[at % len(kinds)], rng, bundle.size) for at in range(PICTURES)])

    def without() -> None:
        engine.run(pixels, "logits")

    def with_gate() -> None:
        features = engine.run(pixels, "logits", *FEATURES)
        judge(gate, features, [measure_quality(each, *bundle.size) for each in pixels])

    quickest = dict.fromkeys((without, with_gate), float("inf"))
    for _ in range(rounds):
        for job in quickest:
            start = time.process_time()
            job()
            quickest[job] = min(quickest[job], (time.process_time() - start) * 1000 / PICTURES)
    print(f"network {quickest[without]:.2f} ms a picture, with the gate {quickest[with_gate]:.2f} ms")


def main() -> None:
    """Reads the arguments and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--bundle", type=Path, help="the bundle/ folder of a run; default: the model that ships")
    parser.add_argument("--quick", action="store_true", help="one round: whether it still runs")
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle) if arguments.bundle else Bundle.shipped()
    for folder in arguments.folders:
        rates(bundle, folder)
    cost(bundle, 1 if arguments.quick else ROUNDS)


if __name__ == "__main__":
    main()

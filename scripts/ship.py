"""Puts a release's bundle into the package, and what it says into the tests.

    python scripts/ship.py runs/release runs/held-out

The card gets what the evaluation of the held-out lesions found of subgroups, corruptions, sets and maps. Writes
src/dermalert/bundle/releases/NAME/ in place of the one there, and tests/shipped.json: its logits on drawn
pictures, the ISIC numbers of HAM10000's held-out photographs, and its melanoma AUC on them. No picture is copied.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import results  # noqa: E402

from dermalert.bundle.card import NOT_MEASURED  # noqa: E402
from dermalert.bundle.format import Bundle, digest_of  # noqa: E402
from dermalert.intake.manifest import Manifest  # noqa: E402
from dermalert.judge.evaluation import evaluate  # noqa: E402
from dermalert.score.engine import Engine  # noqa: E402
from dermalert.stages import judging  # noqa: E402


def completed(card: str, judged: Mapping[str, Any]) -> str:
    """The card with what was not measured when it was written."""
    found = {
        "Diagnoses left open": results.conformal(judged["scrutiny"]["conformal"]),
        "Subgroups": results.subgroups(judged["scrutiny"]["subgroups"]),
        "Robustness": results.robustness(judged["robustness"]),
        "Explanations": results.evidence(judged["evidence"]),
    }
    for heading, text in found.items():
        before, mark, rest = card.partition(f"## {heading}\n\n")
        old, *_ = rest.partition("\n\n## ")
        if not mark or NOT_MEASURED not in old:
            raise SystemExit(f"The card has no section {heading!r} to fill in. Make the release again.")
        told = text.partition("\n\n")[2]  # without its own heading
        card = before + mark + rest.replace(NOT_MEASURED, told, 1)
    return card


def main(run: Path, evaluation: Path) -> None:
    bundle = Bundle.load(run / "bundle")
    judged = json.loads((evaluation / "metrics.json").read_text("utf-8"))
    if judged["bundle_digest"] != digest_of(run / "bundle"):
        raise SystemExit(f"{evaluation} judged another bundle than that of {run}. Evaluate this one first.")
    bundle = replace(bundle, card=completed(bundle.card, judged))
    releases = ROOT / "src" / "dermalert" / "bundle" / "releases"
    shutil.rmtree(releases, ignore_errors=True)
    bundle.save(releases / bundle.name)
    known = ROOT / "tests" / "shipped.json"
    known.write_text("{}")  # the test module reads it when it is imported
    from test_shipped import drawn

    manifest = Manifest.read(run / "manifest.parquet")
    facts = zip(manifest.column("source"), manifest.column("split"), strict=True)
    held_out = manifest.where([source == "ham10000" and split == "test" for source, split in facts])
    engine = Engine(bundle)
    scored = judging.score_labelled(engine, held_out)
    probabilities = bundle.calibration.apply(scored.logits)
    scores = judging.scores_of(held_out, judging.as_resolved(held_out), bundle.classes, probabilities)
    content = {
        "logits": engine.logits(drawn()).round(4).tolist(),
        "melanoma_auc": round(evaluate(scores, operating_point=None, resamples=2).figures["melanoma_auc"].value, 5),
        "held_out": sorted(int(path.partition("ISIC_")[2].partition(".")[0]) for path in held_out.column("path")),
    }
    known.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

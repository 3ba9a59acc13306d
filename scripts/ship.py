"""Puts a release's bundle into the package, and what it says into the tests.

    python scripts/ship.py runs/release

Writes src/dermalert/bundle/releases/NAME/ in place of the one there, and tests/shipped.json: its logits on drawn
pictures, the ISIC numbers of HAM10000's held-out photographs, and its melanoma AUC on them. No picture is copied.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from dermalert.bundle.format import Bundle  # noqa: E402
from dermalert.intake.manifest import Manifest  # noqa: E402
from dermalert.judge.evaluation import evaluate  # noqa: E402
from dermalert.score.engine import Engine  # noqa: E402
from dermalert.stages import judging  # noqa: E402


def main(run: Path) -> None:
    bundle = Bundle.load(run / "bundle")
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

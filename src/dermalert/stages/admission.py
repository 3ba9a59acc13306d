"""Who is let in where a single picture is asked about: none that `score` would reject.

Apart from `gating`, which fits gates and loads scikit-learn for it.
"""

from __future__ import annotations

from pathlib import Path

from dermalert.errors import RefusedFile
from dermalert.intake.decode import Picture
from dermalert.score.engine import Engine
from dermalert.score.gate import FEATURES, judge, measure_quality


def refuse_strangers(engine: Engine, seen: Picture, path: Path) -> None:
    """Raises where `score` would reject the picture: an evidence map or similar cases of a cat would look no less sure.

    Raises:
        RefusedFile: with what the gate says.
    """
    if engine.bundle.gate is None:
        return
    quality = measure_quality(seen.pixels, seen.info.width, seen.info.height)
    (verdict,) = judge(engine.bundle.gate, engine.run(seen.pixels[None], *FEATURES), [quality])
    if not verdict.accepted:
        raise RefusedFile(path, "the gate rejects it", f"{verdict.reason}.")

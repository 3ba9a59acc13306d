"""Who is let in where a single picture is asked about: none that `score` would reject.

Apart from `gating`, which fits gates and loads scikit-learn for it.
"""

from __future__ import annotations

from pathlib import Path

from dermalert.errors import RefusedFile
from dermalert.intake.decode import Picture
from dermalert.score.batch import Judge, findings_of
from dermalert.score.engine import Engine


def refuse_strangers(engine: Engine, seen: Picture, path: Path) -> None:
    """Raises where `score` would reject the picture: an evidence map or similar cases of a cat would look no less sure.

    Raises:
        RefusedFile: with what the gate says.
    """
    (finding,) = findings_of(engine, Judge(engine.bundle, None), [(str(path), seen)])
    if finding.status == "rejected":
        raise RefusedFile(path, "the gate rejects it", f"{finding.message}.")

"""From a run to its reporting checklists: `claim.md`, `tripod-ai.md`, and both as `checklists.html`."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np

from dermalert import page
from dermalert.bundle.checklist import Run, checklists
from dermalert.intake.manifest import Manifest

FILES = ("claim.md", "tripod-ai.md")


def write_checklists(out: Path, run: Run, *, made: datetime) -> None:
    """Writes the checklists into the folder `out`, answered as far as the run knows."""
    filled = checklists(run)
    for name, checklist in zip(FILES, filled, strict=True):
        page.write(out / name, checklist.markdown())
    html = page.render(
        "bundle/checklists.html.j2",
        title=f"Reporting checklists: {run.bundle.name} on {run.data.name}",
        command=run.command,
        made=made,
        lists=filled,
    )
    page.write(out / "checklists.html", html)


def characteristics(manifest: Manifest) -> str:
    """Age, sex and body site of the pictures, in a sentence; empty where the table tells none of them."""
    pictures, told = len(manifest), []
    ages = np.array([age for age in manifest.column("age_years") if age is not None])
    if len(ages):
        low, median, high = np.quantile(ages, [0.25, 0.5, 0.75])
        told.append(f"age known of {len(ages)}: median {median:.0f} years (quartiles {low:.0f} and {high:.0f})")
    for what in ("sex", "site"):
        counts = Counter(value for value in manifest.column(what) if value is not None)
        if counts:
            shares = ", ".join(f"{value} {number}" for value, number in counts.most_common())
            told.append(f"{what} known of {counts.total()}: {shares}")
    return f"Of {pictures} pictures, {'; '.join(told)}." if told else ""

"""`dermalert demo`: the whole way on pictures that it draws itself, for a first look without any data.

Comes in: a folder to write to. Goes out: a drawn data set, its audit, a short training, an evaluation on pictures
drawn anew, pictures scored by that model and by the one that ships, each where the commands of the same name would
have put it, and a clinic whose worklist is full. The figures mean nothing for real skin.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from dermalert.drawn import draw_class_folders
from dermalert.errors import DataError, MissingExtra
from dermalert.learn.recipes import recipe_named
from dermalert.stages.auditing import run_audit
from dermalert.stages.auditing import summary as audit_summary
from dermalert.stages.judging import run_evaluate
from dermalert.stages.scoring import run_score
from dermalert.stages.telling import summary
from dermalert.stages.training import run_train
from dermalert.taxonomy import NAMES

# Enough melanomas in validation to choose a threshold for 95 % sensitivity: a fifth of these, at least 20.
PER_CLASS = {"melanoma": 120, "nevus": 120}
OTHERS = 40
EPOCHS = 4

FOLDERS = ("drawn", "elsewhere", "audit", "run", "evaluation", "clinic")
ALERTS, SHIPPED = "alerts.csv", "shipped.csv"
_MARK = ".dermalert-demo"  # tells a folder that an earlier demo made from one that only has the same names in it


def run_demo(out: Path, *, seed: int, made: datetime) -> Iterator[str]:
    """Runs the demo and yields what to tell the user, a line at a time. What an earlier demo left there is replaced.

    Raises:
        DataError: `out` holds something of the demo's names that no demo made.
    """
    _clear(out)
    per_class = {name: PER_CLASS.get(name, OTHERS) for name in NAMES}
    drawn = draw_class_folders(out / "drawn", per_class=per_class, test_per_class=8, seed=seed)
    yield f"1. Drew {drawn.pictures} cartoon pictures, faults included, in {out / 'drawn'}"
    report = run_audit(
        out / "drawn",
        out / "audit",
        seed=seed,
        command=f"dermalert audit {out / 'drawn'} --out {out / 'audit'}",
        made=made,
    )
    yield "2. Audited them:"
    yield from (f"   {line}" for line in audit_summary(report))
    recipe = replace(recipe_named("plain"), seed=seed)
    manifest = out / "audit" / "manifest.parquet"
    command = f"dermalert train {manifest} --recipe plain --epochs {EPOCHS} --out {out / 'run'}"
    evaluations = run_train(manifest, recipe, out / "run", epochs=EPOCHS, command=command, made=made)
    yield f"3. Trained the plain CNN for {EPOCHS} epochs:"
    yield from (f"   {line}" for line in summary(evaluations))
    draw_class_folders(out / "elsewhere", per_class=8, test_per_class=0, seed=seed + 1, faults=False)
    bundle = out / "run" / "bundle"
    command = f"dermalert evaluate {bundle} {out / 'elsewhere'} --out {out / 'evaluation'}"
    evaluations = run_evaluate(bundle, out / "elsewhere", out / "evaluation", seed=seed, command=command, made=made)
    yield "4. Evaluated it on pictures drawn anew:"
    yield from (f"   {line}" for line in summary(evaluations))
    alerts = out / ALERTS
    counts = run_score([out / "drawn" / "Test"], bundle, alerts)
    yield f"5. Scored {counts['scored']} pictures: {counts['refer']} to refer; {counts['rejected']} rejected"
    counts = run_score([out / "drawn" / "Test"], None, out / SHIPPED)
    yield f"6. Scored the same with the model that ships: {counts['scored']} accepted, {counts['rejected']} rejected"
    yield _filled(out / "clinic")
    yield ""
    yield f"   audit       {out / 'audit' / 'audit.html'}"
    yield f"   report      {out / 'run' / 'report.html'}"
    yield f"   evaluation  {out / 'evaluation' / 'report.html'}"
    yield f"   alerts      {alerts}"
    yield f"   shipped     {out / SHIPPED}"
    yield f"   worklist    dermalert serve --data {out / 'clinic'}"
    yield "   The pictures are cartoons: the figures show that the way works, and nothing about skin."


def serve_demo(out: Path, tell: Callable[[str], None]) -> None:
    """Serves the clinic that a demo filled until it is told to stop: on port 8000, or on a free one.

    Raises:
        MissingExtra: the service's libraries are not installed.
    """
    try:
        from dermalert.clinic import accounts
        from dermalert.clinic.serving import listening, run
        from dermalert.clinic.settings import Settings
        from dermalert.clinic.store import Store
    except ImportError as error:
        raise MissingExtra("The worklist", "serve") from error
    settings = Settings(data=out / "clinic")
    with ExitStack() as stack:
        try:
            settings, taken = stack.enter_context(listening(settings))
        except DataError:  # something else listens on port 8000
            settings, taken = stack.enter_context(listening(replace(settings, port=0)))
        store = Store(settings.db_url)
        link = accounts.first_link(store)
        store.close()
        first = f"{settings.link_base}/welcome?token={link}" if link else settings.link_base
        tell(f"The worklist is open. Set a password for 'admin', and sign in: {first}")
        run(settings, taken, lambda model: tell(f"Scored by {model}. Stop with Ctrl-C."))


def _filled(clinic: Path) -> str:
    try:
        from dermalert.clinic.sample import fill
        from dermalert.clinic.settings import Settings
    except ImportError as error:
        return f"7. Left out the worklist. {MissingExtra('It', 'serve')} ({error.name} is not there)"
    return f"7. Filled a worklist with {fill(Settings(data=clinic))} pictures, scored by the model that ships"


def _clear(out: Path) -> None:
    """Makes room in `out`, and marks it as a demo's."""
    taken = [name for name in (*FOLDERS, ALERTS, SHIPPED) if (out / name).exists()]
    if taken and not (out / _MARK).exists():
        raise DataError(f"{out} already holds {', '.join(taken)}, and no demo made it. Name a new folder with --out.")
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).write_text("Made by dermalert demo, which replaces what lies here.\n", encoding="utf-8")

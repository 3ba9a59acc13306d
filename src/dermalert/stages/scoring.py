"""`dermalert score`: pictures in, a table of findings out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path

from dermalert import __version__
from dermalert.bundle.format import Bundle, digest_of, shipped_folder
from dermalert.errors import DataError, printable
from dermalert.intake.decode import EXTENSIONS
from dermalert.intake.given import given_at
from dermalert.intake.overlap import cores
from dermalert.intake.remote import is_url
from dermalert.score.batch import BATCH, Finding, score
from dermalert.score.durable import Output
from dermalert.score.output import CHALLENGES, PARQUET, Lines, format_for, lines_of

FETCHING = 16  # threads at least, where pictures come from afar: most of them wait
_UNTOLD = 64  # findings before a bar is shown: one picture need not wait for it to load


def run_score(
    paths: Sequence[str | Path],
    bundle_folder: Path | None,
    out: Path | None,
    *,
    form: str | None = None,
    workers: int | None = None,
    batch: int = BATCH,
    point: str | None = None,
    prevalence: float | None = None,
) -> Counter[str]:
    """Scores what lies at `paths` and writes the findings to `out`, or the rest of them where a run was broken off.

    Args:
        paths: as `intake.given.given_at`.
        bundle_folder: None for the bundle that comes with the package.
        out: a file; of Parquet, a folder; None: stdout, where nothing can be taken up again.
        form: of `score.output.FORMATS`; by default what the name of `out` asks for. A challenge wants a probability
            for every picture, so its formats go without the gate.
        workers: as `score.batch.score`; by default more where pictures come from afar.
        batch, point, prevalence: as `score.batch.score`.

    Returns:
        how many pictures were scored, were rejected, were errors, and raised the alert.

    Raises:
        DataError: nothing there, not one file could be read, `out` is named like a picture, or the probabilities
            cannot be adjusted to the prevalence.
        BundleError: the bundle cannot be used, or has no such operating point.
        OutputError: `out` cannot be written, or another run left something unfinished there.
    """
    form = form or format_for(out)
    _check_out(out, form)
    given = given_at(paths)
    with nullcontext(bundle_folder) if bundle_folder else shipped_folder() as folder:
        bundle, digest = Bundle.load(folder), digest_of(folder)
    if form in CHALLENGES:
        bundle = replace(bundle, gate=None)
    if workers is None and any(is_url(str(path)) for path in paths):
        workers = max(FETCHING, cores())

    scored = partial(score, bundle=bundle, workers=workers, batch=batch, point=point, prevalence=prevalence)
    if out is None:
        counts = _print(_told(scored(given)), lines_of(form, bundle.classes))
    else:
        job = {"model": digest, "operating point": point, "prevalence": prevalence, "Dermalert": __version__}
        with Output(out, form, bundle.classes, job) as output:
            for finding in _told(scored(output.remaining(given)), output):
                output.write(finding)
            counts = output.finish()
    judged = counts["scored"] + counts["rejected"]
    if not judged + counts["error"]:
        raise DataError(f"{printable(', '.join(map(str, paths)))}: no pictures there.")
    if not judged:
        raise DataError(f"Not one of {counts['error']} files could be scored; the rows say why for each.")
    return counts


def _check_out(out: Path | None, form: str) -> None:
    if out is None and form == PARQUET:
        raise DataError("Parquet is written to a folder. Name one with --out.")
    if out is not None and out.suffix.lower() in EXTENSIONS:
        raise DataError(f"{printable(str(out))}: is named like a picture, and no picture is ever replaced. Name a CSV.")


def _print(findings: Iterable[Finding], lines: Lines) -> Counter[str]:
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    sys.stdout.write(lines.head)
    counts: Counter[str] = Counter()
    for finding in findings:
        sys.stdout.write(lines.line(finding))
        counts[finding.status] += 1
        counts["refer"] += finding.alert == "refer"
    return counts


def _told(findings: Iterator[Finding], output: Output | None = None) -> Iterator[Finding]:
    """Passes findings on, with a bar once there are many, and tells of errors and rejections as they come."""
    done = output.done if output else 0
    if output and done:
        print(f"{printable(str(output.out))}: goes on after {done:,} pictures", file=sys.stderr)
    for finding in islice(findings, _UNTOLD):
        if finding.status != "scored":
            print(_why(finding), file=sys.stderr)
        yield finding
    if (following := next(findings, None)) is None:
        return
    from tqdm import tqdm

    for finding in tqdm(chain([following], findings), desc="score", unit="picture", initial=done + _UNTOLD):
        if finding.status != "scored":
            tqdm.write(_why(finding), file=sys.stderr)
        yield finding


def _why(finding: Finding) -> str:
    return f"{printable(finding.path)}: {finding.message}"

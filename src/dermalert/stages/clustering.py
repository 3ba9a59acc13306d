"""`dermalert score --engine ray`: pictures in, a folder of Parquet files of findings out, by many workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.dataset as ds
from tqdm import tqdm

from dermalert.bundle.format import Bundle, digest_of, shipped_folder
from dermalert.errors import DataError, printable
from dermalert.score.batch import Judge
from dermalert.score.cluster import Cluster, score_on_cluster
from dermalert.score.plan import BLOCK, planned


def run_score_on_cluster(
    paths: Sequence[str | Path],
    bundle_folder: Path | None,
    out: Path,
    cluster: Cluster,
    *,
    point: str | None = None,
    prevalence: float | None = None,
    block: int = BLOCK,
) -> dict[str, int]:
    """Scores what lies at `paths`, or the rest of it where a run to `out` was stopped.

    Args:
        paths: as `intake.given.given_at`; archives by their own names.
        bundle_folder: None for the bundle that comes with the package.
        out: a folder that all machines see, for the findings.
        point, prevalence: as `score.batch.score`.
        block: pictures in a block; see `score.plan`.

    Returns:
        how many pictures were scored, were rejected, were errors, and raised the alert, over all of the run.

    Raises:
        DataError: nothing there, `out` holds another run, or the probabilities cannot be adjusted to the prevalence.
        BundleError: the bundle cannot be used, or has no such operating point.
        ClusterError, MissingExtra: as `score_on_cluster`.
    """
    with nullcontext(bundle_folder) if bundle_folder else shipped_folder() as folder:
        bundle, digest = Bundle.load(folder), digest_of(folder)
    judge = Judge(bundle, bundle.operating_point if point is None else bundle.point(point), prevalence)
    asked = {"bundle": digest, "operating point": judge.point and judge.point.name, "prevalence": prevalence}
    plan = planned(out, paths, asked, block=block)
    if not len(plan):
        raise DataError(f"{printable(', '.join(map(str, paths)))}: no pictures there.")
    with tqdm(desc="score", unit="picture") as bar:
        for done in score_on_cluster(plan, judge, cluster):
            bar.update(done.pictures)
    return counts_in(out)


def counts_in(out: Path) -> Counter[str]:
    """What the findings in a folder come to, by status, and under "refer" the alerts."""
    counts: Counter[str] = Counter()
    for batch in ds.dataset(out, format="parquet").to_batches(columns=["status", "alert"]):
        counts.update({each["values"]: each["counts"] for each in pc.value_counts(batch["status"]).to_pylist()})
        counts["refer"] += pc.sum(pc.equal(batch["alert"], "refer")).as_py() or 0
    return counts

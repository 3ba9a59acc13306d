"""Near-duplicates among the pictures of many manifests, by Ray, on this machine or on a cluster.

    python scripts/near_duplicates.py shards/*/manifest.parquet --out pairs/
    python scripts/near_duplicates.py shards/*/manifest.parquet --out pairs/ --address head:6379

The manifests are those that `dermalert audit` wrote, one a part of the collection. docs/audit-at-scale.md tells what it
costs. The same command again goes on with what is missing.
"""

from __future__ import annotations

from pathlib import Path

import click
from tqdm import tqdm

from dermalert.errors import DermalertError
from dermalert.intake.neighbours import NEAR_RADIUS
from dermalert.score.cluster import Cluster
from dermalert.stages.nearby import ROWS_A_PART, run_nearby


@click.command(help=__doc__)
@click.argument("manifests", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the pairs.")
@click.option("--radius", default=NEAR_RADIUS, show_default=True, help="Bits that may differ.")
@click.option("--address", help="Of a Ray cluster, host:port; otherwise Ray is started on this machine.")
@click.option("--rows-a-part", default=ROWS_A_PART, show_default=True, help="Hashes that a worker searches at a time.")
def main(manifests: tuple[Path, ...], out: Path, radius: int, address: str | None, rows_a_part: int) -> None:
    with tqdm(desc="search", unit="part") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            found = run_nearby(
                manifests, out, radius=radius, cluster=Cluster(address), rows_a_part=rows_a_part, progress=show
            )
        except DermalertError as error:
            raise click.ClickException(str(error)) from None
    click.echo(f"{found:,} pairs within {radius} bits in {out}")


if __name__ == "__main__":
    main()

"""Near-duplicate search: time, memory and what it finds, beside comparing all pairs and beside CleanVision.

python benchmarks/neighbours.py [--data DIR]            ten thousand real hashes, one million drawn ones
python benchmarks/neighbours.py --calibrate --data DIR  recall and precision by radius, where NEAR_RADIUS comes from
python benchmarks/neighbours.py --same-lesion --data DIR  the same-lesion search: weights, precision, recall, time

DIR holds isic9/, ham10000/ (with metadata.csv) and isic2017/. Pictures with one ISIC number in two of them are
known copies; HAM10000's lesion_id says which pictures with other numbers show one lesion.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dermalert.intake import samelesion
from dermalert.intake.decode import load
from dermalert.intake.fingerprint import difference_hash, hashes_to_array
from dermalert.intake.neighbours import NEAR_RADIUS, distances, groups_of, near_pairs

Hashes = NDArray[np.uint64]
FOLDERS = ("isic9", "ham10000", "isic2017")
PLANTED = 0.01  # share of the drawn hashes that is a copy of another, with up to NEAR_RADIUS bits flipped


@dataclass(frozen=True)
class Known:
    """Real pictures, their hashes and what is known about them, one row a picture."""

    files: list[Path]
    hashes: Hashes
    source: NDArray[np.str_]
    number: NDArray[np.int64]
    lesion: NDArray[np.str_]

    def where(self, mask: NDArray[np.bool_]) -> Known:
        files = [self.files[i] for i in np.flatnonzero(mask)]
        return Known(files, self.hashes[mask], self.source[mask], self.number[mask], self.lesion[mask])


def known(data: Path) -> Known:
    """Hashes every JPEG below the three folders."""
    files = [file for name in FOLDERS for file in sorted((data / name).rglob("*.jpg"))]
    start = time.perf_counter()
    hashes = hashes_to_array([difference_hash(load(file).pixels) for file in files])
    seconds = time.perf_counter() - start
    print(f"decoded and hashed {len(files):,} pictures in {seconds:.1f} s ({len(files) / seconds:.0f} a second)")
    number = np.array([int(_found(r"ISIC_(\d+)", file.name)) for file in files])
    with (data / "ham10000" / "metadata.csv").open(newline="") as table:
        lesions = {int(row["image_id"][5:]): row["lesion_id"] for row in csv.DictReader(table)}
    lesion = np.array([lesions.get(one, f"number {one}") for one in number.tolist()])
    return Known(files, hashes, np.array([file.relative_to(data).parts[0] for file in files]), number, lesion)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"{text}: no ISIC number in the name")
    return match.group(1)


def calibrate(pictures: Known) -> None:
    """Prints, for each radius, the share of known copies found and how many other pairs come with them."""
    copies: dict[str, list[NDArray[np.uint16]]] = {"ham10000": [], "isic2017": []}
    same_lesion, other = np.zeros(257, np.int64), np.zeros(257, np.int64)
    rows = np.arange(len(pictures.files))
    for start in range(0, len(rows), 256):
        block = slice(start, start + 256)
        apart = distances(pictures.hashes[block, None], pictures.hashes[None])
        later = rows[block, None] < rows
        copy = later & (pictures.number[block, None] == pictures.number)
        for name, found in copies.items():
            found.append(apart[copy & (pictures.source[block, None] == "isic9") & (pictures.source == name)])
        lesion = later & ~copy & (pictures.lesion[block, None] == pictures.lesion)
        same_lesion += np.bincount(apart[lesion], minlength=257)
        other += np.bincount(apart[later & ~copy & ~lesion], minlength=257)
    by_source = {name: np.concatenate(found) for name, found in copies.items()}
    print(f"known copies: {', '.join(f'{len(found)} isic9 with {name}' for name, found in by_source.items())};")
    print(f"other pairs: {same_lesion.sum():,} of one lesion, {other.sum():,} with other numbers and lesions\n")
    print("radius  recall ham  recall isic2017  same lesion  other pairs  precision")
    for radius in (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40):
        recall = {name: float((found <= radius).mean()) for name, found in by_source.items()}
        right = sum(int((found <= radius).sum()) for found in by_source.values()) + int(same_lesion[: radius + 1].sum())
        wrong = int(other[: radius + 1].sum())
        mark = "  <- NEAR_RADIUS" if radius == NEAR_RADIUS else ""
        print(
            f"{radius:6}  {recall['ham10000']:10.4f}  {recall['isic2017']:15.4f}  {same_lesion[: radius + 1].sum():11}"
            f"  {wrong:11}  {right / max(right + wrong, 1):9.4f}{mark}"
        )


def same_lesion(pictures: Known) -> None:
    """Fits the weights on HAM10000's lesions with even numbers and reports on the odd ones, against all lesions."""
    from PIL import Image
    from sklearn.linear_model import LogisticRegression

    thumbnails = np.stack(
        [
            np.asarray(Image.fromarray(load(file).pixels).resize((samelesion.SIDE,) * 2, Image.Resampling.BOX))
            for file in pictures.files
        ]
    )
    start = time.perf_counter()
    pairs = samelesion.candidates(thumbnails)
    print(f"{len(pictures.files):,} pictures, {len(pairs.first):,} candidates: {time.perf_counter() - start:.0f} s")
    _, lesion, count = np.unique(pictures.lesion, return_inverse=True, return_counts=True)
    odd = np.array([int(_found(r"(\d+)$", name)) % 2 == 1 for name in pictures.lesion.tolist()])
    true = lesion[pairs.first] == lesion[pairs.second]
    fit = ~odd[pairs.first] & ~odd[pairs.second]
    model = LogisticRegression(C=10, max_iter=2000).fit(pairs.features[fit], true[fit])
    print(f"weights fitted on even lesions: {np.append(model.coef_, model.intercept_).round(2).tolist()}")
    score = pairs.features @ np.array(samelesion.WEIGHTS[:3]) + samelesion.WEIGHTS[3]
    for name, half in (("even", ~odd), ("odd", odd)):
        touching = half[pairs.first] | half[pairs.second]
        for least in (1.9, samelesion.SUSPECTED, 5.0):
            told = touching & (score >= least)
            seen = np.unique([pairs.first[told & true], pairs.second[told & true]])
            partnered = half & (count[lesion] > 1)
            print(
                f"  {name} lesions, log-odds from {least}: {told.sum()} pairs, precision {true[told].mean():.3f}; of "
                f"{partnered.sum()} pictures with a partner {np.isin(np.flatnonzero(partnered), seen).mean():.1%} found"
            )


def random_hashes(n: int, chance: np.random.Generator) -> Hashes:
    """Independent fair bits."""
    return chance.integers(0, 2**64, (n, 4), dtype=np.uint64)


def lesion_hashes(n: int, chance: np.random.Generator) -> Hashes:
    """Hashes of drawn smooth fields with a dark spot: bits as skewed and as correlated as in real pictures.

    Half of the pairs of real ones lie within 118 bits and 1 % within 70 (drawn: 116 and 59, so rather harder).
    """
    hashes = np.empty((n, 4), np.uint64)
    y, x = np.mgrid[-1:1:16j, -1:1:17j]
    for start in range(0, n, 20_000):
        m = min(20_000, n - start)
        field = gaussian_filter(chance.standard_normal((m, 16, 17)).astype(np.float32), (0, 2, 2))
        centre, radius = chance.normal(0, 0.2, (2, m, 1, 1)), chance.uniform(0.3, 0.8, (m, 1, 1))
        spot = 1 / (1 + np.exp(6 * (np.hypot(x - centre[0], y - centre[1]) - radius)))
        field = field / field.std() - chance.uniform(0.5, 4, (m, 1, 1)) * spot
        bits = (field[:, :, 1:] > field[:, :, :-1]).reshape(m, 256)
        hashes[start : start + m] = np.packbits(bits, axis=1).view(np.uint64)
    return hashes


def planted(hashes: Hashes, chance: np.random.Generator) -> NDArray[np.int64]:
    """Overwrites 1 % of the rows by copies of others, up to NEAR_RADIUS bits flipped: int64 (P, 2), the pairs."""
    n = len(hashes)
    originals, copies = chance.permutation(n)[: 2 * int(n * PLANTED)].reshape(2, -1)
    bits = np.unpackbits(hashes[originals].view(np.uint8), axis=1)
    for row in bits:
        row[chance.choice(256, chance.integers(0, NEAR_RADIUS + 1), replace=False)] ^= 1
    hashes[copies] = np.packbits(bits, axis=1).view(np.uint64)
    return np.stack([originals, copies], axis=1)


def brute_force_seconds(hashes: Hashes, rows: int) -> float:
    """Seconds to compare `rows` rows with all, by the same popcount in blocks."""
    start = time.perf_counter()
    for first in range(0, rows, 16):
        np.count_nonzero(distances(hashes[first : min(first + 16, rows), None], hashes[None]) <= NEAR_RADIUS)
    return time.perf_counter() - start


def search_drawn(draw: Callable[[int, np.random.Generator], Hashes], n: int) -> None:
    """One search in a process of its own, so that its memory is its own."""
    chance = np.random.default_rng(0)
    hashes = draw(n, chance)
    pairs_planted = planted(hashes, chance)
    before = _peak_mebibytes()
    start = time.perf_counter()
    pairs = near_pairs(hashes, radius=NEAR_RADIUS)
    seconds = time.perf_counter() - start
    group = groups_of(n, pairs.first, pairs.second)
    found = float((group[pairs_planted[:, 0]] == group[pairs_planted[:, 1]]).mean())
    print(
        f"{draw.__name__} {n:,}: {seconds:.1f} s, peak {_peak_mebibytes():.0f} MiB (before the search "
        f"{before:.0f}), {len(pairs):,} pairs, {found:.2%} of {len(pairs_planted):,} planted found"
    )
    rows = min(n, 64)
    print(f"  all pairs, extrapolated from {rows} rows: {brute_force_seconds(hashes, rows) / rows * n / 2:,.0f} s")


def _peak_mebibytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def search_real(pictures: Known) -> None:
    """The nine-class set with HAM10000: ours, all pairs, and CleanVision, and the share of known copies each finds."""
    start = time.perf_counter()
    pairs = near_pairs(pictures.hashes, radius=NEAR_RADIUS)
    seconds = time.perf_counter() - start
    n = len(pictures.files)
    group = groups_of(n, pairs.first, pairs.second)
    print(f"\n{n:,} real hashes: {seconds:.2f} s, {len(pairs):,} pairs, {copies_found(pictures, group)}")
    print(f"  all pairs: {brute_force_seconds(pictures.hashes, n) / 2:.2f} s (half of the square)")
    start = time.perf_counter()
    hashes_to_array([difference_hash(load(file).pixels) for file in pictures.files])
    print(f"  decoding and hashing, one process: {time.perf_counter() - start:.1f} s")
    clean_vision(pictures)


def copies_found(pictures: Known, group: NDArray[np.int64]) -> str:
    """Which of the known copies (one ISIC number in two sets) ended in one group."""
    where = {number: row for row, number in enumerate(pictures.number.tolist()) if pictures.source[row] == "ham10000"}
    rows = [row for row in np.flatnonzero(pictures.source == "isic9") if int(pictures.number[row]) in where]
    found = sum(group[row] == group[where[int(pictures.number[row])]] for row in rows)
    return f"{found} of {len(rows)} squashed copies found ({found / len(rows):.1%})"


def clean_vision(pictures: Known) -> None:
    """CleanVision's near-duplicates, one process, as it stands (perceptual hashes of 64 bits that are equal)."""
    from cleanvision import Imagelab

    row_of = {str(file.absolute()): row for row, file in enumerate(pictures.files)}
    start = time.perf_counter()
    lab: Any = Imagelab(filepaths=list(row_of))
    lab.find_issues({"near_duplicates": {}, "exact_duplicates": {}}, n_jobs=1, verbose=False)
    seconds = time.perf_counter() - start
    sets = [*lab.info["near_duplicates"]["sets"], *lab.info["exact_duplicates"]["sets"]]
    edges = [(row_of[str(one[0])], row_of[str(path)]) for one in sets for path in one[1:]]
    first, second = np.array(edges, np.int64).reshape(-1, 2).T
    group = groups_of(len(pictures.files), first, second)
    print(f"  CleanVision, decoding included: {seconds:.1f} s, {len(sets)} sets, {copies_found(pictures, group)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with isic9, ham10000 and isic2017")
    parser.add_argument("--calibrate", action="store_true", help="only print recall and precision by radius")
    parser.add_argument("--drawn", type=int, default=1_000_000, help="how many hashes to draw (default: %(default)s)")
    parser.add_argument("--same-lesion", action="store_true", help="only measure the search for one lesion's pictures")
    parser.add_argument("--quick", action="store_true", help="few hashes: whether it still runs")
    asked = parser.parse_args()
    if asked.quick:
        asked.drawn = 5_000
    if (asked.calibrate or asked.same_lesion) and asked.data is None:
        parser.error("--calibrate and --same-lesion need --data")
    pictures = None if asked.data is None else known(asked.data)
    if pictures is not None and asked.calibrate:
        calibrate(pictures)
        return
    if pictures is not None and asked.same_lesion:
        same_lesion(pictures.where(pictures.source == "ham10000"))
        return
    if pictures is not None:
        search_real(pictures.where(pictures.source != "isic2017"))
    spawn = multiprocessing.get_context("spawn")
    for draw in (random_hashes, lesion_hashes):
        for n in sorted({min(10_000, asked.drawn), asked.drawn}):
            process = spawn.Process(target=search_drawn, args=(draw, n))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{draw.__name__} {n:,} failed")


if __name__ == "__main__":
    main()

"""Evidence maps: how faithful each way of making them is, what it costs, and how long a search for similar cases takes.

Comes in: a bundle whose graph gives `evidence`, a folder of pictures that it was not trained on, and their lesion masks
if there are any. Goes out: for each way, the mean probability of the diagnosis called while the picture is hidden, or
shown, from the strongest evidence on, the share of the evidence inside the lesion, all with 95 % intervals over
pictures, and the runs of the graph that a map takes.
With --search N, instead: the seconds of one exact search among N drawn embeddings of 1,280 numbers; the bundle only
gives their index its name.

    python benchmarks/evidence.py runs/transfer/bundle pictures/ --masks masks/ --pictures 60
    python benchmarks/evidence.py runs/transfer/bundle --search 1000000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermalert.bundle.format import Bundle
from dermalert.intake.decode import load
from dermalert.intake.given import Given, given_at
from dermalert.intake.masks import load_mask, masks_in
from dermalert.judge.faithfulness import deletion, insertion, inside
from dermalert.judge.intervals import group_bootstrap
from dermalert.score import explain, similar
from dermalert.score.engine import Engine
from dermalert.stages.explaining import _middle

EMBEDDING = 1280


def by_graph(engine: Engine, picture: NDArray[np.uint8], called: int) -> NDArray[np.float32]:
    return explain.evidence(engine, picture[None], [called])[0]


def raw(engine: Engine, picture: NDArray[np.uint8], called: int) -> NDArray[np.float32]:
    return engine.run(picture[None], explain.EVIDENCE)[explain.EVIDENCE][..., called]


def by_hiding(engine: Engine, picture: NDArray[np.uint8], called: int) -> NDArray[np.float32]:
    return explain._occlusion(engine, picture[None], [called])[0]


def by_chance(_: Engine, picture: NDArray[np.uint8], __: int) -> NDArray[np.float32]:
    side = max(1, round(max(picture.shape[:2]) / 32))
    return np.random.default_rng(int(picture.sum())).standard_normal((1, side, side)).astype(np.float32)


def middle(engine: Engine, _: NDArray[np.uint8], __: int) -> NDArray[np.float32]:
    return _middle(engine.bundle.size)[None]


Way = Callable[[Engine, NDArray[np.uint8], int], NDArray[np.float32]]
WAYS: Mapping[str, tuple[Way, int]] = {
    "class activation against the others": (by_graph, 1),
    "class activation alone": (raw, 1),
    "occlusion": (by_hiding, explain.GRID**2 + 1),
    "a blob in the middle": (middle, 0),
    "chance": (by_chance, 0),
}


def judged(engine: Engine, files: list[Path], masks: Mapping[str, Path]) -> dict[str, NDArray[np.float64]]:
    """Deletion, insertion and share inside the mask, float64 (N, 3), of each way."""
    found: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    for number, file in enumerate(files):
        picture = load(file, size=engine.bundle.size).pixels
        called, cover = int(engine.probabilities(picture[None])[0].argmax()), explain.hidden(picture)

        def probability(several: NDArray[np.uint8], called: int = called) -> NDArray[np.float64]:
            return engine.probabilities(several)[:, called]

        lesion = load_mask(masks[file.stem], engine.bundle.size) if file.stem in masks else None
        for name, (way, _) in WAYS.items():
            coarse = way(engine, picture, called)
            whole = coarse.shape[1:] == picture.shape[:2]
            strength = (coarse if whole else explain.smoothed(coarse, engine.bundle.size))[0]
            within = np.nan if lesion is None else inside(np.maximum(strength, 0), lesion)
            ends = [judge(picture, strength, cover, probability) for judge in (deletion, insertion)]
            found[name].append([*ends, within])
        print(f"{number + 1} of {len(files)}", end="\r", file=sys.stderr)
    return {name: np.array(rows) for name, rows in found.items()}


def told(values: NDArray[np.float64]) -> str:
    """The mean and its interval over pictures."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "-"
    interval = group_bootstrap(lambda w: w @ known / w.sum(axis=-1), np.arange(len(known)))
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def search(bundle: Bundle, count: int) -> None:
    """Writes an index of drawn embeddings and asks it once, from a disk whose cache may be warm."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        index = similar.Index(Path(name), bundle)
        for start in range(0, count, similar.BLOCK):
            rows = min(similar.BLOCK, count - start)
            drawn = random.standard_normal((rows, EMBEDDING), dtype=np.float32)
            drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
            index.add([number.to_bytes(32, "big") for number in range(start, start + rows)], drawn)
        size = sum(file.stat().st_size for file in Path(name).rglob("*.parquet"))
        begin = time.perf_counter()
        found = similar.nearest(drawn[0], index.blocks(), among=index.known, k=5)
        print(f"{count:,} embeddings, {size / 1e9:.2f} GB: {time.perf_counter() - begin:.1f} s a search")
        assert found[0].similarity > 0.99


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="default: the model that ships")
    parser.add_argument("pictures_at", type=Path, nargs="?")
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--search", type=int)
    parser.add_argument("--quick", action="store_true", help="a search among few: whether it still runs")
    asked = parser.parse_args()
    bundle = Bundle.load(asked.bundle) if asked.bundle else Bundle.shipped()
    if asked.quick:
        asked.search = 1000
    if asked.search:
        search(bundle, asked.search)
        return
    if asked.pictures_at is None:
        parser.error("name a folder of pictures that the bundle was not trained on")
    files = [each.path for each in given_at([asked.pictures_at]) if isinstance(each, Given) and each.path]
    chosen = np.random.default_rng(0).permutation(len(files))[: asked.pictures]
    engine = Engine(bundle)
    found = judged(engine, [files[i] for i in chosen], masks_in(asked.masks) if asked.masks else {})
    print(f"{len(chosen)} pictures at {engine.bundle.size[0]}×{engine.bundle.size[1]} px")
    print("| way | hidden (lower is better) | shown (higher is better) | inside the lesion | runs of the graph |")
    print("|---|---|---|---|---:|")
    for name, rows in found.items():
        print(f"| {name} | {' | '.join(told(column) for column in rows.T)} | {WAYS[name][1]} |")


if __name__ == "__main__":
    main()

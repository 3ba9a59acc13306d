"""How small a JPEG may be decoded: what it costs, and how far scores move from those of the whole picture.

    python benchmarks/draft.py                 drawn pictures
    python benchmarks/draft.py --data folder/  real ones, enlarged to each size, with the noise of a sensor

A JPEG's decoder can give a half, a quarter or an eighth of a picture for less work. The smallest of these that has at
least so many times the side that the network takes is decoded and scaled down; 2 is what `intake.decode` does. Comes
out, in a section of docs/performance.md: milliseconds a picture, and beside decoding all of it, the largest change of
a logit, how much of the measured sharpness is left, and how many alerts change.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalert.bundle.format import Bundle
from dermalert.drawn import draw_many
from dermalert.score.engine import Engine
from dermalert.score.gate import measure_quality
from dermalert.taxonomy import MELANOMA
from section import measured_on, table, write_section

SIZES = ((640, 480), (1024, 768), (3000, 2250))
TIMES = (0, 2, 1)  # 0: all of it
NOISE = 4.0  # standard deviation, of 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--count", type=int, default=48, help="pictures of each size")
    parser.add_argument("--quick", action="store_true", help="two pictures, and nothing is written")
    asked = parser.parse_args()
    count, sizes = (2, SIZES[:1]) if asked.quick else (asked.count, SIZES)
    bundle = Bundle.shipped()
    engine = Engine(bundle)
    rows = [row for size in sizes for row in compared(engine, jpegs(asked.data, count, size))]
    head = ["decoded", "as", "ms a picture", "largest change of a logit", "sharpness", "alerts that change"]
    kind = "drawn" if asked.data is None else "real, enlarged"
    text = f"{count} JPEGs ({kind}) of each size.\n\n{table(head, rows)}"
    print(text)
    if not asked.quick:
        given = "" if asked.data is None else f" --data {asked.data.parent.name}/{asked.data.name}"
        how = f"`python benchmarks/draft.py{given}`. {measured_on('pillow', 'onnxruntime')}"
        write_section("draft", f"## Decoding a JPEG at a fraction\n\n{how} {text}")


def jpegs(folder: Path | None, count: int, size: tuple[int, int]) -> list[bytes]:
    """The pictures of one size."""
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            return [file.read_bytes() for file in draw_many(Path(made) / "drawn", count=count, size=size)]
    random = np.random.default_rng(0)
    return [_enlarged(file, size, random) for file in sorted(folder.glob("*.jpg"))[:count]]


def _enlarged(file: Path, size: tuple[int, int], random: np.random.Generator) -> bytes:
    pixels = np.asarray(Image.open(file).convert("RGB").resize(size, Image.Resampling.LANCZOS), float)
    noisy = (pixels + random.normal(0, NOISE, pixels.shape)).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def compared(engine: Engine, pictures: Sequence[bytes]) -> list[list[str]]:
    """A row for each of `TIMES`."""
    bundle, rows = engine.bundle, []
    whole = logits = np.empty(0)
    point = bundle.operating_point
    if point is None:
        raise SystemExit("The bundle has no operating point.")
    for times in TIMES:
        taken, pixels, made = [], [], (0, 0)
        for data in pictures:
            start = time.process_time()
            one, made = shown(data, times, bundle.size)
            taken.append(1000 * (time.process_time() - start))
            pixels.append(one)
        logits = engine.logits(np.stack(pixels))
        refers = bundle.calibration.apply(logits)[:, bundle.classes.index(MELANOMA)] >= point.threshold
        sharp = np.array([measure_quality(one, *made).sharpness for one in pixels])
        if times == 0:
            whole, usual, sharpest = logits, refers, sharp
        rows.append(
            [
                f"{made[0]} × {made[1]}",
                f"{times} × the side" if times else "all of it",
                f"{median(taken):.2f}",
                f"{np.abs(logits - whole).max():.2f}",
                f"{np.mean(sharp / sharpest):.1%}",
                str(int((refers != usual).sum())),
            ]
        )
    return rows


def shown(data: bytes, times: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """What the network sees, and how large the picture was when it was scaled down to that."""
    picture = Image.open(io.BytesIO(data))
    if times:
        picture.draft(None, (times * size[0], times * size[1]))
    picture.load()
    scaled = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(scaled), picture.size


if __name__ == "__main__":
    main()

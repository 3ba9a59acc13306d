"""`dermalert explain`: pictures in, evidence maps out; and how far they can be believed, for the report."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dermalert.bundle.format import Bundle
from dermalert.bundle.shuffled import with_shuffled_weights
from dermalert.errors import DataError, MissingExtra, NotAPicture, RefusedFile, in_utf8, printable
from dermalert.intake.decode import EXTENSIONS, PictureInfo, decode, load, read_bytes
from dermalert.intake.given import Found, given_at
from dermalert.intake.manifest import Manifest
from dermalert.intake.masks import load_mask, masks_in
from dermalert.intake.split import group_numbers
from dermalert.judge.faithfulness import (
    EvidenceChecks,
    EvidenceFigures,
    deletion,
    insertion,
    inside,
    likeness,
    summarized,
)
from dermalert.page.overlay import evidence_png
from dermalert.page.page import percent
from dermalert.score.engine import Engine
from dermalert.score.explain import Explanation, evidence, explain, hidden, method_of, smoothed
from dermalert.stages.admission import refuse_strangers
from dermalert.taxonomy import label_of

EDGE = 1024  # pixels of the longer side that a picture is shown from
SAMPLE = 64  # pictures that the report's checks look at: some thousand runs of the graph


@dataclass(frozen=True)
class Explained:
    """One picture's map, written.

    Attributes:
        path: the picture.
        file: the PNG.
        explanation: what the map shows.
        size: (width, height) of the picture in pixels.
        inside: share of the evidence inside the mask; None without a mask, or where nothing speaks for the diagnosis.
        covered: share of the picture that the mask covers.
    """

    path: Path
    file: Path
    explanation: Explanation
    size: tuple[int, int]
    inside: float | None
    covered: float | None

    def words(self) -> str:
        """What the map shows, in a sentence or two: the PNG's text alternative too."""
        told = f"{self.explanation.diagnosis}: {percent(self.explanation.probability, 1)}"
        if self.explanation.peak is None:
            return f"{told}; no part of the picture speaks for it, and its probability is what the others leave"
        across, down = self.explanation.peak
        told += f"; most evidence at {percent(across)} of the width and {percent(down)} of the height"
        if self.inside is not None and self.covered is not None:
            told += f"; {percent(self.inside)} of it inside the mask, which covers {percent(self.covered)}"
        return told

    def to_json(self) -> dict[str, Any]:
        """One line of `--json`; `peak` in pixels of the picture, from its upper left corner."""
        peak = self.explanation.peak
        return {
            "path": in_utf8(str(self.path)),
            "map": in_utf8(str(self.file)),
            "diagnosis": self.explanation.diagnosis,
            "probability": self.explanation.probability,
            "method": self.explanation.method,
            "peak": peak and [round(share * side) for share, side in zip(peak, self.size, strict=True)],
            "inside_mask": self.inside,
            "mask_covers": self.covered,
        }


def run_explain(
    paths: Sequence[Path], bundle: Bundle, out: Path, *, diagnosis: str, mask: Path | None = None
) -> Iterator[Explained]:
    """Writes an evidence map for each picture at `paths`, and gives what it shows, as they come.

    Args:
        out: the PNG, for one picture; otherwise the folder of the PNGs, each named as its picture below the folder
            given, with `.png` at the end.
        diagnosis: a class of the model, or another word for it.
        mask: the lesion's mask, for one picture; or a folder of masks.

    Raises:
        DataError: nothing there, or not one picture could be explained; the model does not know the diagnosis; `out`
            is no PNG, or would replace a picture; a mask does not fit.
        BundleError: the bundle cannot be used.
    """
    asked = list(_asked(paths, out))
    masks = _masks(mask, [picture for picture, _ in asked])
    engine, word = Engine(bundle), label_of(diagnosis).name
    written = 0
    for picture, file in tqdm(asked, desc="explain", unit="picture"):
        try:
            one = _explained(engine, picture, file, word, masks.get(picture.stem))
        except RefusedFile as refusal:
            tqdm.write(str(refusal), file=sys.stderr)
            continue
        written += 1
        yield one
    if not written:
        raise DataError(f"Not one of {len(asked)} pictures could be explained; the lines above say why for each.")


def _asked(paths: Sequence[Path], out: Path) -> Iterator[tuple[Path, Path]]:
    """Each picture and the PNG to write for it."""
    missing = [path for path in paths if not path.exists() and not path.is_symlink()]
    if missing:
        raise DataError(f"{printable(str(missing[0]))}: there is no such file or folder.")
    found = [(path, picture) for path in paths for picture in map(_file_of, given_at([path]))]
    pictures = [(path, picture) for path, picture in found if isinstance(picture, Path)]
    for _, refusal in found:
        if isinstance(refusal, RefusedFile):
            tqdm.write(str(refusal), file=sys.stderr)
    if not pictures:
        raise DataError(f"{printable(', '.join(map(str, paths)))}: no pictures there.")
    alone = len(paths) == 1 and pictures[0][1] == paths[0]
    if alone and out.suffix.lower() != ".png":
        raise DataError(f"{printable(str(out))}: a map is written as PNG. Name a file that ends in .png.")
    if not alone and out.suffix.lower() in EXTENSIONS:
        raise DataError(f"{printable(str(out))}: several maps need a folder. Name one.")
    files = [out if alone else out / _name(picture, path) for path, picture in pictures]
    _refuse_clashes([picture for _, picture in pictures], files)
    for (_, picture), file in zip(pictures, files, strict=True):
        yield picture, file


def _file_of(found: Found) -> Path | RefusedFile:
    """The file of a picture: a map is named after it."""
    if isinstance(found, RefusedFile):
        return found
    return found.path or NotAPicture(
        found.name, "it is no file of its own", "Unpack or download it, and give the file."
    )


def _name(picture: Path, path: Path) -> Path:
    below = picture.relative_to(path) if path in picture.parents else Path(picture.name)
    return below.with_name(f"{below.name}.png")


def _refuse_clashes(pictures: Sequence[Path], files: Sequence[Path]) -> None:
    given = {os.path.realpath(picture) for picture in pictures}
    if over := next((file for file in files if os.path.realpath(file) in given), None):
        raise DataError(
            f"{printable(str(over))}: is the picture itself, and no picture is ever replaced. Name another."
        )
    if len(set(files)) < len(files):
        twice = next(file for file in files if files.count(file) > 1)
        raise DataError(
            f"{printable(str(twice))}: two of the pictures have this name. Explain them one after the other."
        )


def _masks(mask: Path | None, pictures: Sequence[Path]) -> Mapping[str, Path]:
    """Masks by the stem of their picture's name."""
    if mask is None:
        return {}
    if not mask.exists():
        raise DataError(f"{printable(str(mask))}: there is no such file or folder.")
    if mask.is_dir():
        return masks_in(mask)
    if len(pictures) > 1:
        raise DataError(f"{printable(str(mask))}: one mask for {len(pictures)} pictures. Give a folder of masks.")
    return {pictures[0].stem: mask}


def _explained(engine: Engine, picture: Path, file: Path, diagnosis: str, mask: Path | None) -> Explained:
    data = read_bytes(picture)
    seen = decode(data, path=picture, size=engine.bundle.size)
    refuse_strangers(engine, seen, picture)
    (found,) = explain(engine, seen.pixels[None], diagnosis)
    share = covered = None
    if mask is not None:
        lesion = load_mask(mask, engine.bundle.size)
        covered, within = float(lesion.mean()), inside(found.speaking_for, lesion)
        share = None if np.isnan(within) else within
    one = Explained(picture, file, found, (seen.info.width, seen.info.height), share, covered)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_bytes(
        evidence_png(
            decode(data, path=picture, size=_shown(seen.info)).pixels,
            found.speaking_for,
            heading=f"{found.diagnosis}: {percent(found.probability, 1)}",
            caption=f"What speaks for {found.diagnosis}" if found.peak else f"Nothing speaks for {found.diagnosis}",
            note=f"Calibrated probability by the model {engine.bundle.name!r}; map by {found.method}.",
            alt=f"A picture of skin beside its evidence map. {one.words()}.",
        )
    )
    part.replace(file)
    return one


def _shown(info: PictureInfo) -> tuple[int, int]:
    scale = min(1.0, EDGE / max(info.width, info.height))
    return max(1, round(info.width * scale)), max(1, round(info.height * scale))


def checked_evidence(
    engine: Engine,
    manifest: Manifest,
    *,
    masks: Mapping[str, Path] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> EvidenceFigures:
    """How far the maps of a manifest's pictures can be believed, on a sample of at most `SAMPLE` of them.

    The sample holds one picture a lesion, by chance that depends on `seed` alone; where there are masks, of those that
    have one.

    Args:
        masks: lesion masks, as `masks_in` finds them.

    Raises:
        DataError: none of the pictures can be read any more, or none has a mask among `masks`.
    """
    rows = _sampled(manifest, masks or {}, seed)
    if masks and not len(rows):
        raise DataError(f"None of the {len(masks)} masks is named like a picture of this set. Name another folder.")
    read = {int(row): one for row in rows if (one := _read(manifest, int(row), masks or {}, engine.bundle.size))}
    if not read:
        raise DataError(f"{manifest.root}: none of its pictures can be read any more.")
    try:
        shuffled, unchecked = Engine(with_shuffled_weights(engine.bundle, seed=seed)), ""
    except MissingExtra as error:
        shuffled, unchecked = None, str(error)
    return summarized(
        _checks(engine, shuffled, list(read.values()), seed),
        group_numbers(manifest)[list(read)],
        method=method_of(engine),
        unchecked=unchecked,
        resamples=resamples,
        seed=seed,
    )


Masked = tuple[NDArray[np.uint8], NDArray[np.bool_] | None]  # a picture, (H, W, 3), and its mask, (H, W), if it has one


def _read(manifest: Manifest, row: int, masks: Mapping[str, Path], size: tuple[int, int]) -> Masked | None:
    path = Path(manifest.table.column("path")[row].as_py())
    try:
        pixels = load(manifest.root / path, size=size).pixels
        return pixels, load_mask(masks[path.stem], size) if path.stem in masks else None
    except RefusedFile as refusal:
        tqdm.write(str(refusal), file=sys.stderr)
        return None


def _sampled(manifest: Manifest, masks: Mapping[str, Path], seed: int) -> NDArray[np.int64]:
    """The rows looked at, ascending."""
    has_mask = [not masks or Path(path).stem in masks for path in manifest.column("path")]
    shuffled = np.random.default_rng(seed).permutation(np.flatnonzero(has_mask))
    _, first = np.unique(group_numbers(manifest)[shuffled], return_index=True)
    return np.sort(shuffled[np.sort(first)][:SAMPLE])


def _checks(engine: Engine, shuffled: Engine | None, pictures: Sequence[Masked], seed: int) -> EvidenceChecks:
    random, middle, found = np.random.default_rng(seed), _middle(engine.bundle.size), []
    for picture, lesion in tqdm(pictures, desc="evidence", unit="picture"):
        called = int(engine.probabilities(picture[None])[0].argmax())
        real, _ = evidence(engine, picture[None], [called])
        noise = random.standard_normal(real.shape).astype(np.float32)
        rivals = [*smoothed(np.concatenate([real, noise]), engine.bundle.size), middle]
        cover = hidden(picture)

        def probability(several: NDArray[np.uint8], called: int = called) -> NDArray[np.float64]:
            return engine.probabilities(several)[:, called]

        within = [np.nan] * 3
        if lesion is not None:
            within = [inside(np.maximum(rivals[0], 0), lesion), float(lesion.mean()), inside(middle, lesion)]
        alike = np.nan
        if shuffled is not None:
            alike = likeness(real, evidence(shuffled, picture[None], [called])[0])
        found.append(
            [
                *(deletion(picture, rival, cover, probability) for rival in rivals),
                *(insertion(picture, rival, cover, probability) for rival in rivals),
                *within,
                alike,
            ]
        )
    return EvidenceChecks(*np.array(found, dtype=np.float64).T)


def _middle(size: tuple[int, int]) -> NDArray[np.float32]:
    """float32 (H, W): a blob in the middle, its deviation a quarter of each side."""
    across, down = (np.exp(-8 * ((np.arange(side) + 0.5) / side - 0.5) ** 2) for side in size)
    return np.outer(down, across).astype(np.float32)

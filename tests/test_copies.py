"""Copies among many pictures, by their hashes alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermalert.drawn import draw_lesion
from dermalert.intake import copies
from dermalert.intake.copies import WIDE_RADIUS, find_copies
from dermalert.intake.neighbours import NEAR_RADIUS


def test_copies_are_found_however_they_were_altered_and_what_is_no_picture_is_named(tmp_path: Path) -> None:
    originals = [draw_lesion("nevus", np.random.default_rng(n), width=240, height=180) for n in range(6)]
    changed = {
        "smaller": Image.fromarray(originals[0]).resize((120, 90)),
        "turned": Image.fromarray(np.rot90(originals[1])),
        "turned-back": Image.fromarray(np.rot90(originals[2], -1)),
        "mirrored": Image.fromarray(originals[3][:, ::-1]),
        "trimmed": Image.fromarray(originals[4][4:-4, 6:-6]),
    }
    for number, pixels in enumerate(originals):
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg", quality=92)
    for name, picture in changed.items():
        picture.save(tmp_path / f"{name}.jpg", quality=85)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    found = find_copies(sorted(tmp_path.iterdir()))
    names = [path.stem for path in found.paths]
    pairs = {
        frozenset((names[one], names[other])) for one, other in zip(found.pairs.first, found.pairs.second, strict=True)
    }
    assert pairs == {frozenset((str(number), name)) for number, name in enumerate(changed)}
    assert [Path(refusal.path).name for refusal in found.refused] == ["broken.jpg"]


def test_a_copy_with_the_light_from_one_side_is_found_by_a_second_look_unless_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(1)
    original = np.clip(draw_lesion("nevus", chance, width=240, height=180).astype(float) * 0.8 + 30, 0, 255)
    Image.fromarray(original.astype(np.uint8)).save(tmp_path / "one.jpg", quality=92)
    # A slope across the skin turns bits of the hash, and leaves the lesion's fine structure.
    tilted = original + np.linspace(-14, 14, 240)[None, :, None]
    Image.fromarray(np.clip(tilted, 0, 255).astype(np.uint8)).save(tmp_path / "other.jpg", quality=92)
    files = sorted(tmp_path.iterdir())
    found = find_copies(files)
    assert (len(found.pairs), found.looked_again) == (1, True)
    assert NEAR_RADIUS < found.pairs.distance[0] <= WIDE_RADIUS
    monkeypatch.setattr(copies, "AGAIN_UP_TO", 1)
    found = find_copies(files)
    assert (len(found.pairs), found.looked_again) == (0, False)


def test_no_pictures_have_no_copies() -> None:
    found = find_copies([])
    assert (len(found.paths), len(found.pairs), found.refused) == (0, 0, ())

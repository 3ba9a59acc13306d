"""Copies among many pictures, by their hashes alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dermalert.drawn import draw_lesion
from dermalert.intake.copies import find_copies


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


def test_no_pictures_have_no_copies() -> None:
    found = find_copies([])
    assert (len(found.paths), len(found.pairs), found.refused) == (0, 0, ())

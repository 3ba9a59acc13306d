"""The bundle: the folder that holds a trained model and all that is needed to score with it.

Comes in: a folder somebody sent. Goes out: a `Bundle`, or a `BundleError` that says what is wrong with it.
Files: `bundle.json` (this module's fields and each other file's SHA-256), `model.onnx` (pixels to logits) and
`card.md`. Nothing is unpickled. The hashes find damage, not forgery: who can change a file can change its hash.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from dermalert.errors import BundleError, DataError
from dermalert.judge.calibration import Temperature
from dermalert.judge.operating import OperatingPoint
from dermalert.taxonomy import MELANOMA, NAMES

FORMAT_VERSION = 1
MAX_BYTES = 2 << 30  # of the model; Protocol Buffers, which ONNX is written in, allow no more
MAX_TEXT = 4 << 20  # of the facts and the card
MAX_SIDE = 4096  # pixels
FACTS, MODEL, CARD = "bundle.json", "model.onnx", "card.md"
_FIT, _RANGE = "squash", [0, 255]


@dataclass(frozen=True)
class Bundle:
    """A model ready to score.

    Attributes:
        name: the recipe or release it comes from.
        classes: (C,) diagnoses, in the order of the model's logits.
        size: (width, height) in pixels that pictures are resized to; RGB float32 in [0, 255] goes in.
        temperature: divides the logits before the softmax, fitted on validation pictures.
        operating_point: the alert threshold on the melanoma probability; None where validation held too few
            melanomas to choose one, and then no alert can be given.
        data: the training data's fingerprint and counts.
        versions: of Dermalert and the libraries that trained and exported.
        model: the ONNX graph's bytes, float32 (N, height, width, 3) to logits (N, C).
        card: the model card, Markdown.
    """

    name: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    temperature: Temperature
    operating_point: OperatingPoint | None
    data: Mapping[str, Any]
    versions: Mapping[str, str]
    model: bytes
    card: str

    def save(self, folder: Path) -> None:
        """Writes the bundle; an older one of the same name is replaced once the new one is on the disk whole.

        A save that breaks off leaves the old bundle, or a mixture that no hash fits and `load` refuses.

        Raises:
            BundleError: a field has a value that `load` would refuse.
        """
        content = {MODEL: self.model, CARD: self.card.encode()}
        facts = {
            "format": FORMAT_VERSION,
            "name": self.name,
            "classes": list(self.classes),
            "preprocessing": {"width": self.size[0], "height": self.size[1], "fit": _FIT, "range": _RANGE},
            "temperature": self.temperature.value,
            "operating_point": self.operating_point.to_json() if self.operating_point else None,
            "data": dict(self.data),
            "versions": dict(self.versions),
            "files": {name: hashlib.sha256(part).hexdigest() for name, part in content.items()},
        }
        _fields(facts, folder / FACTS)
        content[FACTS] = (json.dumps(facts, indent=2, allow_nan=False) + "\n").encode()
        _write(folder, content)

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Reads a bundle and checks every file against its hash.

        Raises:
            BundleError: a file is missing, altered, too large or of a newer format, or a field makes no sense.
        """
        facts = _facts(folder / FACTS)
        files = facts.get("files")
        if not isinstance(files, dict) or set(files) != {MODEL, CARD}:
            raise BundleError(f"{folder / FACTS}: must list exactly {MODEL} and {CARD}. Export the bundle again.")
        fields = _fields(facts, folder / FACTS)
        card = _checked(folder / CARD, files[CARD], MAX_TEXT).decode(errors="replace")
        return cls(**fields, model=_checked(folder / MODEL, files[MODEL], MAX_BYTES), card=card)


def _write(folder: Path, content: Mapping[str, bytes]) -> None:
    """Writes all files aside, then gives them their names, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: folder / f"{name}.part" for name in content}
    try:
        for name, part in parts.items():
            with part.open("wb") as stream:
                stream.write(content[name])
                stream.flush()
                os.fsync(stream.fileno())
        for name, part in parts.items():
            part.replace(folder / name)
    except OSError:
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise


def _facts(file: Path) -> dict[str, Any]:
    try:
        facts = json.loads(_read(file, MAX_TEXT), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise BundleError(f"{file}: not readable as JSON. Copy the bundle again.") from None
    found = facts.get("format") if isinstance(facts, dict) else None
    if not isinstance(facts, dict) or found != FORMAT_VERSION:
        raise BundleError(f"{file}: bundle format {found}; this Dermalert reads {FORMAT_VERSION}. Update Dermalert.")
    return facts


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _fields(facts: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The attributes that the facts hold, each checked: a threshold of NaN would never alert, and nobody would see."""
    try:
        classes = _classes(facts["classes"])
        return {
            "name": _of_kind(facts["name"], str, "name"),
            "classes": classes,
            "size": _size(facts["preprocessing"]),
            "temperature": Temperature(_number(facts["temperature"], lambda t: 0 < t < math.inf, "temperature")),
            "operating_point": _operating_point(facts["operating_point"], classes),
            "data": _of_kind(facts["data"], dict, "data"),
            "versions": {
                library: _of_kind(version, str, f"version of {library}")
                for library, version in _of_kind(facts["versions"], dict, "versions").items()
            },
        }
    except (DataError, KeyError, TypeError, ValueError, OverflowError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise BundleError(f"{file}: a field is missing or wrong ({why}). Export it again.") from None


def _of_kind(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{what} is {value!r:.60}")
    return value


def _number(value: Any, fits: Callable[[float], bool], what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not fits(float(value)):
        raise ValueError(f"{what} is {value!r:.60}")
    return float(value)


def _classes(words: Any) -> tuple[str, ...]:
    if not isinstance(words, list) or len(words) < 2 or len(set(map(str, words))) < len(words):
        raise ValueError(f"classes are {words!r:.200}")
    if unknown := [word for word in words if word not in NAMES]:
        raise ValueError(f"class {unknown[0]!r:.60} is no diagnosis known here")
    return tuple(words)


def _size(shape: Any) -> tuple[int, int]:
    if (shape["fit"], shape["range"]) != (_FIT, _RANGE):
        raise ValueError("preprocessing other than squashing, or to another range than 0 to 255")
    for side in ("width", "height"):
        if type(shape[side]) is not int or not 1 <= shape[side] <= MAX_SIDE:
            raise ValueError(f"{side} is {shape[side]!r:.60}")
    return shape["width"], shape["height"]


def _operating_point(plain: Any, classes: tuple[str, ...]) -> OperatingPoint | None:
    if plain is None:
        return None
    point = OperatingPoint.from_json(plain)
    _number(plain["threshold"], lambda t: 0 <= t < 1, "threshold")
    _number(plain["target"], lambda t: 0 < t < 1, "target sensitivity")
    if MELANOMA not in classes:
        raise ValueError(f"a threshold on {MELANOMA}, which is none of the classes")
    return point


def _checked(file: Path, digest: object, limit: int) -> bytes:
    content = _read(file, limit)
    if hashlib.sha256(content).hexdigest() != digest:
        raise BundleError(f"{file}: its content is not what the bundle was saved with. Copy the bundle again.")
    return content


def _read(file: Path, limit: int) -> bytes:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device read for ever
            raise BundleError(f"{file}: is not a file. Copy the bundle again.")
        if status.st_size > limit:
            raise BundleError(f"{file}: {status.st_size} bytes; no bundle file is larger than {limit}.")
        return file.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{file}: cannot be read ({error.strerror}). A bundle is the folder `bundle/` of a training run."
        ) from None

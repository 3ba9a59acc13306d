"""The bundle: the folder that holds a trained model and all that is needed to score with it.

Comes in: a folder somebody sent. Goes out: a `Bundle`, or a `BundleError` that says what is wrong with it.
Files: `bundle.json` (this module's fields and each other file's SHA-256), `model.onnx` (pixels to logits and, where
the network has them, features and evidence), `card.md` and, of a model that has them, `gate.npz` and `reference.npz`.
Nothing is unpickled.
The hashes find damage, not forgery: who can change a file can change its hash.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from dermalert.bundle.gate import Gate
from dermalert.bundle.reference import Reference
from dermalert.errors import BundleError, DataError
from dermalert.judge.calibration import Calibration
from dermalert.judge.conformal import ConformalSets
from dermalert.judge.operating import OperatingPoint
from dermalert.taxonomy import MELANOMA, NAMES

FORMAT_VERSION = 2
MAX_BYTES = 2 << 30  # of the model; Protocol Buffers, which ONNX is written in, allow no more
MAX_TEXT = 4 << 20  # of the facts and the card
MAX_SIDE = 4096  # pixels
LEARNT_DIGITS = 12  # two pictures of a million share them with a chance of one in 500
SUMS_TO_ONE = 1e-6
UNTOLD = 1e-6  # share of a class below which the fit has turned it off: a single label of its own counts more
MAX_GATE = 64 << 20  # of the gate's arrays, and of the reference's, unpacked
FACTS, MODEL, CARD, GATE, REFERENCE = "bundle.json", "model.onnx", "card.md", "gate.npz", "reference.npz"
_FIT, _RANGE = "squash", [0, 255]
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A model ready to score.

    Attributes:
        name: the recipe or release it comes from.
        classes: (C,) diagnoses, in the order of the model's logits.
        size: (width, height) in pixels that pictures are resized to; RGB float32 in [0, 255] goes in.
        prepare: what the graph itself does to a picture before its network sees it, names of recipes'
            `PREPARATIONS`; nothing that whoever scores has to do.
        calibration: turns logits into probabilities, fitted on pictures that the model was not trained on.
        prevalence: each class's share of the pictures that calibration was fitted on.
        operating_points: alert thresholds on the melanoma probability, the default first; empty where there were too
            few melanomas to choose one, and then no alert can be given.
        conformal: the sets of diagnoses that a picture leaves open; None where none were fitted.
        gate: what is no picture to be judged; None where every picture is scored.
        reference: how scores, features and pictures are spread where nothing has changed; None where it is not known.
        licence: of the weights, as "CC BY-NC 4.0"; empty where whoever trained it states none.
        attribution: lines that the licence asks to be told with the weights.
        learnt: the beginnings, `LEARNT_DIGITS` hex digits, of the SHA-256 of pictures whose lesions it learnt from, so
            that nobody judges it by them; empty where they are not known one by one.
        data: the training data's fingerprint and counts.
        versions: of Dermalert and the libraries that trained and exported.
        model: the ONNX graph's bytes, float32 (N, height, width, 3) to logits (N, C) and what else `Engine` tells of.
        card: the model card, Markdown.
    """

    name: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    prepare: tuple[str, ...] = ()
    calibration: Calibration
    prevalence: Mapping[str, float]
    operating_points: tuple[OperatingPoint, ...] = ()
    conformal: ConformalSets | None = None
    gate: Gate | None = None
    reference: Reference | None = None
    licence: str = ""
    attribution: tuple[str, ...] = ()
    learnt: frozenset[str] = frozenset()
    data: Mapping[str, Any]
    versions: Mapping[str, str]
    model: bytes
    card: str

    @property
    def operating_point(self) -> OperatingPoint | None:
        """The default one; None where there is none."""
        return next(iter(self.operating_points), None)

    @property
    def untold(self) -> tuple[str, ...]:
        """Classes that it never names: no label that it was calibrated on meant one of them and nothing else.

        Only a bias a class can turn one off; without, a share of 0 says that there was no such picture to calibrate on.
        """
        biased = any(self.calibration.bias)
        return tuple(name for name in self.classes if biased and self.prevalence[name] < UNTOLD)

    def learnt_from(self, sha256: str) -> bool:
        """Whether it learnt from the lesion that a picture of this SHA-256 shows, as far as it is known."""
        return sha256[:LEARNT_DIGITS] in self.learnt

    def point(self, name: str) -> OperatingPoint:
        """The operating point of that name.

        Raises:
            BundleError: there is none; the message lists those there are.
        """
        for point in self.operating_points:
            if point.name == name:
                return point
        known = ", ".join(point.name for point in self.operating_points) or "none"
        raise BundleError(f"bundle {self.name!r} has no operating point {name!r}. It has: {known}.")

    @classmethod
    def shipped(cls) -> Bundle:
        """The bundle that comes with this package.

        Raises:
            BundleError: there is none.
        """
        with shipped_folder() as folder:
            return cls.load(folder)

    def save(self, folder: Path) -> None:
        """Writes the bundle; an older one of the same name is replaced once the new one is on the disk whole.

        A save that breaks off leaves the old bundle, or a mixture that no hash fits and `load` refuses.

        Raises:
            BundleError: a field has a value that `load` would refuse.
        """
        content = {MODEL: self.model, CARD: self.card.encode()}
        if self.gate:
            content[GATE] = _packed(self.gate.to_arrays())
        if self.reference:
            content[REFERENCE] = _packed(self.reference.to_arrays())
        facts = {
            "format": FORMAT_VERSION,
            "name": self.name,
            "licence": self.licence,
            "attribution": list(self.attribution),
            "classes": list(self.classes),
            "preprocessing": {
                "width": self.size[0],
                "height": self.size[1],
                "fit": _FIT,
                "range": _RANGE,
                "in_graph": list(self.prepare),
            },
            "calibration": {"temperature": self.calibration.temperature, "bias": list(self.calibration.bias)},
            "prevalence": dict(self.prevalence),
            "operating_points": [point.to_json() for point in self.operating_points],
            "conformal": self.conformal.to_json() if self.conformal else None,
            "learnt": sorted(self.learnt),
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
        digests = facts.get("files")
        if not isinstance(digests, dict) or set(digests) - {GATE, REFERENCE} != {MODEL, CARD}:
            raise BundleError(
                f"{folder / FACTS}: must list {MODEL} and {CARD}, and at most {GATE} and {REFERENCE} too. Export again."
            )
        fields = _fields(facts, folder / FACTS)
        card = _checked(folder / CARD, digests[CARD], MAX_TEXT).decode(errors="replace")
        gate = _arrays(folder / GATE, digests[GATE], Gate.from_arrays) if GATE in digests else None
        reference = None
        if REFERENCE in digests:
            reference = _arrays(folder / REFERENCE, digests[REFERENCE], Reference.from_arrays)
            if len(reference.diagnoses) != len(fields["classes"]):
                raise BundleError(f"{folder / REFERENCE}: is of other classes than the model. Copy the bundle again.")
        model = _checked(folder / MODEL, digests[MODEL], MAX_BYTES)
        return cls(**fields, gate=gate, reference=reference, model=model, card=card)


@contextmanager
def shipped_folder() -> Iterator[Path]:
    """The folder of the bundle that comes with this package.

    Raises:
        BundleError: there is none.
    """
    with as_file(files("dermalert.bundle") / "releases") as releases:
        found = sorted(releases.glob(f"*/{FACTS}"))
        if len(found) != 1:
            raise BundleError(
                f"{len(found)} models ship with this installation of Dermalert, not one. Name the bundle/ folder "
                "of a training run, or install Dermalert anew."
            )
        yield found[0].parent


def digest_of(folder: Path) -> str:
    """What names the content of a bundle's folder: the SHA-256 of its facts, which list those of its other files.

    Raises:
        BundleError: it can't be read.
    """
    return hashlib.sha256(_read(folder / FACTS, MAX_TEXT)).hexdigest()


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
        mend = "Train again, or export the bundle again." if found == 1 else "Update Dermalert."
        raise BundleError(f"{file}: bundle format {found}; this Dermalert reads {FORMAT_VERSION}. {mend}")
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
            "prepare": _prepare(facts["preprocessing"]),
            "licence": _of_kind(facts["licence"], str, "licence"),
            "attribution": tuple(
                _of_kind(line, str, "attribution") for line in _of_kind(facts["attribution"], list, "attribution")
            ),
            "calibration": _calibration(facts["calibration"], classes),
            "prevalence": _prevalence(facts["prevalence"], classes),
            "operating_points": _operating_points(facts["operating_points"], classes),
            "conformal": _conformal(facts["conformal"], classes),
            "learnt": _words(facts["learnt"]),
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


def _words(value: Any) -> frozenset[str]:
    return frozenset(_of_kind(each, str, "a learnt picture") for each in _of_kind(value, list, "learnt"))


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


def _prepare(shape: Any) -> tuple[str, ...]:
    """Bundles made before it was told tell nothing."""
    told = _of_kind(shape.get("in_graph", []), list, "what the graph does to pictures")
    return tuple(_of_kind(each, str, "what the graph does to pictures") for each in told)


def _calibration(plain: Any, classes: tuple[str, ...]) -> Calibration:
    temperature = _number(plain["temperature"], lambda t: 0 < t < math.inf, "temperature")
    bias = tuple(_number(each, math.isfinite, "bias") for each in _of_kind(plain["bias"], list, "bias"))
    if len(bias) != len(classes):
        raise ValueError(f"{len(bias)} biases for {len(classes)} classes")
    return Calibration(temperature, bias)


def _prevalence(plain: Any, classes: tuple[str, ...]) -> dict[str, float]:
    shares = _of_kind(plain, dict, "prevalence")
    if set(shares) != set(classes):
        raise ValueError("prevalence is not of the classes")
    found = {name: _number(shares[name], lambda share: 0 <= share <= 1, f"prevalence of {name}") for name in classes}
    _number(sum(found.values()), lambda whole: abs(whole - 1) < SUMS_TO_ONE, "the sum of the prevalences")
    return found


def _operating_points(plain: Any, classes: tuple[str, ...]) -> tuple[OperatingPoint, ...]:
    points = tuple(map(_operating_point, _of_kind(plain, list, "operating_points")))
    if points and MELANOMA not in classes:
        raise ValueError(f"a threshold on {MELANOMA}, which is none of the classes")
    if len({point.name for point in points}) < len(points):
        raise ValueError("two operating points of one name")
    return points


def _operating_point(plain: Any) -> OperatingPoint:
    point = OperatingPoint.from_json(plain)
    _number(plain["threshold"], lambda t: 0 <= t < 1, "threshold")
    if plain["target"] is not None:
        _number(plain["target"], lambda t: 0 < t < 1, "target sensitivity")
    return point


def _conformal(plain: Any, classes: tuple[str, ...]) -> ConformalSets | None:
    if plain is None:
        return None
    sets = ConformalSets.from_json(plain)
    if sorted(name for members in sets.categories.values() for name in members) != sorted(classes):
        raise ValueError("the conformal categories are not made of the classes")
    return sets


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The arrays as an .npz, the same bytes for the same arrays."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def _arrays(file: Path, digest: object, read: Callable[[dict[str, NDArray[Any]]], _T]) -> _T:
    """What `read` makes of an .npz file's arrays."""
    content = _checked(file, digest, MAX_GATE)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            unpacked = sum(each.file_size for each in packed.infolist())
        if unpacked > MAX_GATE:  # the archive says so before anything is unpacked
            raise ValueError(f"{unpacked} bytes unpacked")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return read(dict(arrays))
    except (DataError, KeyError, TypeError, ValueError, EOFError, OverflowError, zipfile.BadZipFile) as error:
        raise BundleError(f"{file}: is no {file.stem} ({error}). Copy the bundle again.") from None


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

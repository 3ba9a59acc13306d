"""The bundle: the folder that holds a trained model and all that is needed to score with it.

Comes in: a folder somebody sent. Goes out: a `Bundle`, or a `BundleError` that says what is wrong with it.
Files: `bundle.json` (this module's fields and each other file's SHA-256), `model.onnx` (pixels to logits) and
`card.md`. Nothing is unpickled. The hashes find damage, not forgery: who can change a file can change its hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermalert.errors import BundleError, DataError
from dermalert.judge.calibration import Temperature
from dermalert.judge.operating import OperatingPoint

FORMAT_VERSION = 1
MAX_BYTES = 2 << 30
FACTS, MODEL, CARD = "bundle.json", "model.onnx", "card.md"


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
        """Writes the bundle; an older one of the same name is replaced."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {MODEL: self.model, CARD: self.card.encode()}
        for name, content in files.items():
            (folder / name).write_bytes(content)
        facts = {
            "format": FORMAT_VERSION,
            "name": self.name,
            "classes": list(self.classes),
            "preprocessing": {"width": self.size[0], "height": self.size[1], "fit": "squash", "range": [0, 255]},
            "temperature": self.temperature.value,
            "operating_point": self.operating_point.to_json() if self.operating_point else None,
            "data": dict(self.data),
            "versions": dict(self.versions),
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        (folder / FACTS).write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Reads a bundle and checks every file against its hash.

        Raises:
            BundleError: a file is missing, altered, too large or of a newer format.
        """
        facts = _facts(folder)
        files = facts.get("files")
        if not isinstance(files, dict) or set(files) != {MODEL, CARD}:
            raise BundleError(f"{folder / FACTS}: must list exactly {MODEL} and {CARD}. Export the bundle again.")
        content = {name: _checked(folder / name, digest) for name, digest in files.items()}
        try:
            point = facts["operating_point"]
            shape = facts["preprocessing"]
            return cls(
                name=str(facts["name"]),
                classes=tuple(str(word) for word in facts["classes"]),
                size=(int(shape["width"]), int(shape["height"])),
                temperature=Temperature(float(facts["temperature"])),
                operating_point=None if point is None else OperatingPoint.from_json(point),
                data=dict(facts["data"]),
                versions=dict(facts["versions"]),
                model=content[MODEL],
                card=content[CARD].decode(),
            )
        except (DataError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{folder / FACTS}: a field is missing or wrong ({error}). Export it again.") from None


def _facts(folder: Path) -> dict[str, Any]:
    file = folder / FACTS
    try:
        facts = json.loads(_read(file))
    except ValueError:
        raise BundleError(f"{file}: not readable as JSON. Copy the bundle again.") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT_VERSION:
        found = facts.get("format") if isinstance(facts, dict) else None
        raise BundleError(f"{file}: bundle format {found}; this Dermalert reads {FORMAT_VERSION}. Update Dermalert.")
    return facts


def _checked(file: Path, digest: object) -> bytes:
    content = _read(file)
    if hashlib.sha256(content).hexdigest() != digest:
        raise BundleError(f"{file}: its content is not what the bundle was saved with. Copy the bundle again.")
    return content


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise BundleError(f"{file}: {file.stat().st_size} bytes; no bundle file is larger than {MAX_BYTES}.")
        return file.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{file}: cannot be read ({error.strerror}). A bundle is the folder `bundle/` of a training run."
        ) from None

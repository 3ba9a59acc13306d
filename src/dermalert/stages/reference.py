"""What is usual for a model: its reference, from pictures that it was not fitted on.

Comes in: a bundle and the paths of such pictures. Goes out: a `Reference` that travels with the bundle. Every picture
is measured as the clinic measures the ones it scores, those that the gate refuses included: they too are usual.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermalert.bundle.format import Bundle
from dermalert.bundle.reference import MEASURES, Reference
from dermalert.intake.decode import Picture, load
from dermalert.intake.overlap import in_order
from dermalert.score.batch import BATCH, Finding, Judge, judged
from dermalert.score.engine import Engine
from dermalert.score.gate import FEATURES, Quality, measure_quality

_EMBEDDING = "embedding"


def reference_of(bundle: Bundle, paths: Sequence[Path], *, workers: int | None = None) -> Reference:
    """How scores, features and pictures are spread in `paths`, of which there is one at least.

    Raises:
        RefusedFile: a picture cannot be used.
        BundleError: the bundle's graph cannot be used.
    """
    engine, judge = Engine(bundle), Judge(bundle, bundle.operating_point)
    findings: list[Finding] = []
    qualities: list[Quality] = []
    embeddings: list[NDArray[np.float32]] = []
    loaded = in_order(partial(load, size=bundle.size), paths, workers)
    for pictures in _batches(loaded):
        measured = [measure_quality(each.pixels, each.info.width, each.info.height) for each in pictures]
        wanted = {"logits", *(FEATURES if bundle.gate else ()), *((_EMBEDDING,) if engine.has(_EMBEDDING) else ())}
        found = engine.run(np.stack([each.pixels for each in pictures]), *sorted(wanted))
        findings += judged(judge, found, measured)
        qualities += measured
        embeddings.append(found.get(_EMBEDDING, np.zeros((len(pictures), 0), np.float32)))
    values = {
        name: np.array([_measure(name, *pair) for pair in zip(findings, qualities, strict=True)]) for name in MEASURES
    }
    likeliest = [each.diagnosis for each in findings if each.diagnosis is not None]
    return Reference.of(values, np.concatenate(embeddings), likeliest, bundle.classes)


def _batches(loaded: Iterator[Picture]) -> Iterator[list[Picture]]:
    while batch := list(islice(loaded, BATCH)):
        yield batch


def _measure(name: str, finding: Finding, quality: Quality) -> float:
    """NaN where the finding has none."""
    value = getattr(finding if name in _OF_THE_FINDING else quality, "light" if name == "brightness" else name)
    return np.nan if value is None else float(value)


_OF_THE_FINDING = ("melanoma", "malignant", "ood", "quality")

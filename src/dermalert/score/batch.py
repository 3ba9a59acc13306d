"""Scoring many pictures: a stream of them in, a stream of `Finding` out, one each, in order, whatever the file was.

Two sets of threads, one a core each: the first reads, decodes and scales, the second takes batches through the graph,
the gate and the calibration. Both release the interpreter's lock where they compute, so that every core is at work on
one or the other. What runs ahead is bounded: memory is the same for a hundred pictures and a million. A picture's
figures depend neither on the threads nor on what else is in its batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dermalert.bundle.format import Bundle
from dermalert.errors import RefusedFile
from dermalert.intake.decode import DEFAULT_LIMITS, Limits, Picture
from dermalert.intake.given import Found, load_given
from dermalert.intake.overlap import cores, in_order
from dermalert.judge.calibration import at_prevalence
from dermalert.judge.operating import OperatingPoint
from dermalert.score import gate
from dermalert.score.engine import Engine
from dermalert.taxonomy import MALIGNANT, MELANOMA

BATCH = 8  # more gains nothing on a core, and takes memory

Loaded: TypeAlias = tuple[str, Picture | RefusedFile]


@dataclass(frozen=True)
class Finding:
    """What the model says of one picture.

    Attributes:
        path: the file, as given.
        status: "scored", "rejected" where the gate refused it, or "error" where the file could not be used.
        probabilities: (C,) calibrated, in the order of the bundle's classes, and adjusted to the prevalence where one
            was given; empty where not scored.
        melanoma: calibrated probability of melanoma; None where not scored.
        malignant: summed over the malignant diagnoses.
        alert: "refer", or "none" below the operating point; None where not scored or no point could be chosen. A
            prevalence changes no alert: the threshold is one on the probability as calibrated.
        diagnosis: the likeliest class.
        message: why it was not scored; of a scored picture, what the gate warns of.
        possible: the conformal set, likeliest first: the categories left open; no prevalence changes it.
            Empty where not scored, or where the bundle has none.
        ood: how unlike dermoscopic pictures it is, rejected from 1.0; None where the bundle has no gate.
        quality: 0, rejected, to 1, nothing to complain of; likewise.
    """

    path: str
    status: str
    probabilities: tuple[float, ...] = ()
    melanoma: float | None = None
    malignant: float | None = None
    alert: str | None = None
    diagnosis: str | None = None
    message: str = ""
    possible: tuple[str, ...] = ()
    ood: float | None = None
    quality: float | None = None


def score(
    given: Iterable[Found],
    bundle: Bundle,
    *,
    workers: int | None = None,
    batch: int = BATCH,
    limits: Limits = DEFAULT_LIMITS,
    point: str | None = None,
    prevalence: float | None = None,
) -> Iterator[Finding]:
    """One finding a picture, in order. A file that cannot be used gives an error finding and costs nothing else.

    Args:
        given: as `intake.given.given_at` finds it; what is refused already gives an error finding, too.
        workers: threads that read and decode; by default one a core. As many run the graph, one a core at most.
        batch: pictures that the graph is given at once.
        point: the name of the bundle's operating point that decides on alerts; by default its first.
        prevalence: the share of melanomas among the lesions there; by default the probabilities are as calibrated.

    Raises:
        BundleError: the bundle's graph cannot be used, or it has no such point.
        DataError: the probabilities cannot be adjusted to the prevalence.
    """
    judge = Judge(bundle, bundle.operating_point if point is None else bundle.point(point), prevalence)
    engine = Engine(bundle, threads=1)  # one run stays on one core, beside the runs for other batches
    readers = workers or cores()
    loaded = in_order(partial(load_found, size=bundle.size, limits=limits), given, readers)
    found = in_order(partial(findings_of, engine, judge), _batches(loaded, batch), min(readers, cores()))
    return (finding for several in found for finding in several)


def load_found(found: Found, size: tuple[int, int], limits: Limits = DEFAULT_LIMITS) -> Loaded:
    """The name of what was found, and its picture at `size`, (width, height), or why there is none."""
    if isinstance(found, RefusedFile):
        return found.path, found
    try:
        return found.name, load_given(found, size, limits)
    except RefusedFile as refusal:
        return found.name, refusal


def _batches(loaded: Iterator[Loaded], size: int) -> Iterator[list[Loaded]]:
    while several := list(islice(loaded, size)):
        yield several


def findings_of(engine: Engine, judge: Judge, loaded: Sequence[Loaded]) -> list[Finding]:
    """A finding for each of a batch, in order: what every way of scoring many pictures runs, here or on a cluster.

    Args:
        loaded: the name of each, and its picture at the bundle's size or why there is none.

    Raises:
        BundleError: the graph gives what is no number, or the gate is another model's.
    """
    judgements = iter(_judged(engine, judge, [picture for _, picture in loaded if isinstance(picture, Picture)]))
    return [
        Finding(name, "error", message=f"{picture.reason}. {picture.mend}")
        if isinstance(picture, RefusedFile)
        else replace(next(judgements), path=name)
        for name, picture in loaded
    ]


def _judged(engine: Engine, judge: Judge, pictures: list[Picture]) -> list[Finding]:
    """A finding for each picture, without its path: the graph is run once for the network and the gate."""
    if not pictures:
        return []
    wanted = gate.FEATURES if engine.bundle.gate else ()
    found = engine.run(np.stack([picture.pixels for picture in pictures]), "logits", *wanted)
    measured = pictures if wanted else []
    return judged(judge, found, [gate.measure_quality(p.pixels, p.info.width, p.info.height) for p in measured])


def judged(judge: Judge, found: Mapping[str, NDArray[np.float32]], qualities: Sequence[gate.Quality]) -> list[Finding]:
    """A finding for each row of a graph's outputs, without its path.

    Args:
        found: of `Engine.run`: the logits and, of a bundle with a gate, `gate.FEATURES`.
        qualities: of the same pictures; not looked at where the bundle has no gate.

    Raises:
        BundleError: the gate is another model's.
    """
    findings = judge.judge(found["logits"])
    if judge.bundle.gate is None:
        return findings
    return list(map(_gated, findings, gate.judge(judge.bundle.gate, found, qualities)))


def _gated(finding: Finding, verdict: gate.Verdict) -> Finding:
    if verdict.accepted:
        return replace(finding, ood=verdict.ood, quality=verdict.quality, message=verdict.flag)
    return Finding("", "rejected", message=verdict.reason, ood=verdict.ood, quality=verdict.quality)


@dataclass(frozen=True)
class Judge:
    """What is made of a network's logits: everything that a finding says of a picture that was scored.

    Attributes:
        point: decides on alerts; None: none is given.
        prevalence: of melanoma, that probabilities are adjusted to; None: as calibrated.
    """

    bundle: Bundle
    point: OperatingPoint | None
    prevalence: float | None = None

    def judge(self, logits: NDArray[np.float32]) -> list[Finding]:
        """A finding for each row of float32 (N, C), without its path."""
        bundle = self.bundle
        calibrated = bundle.calibration.apply(logits)
        shown = calibrated
        if self.prevalence is not None:
            shown = at_prevalence(calibrated, bundle.classes, melanoma=self.prevalence, reference=bundle.prevalence)
        sets = bundle.conformal.sets(calibrated, bundle.classes) if bundle.conformal else [()] * len(logits)
        return [self._finding(*each) for each in zip(calibrated, shown, sets, strict=True)]

    def _finding(
        self, calibrated: NDArray[np.float64], shown: NDArray[np.float64], possible: tuple[str, ...]
    ) -> Finding:
        named = dict(zip(self.bundle.classes, map(float, shown), strict=True))
        return Finding(
            "",
            "scored",
            tuple(named.values()),
            named.get(MELANOMA),
            sum(value for name, value in named.items() if name in MALIGNANT),
            self._alert(calibrated),
            max(named, key=named.__getitem__),
            possible=possible,
        )

    def _alert(self, calibrated: NDArray[np.float64]) -> str | None:
        if self.point is None:
            return None
        return "refer" if calibrated[self.bundle.classes.index(MELANOMA)] >= self.point.threshold else "none"

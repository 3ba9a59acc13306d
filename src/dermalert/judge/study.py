"""A study: several ways of training ("arms"), judged on the same pictures and compared with one of them.

Comes in: for each arm its trainings, with evaluations and scores by view, and what went wrong where one failed.
Goes out: a `Study`, and from it `compared`, every difference from the baseline and every spread over repeats.
It trains nothing, draws nothing (see `study_page`) and picks no winner on test pictures.

A view is one set of pictures under one set of labels: "validation", "test, raw", "test, clean". The views of a study
are those that its arms share. An arm may have views of its own, such as "validation, ham10000": they are shown with
that arm alone, and compared where the baseline was judged on the same pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dermalert.errors import DataError, RefusedFile
from dermalert.judge.compare import FIGURES, UNKNOWN, Difference, Spread, compare_all, spread, unlike
from dermalert.judge.evaluation import Evaluation
from dermalert.judge.scores import Scores

DONE, FAILED, SKIPPED = "done", "failed", "skipped"
STATES = (DONE, FAILED, SKIPPED)
VALIDATION, RAW_TEST, CLEAN_TEST = "validation", "test, raw", "test, clean"


@dataclass(frozen=True)
class Curves:
    """One training's figures by epoch, all of the same length; NaN where a loss was no number."""

    loss: Sequence[float]
    accuracy: Sequence[float]
    val_loss: Sequence[float]
    val_accuracy: Sequence[float]

    def __post_init__(self) -> None:
        lengths = {len(self.loss), len(self.accuracy), len(self.val_loss), len(self.val_accuracy)}
        if len(lengths) > 1:
            raise DataError(f"Curves of one training have one length; got {sorted(lengths)}.")


@dataclass(frozen=True)
class Cost:
    """What one training took.

    Attributes:
        seconds: of the whole training, with validation.
        images_per_second: training pictures in the training part of an epoch; NaN where unknown.
        parameters: of the network, trainable or not.
        peak_mib: the largest memory the process held, MiB; NaN where unknown.
        epochs: passes made.
        best_epoch: the one whose weights were kept, from 1; None where no loss was finite.
    """

    seconds: float
    images_per_second: float
    parameters: int
    peak_mib: float
    epochs: int
    best_epoch: int | None


@dataclass(frozen=True)
class ArmRun:
    """One training of an arm.

    Attributes:
        evaluations, scores: by view; the same views in both.
        verdict, sentences, suggestions: what the curves say in plain language.
    """

    seed: int
    evaluations: Mapping[str, Evaluation]
    scores: Mapping[str, Scores]
    cost: Cost
    curves: Curves
    verdict: str
    sentences: Sequence[str] = ()
    suggestions: Sequence[str] = ()


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: what the page calls it; no two arms share one.
        summary: what it does, in a few words.
        recipe_json: the whole recipe, as its run folder keeps it.
        changes: what differs from the baseline, in words; empty for the baseline itself.
        runs: its trainings, one for each seed; the first is the one that is compared. None unless done.
        state: `done`, `failed` or `skipped`.
        why: why it failed or was skipped, in a sentence.
        training_counts: by class, how many pictures an epoch learns from, after any balancing.
        adds_to: the arm that it adds one thing to, in a study that adds one thing at a time; else empty.
    """

    name: str
    summary: str
    recipe_json: str
    changes: Sequence[str] = ()
    runs: Sequence[ArmRun] = ()
    state: str = DONE
    why: str = ""
    training_counts: Mapping[str, int] = field(default_factory=dict)
    adds_to: str = ""

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise DataError(f"Arm {self.name!r}: state {self.state!r} is none of {', '.join(STATES)}.")
        if (self.state == DONE) != bool(self.runs):
            raise DataError(f"Arm {self.name!r} is {self.state} and has {len(self.runs)} trainings.")


@dataclass(frozen=True)
class LeakSide:
    """One way of setting validation pictures aside, and what a network trained so seems to be and is worth.

    Attributes:
        training, validation: pictures, copies and augmented versions counted.
        siblings: validation pictures with a copy, an augmented version or the same lesion among the training ones.
        evaluations: by view: "validation" as set aside in this way, and the test views, the same for both ways.
    """

    training: int
    validation: int
    siblings: int
    evaluations: Mapping[str, Evaluation]


@dataclass(frozen=True)
class Leak:
    """The same recipe twice: `honest` parts lesions first, `leaky` oversamples first and parts pictures then."""

    honest: LeakSide
    leaky: LeakSide


@dataclass(frozen=True)
class Study:
    """Everything that the page and `study.json` say.

    Attributes:
        name: of the data set, as its owner calls it.
        baseline: the arm that all others are compared with.
        arms: in the order in which they are shown.
        views: shared by the arms, in the order in which they are shown.
        class_counts: `class_counts[class][split]`, pictures before balancing; the same splits for every class.
        refused: files that could not be used.
        notes: sentences on the data or the trainings that the reader should know.
        seed, resamples, level: of the intervals.
    """

    name: str
    baseline: str
    arms: Sequence[Arm]
    views: Sequence[str]
    class_counts: Mapping[str, Mapping[str, int]]
    refused: Sequence[RefusedFile] = ()
    notes: Sequence[str] = ()
    leak: Leak | None = None
    seed: int = 0
    resamples: int = 1000
    level: float = 0.95

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise DataError(f"Two arms of a study share a name: {', '.join(names)}.")
        if self.baseline not in names:
            raise DataError(f"The baseline {self.baseline!r} is no arm; there are {', '.join(names) or 'none'}.")
        if not self.views:
            raise DataError("A study needs a view, a set of pictures that its arms are judged on.")

    @property
    def headline(self) -> str:
        """The view that the page shows first: the clean test, else validation, else the first."""
        preferred = (view for view in (CLEAN_TEST, VALIDATION) if view in self.views)
        return next(preferred, self.views[0])

    def done(self) -> list[Arm]:
        """The arms that were trained, in order."""
        return [arm for arm in self.arms if arm.state == DONE]

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)


@dataclass(frozen=True)
class Compared:
    """What follows from a study's values.

    Attributes:
        differences: by view, arm and figure: the first training minus the baseline's first training.
        incomparable: by view and arm, why there is no difference, in a sentence.
        spreads: by view, arm and figure, over the trainings of an arm that has several.
    """

    differences: Mapping[str, Mapping[str, Mapping[str, Difference]]]
    incomparable: Mapping[str, Mapping[str, str]]
    spreads: Mapping[str, Mapping[str, Mapping[str, Spread]]]

    def comparisons(self, view: str) -> int:
        """How many differences could be computed on a view."""
        arms = self.differences.get(view, {}).values()
        return sum(one.verdict != UNKNOWN for figures in arms for one in figures.values())


def compared(study: Study) -> Compared:
    """Every difference from the baseline, and every spread over repeats.

    Within a view all comparisons are allowed for together. Views of single arms come after the shared ones.
    """
    views = all_views(study)
    found = {view: _differences(study, view) for view in views}
    return Compared(
        differences={view: differences for view, (differences, _) in found.items()},
        incomparable={view: reasons for view, (_, reasons) in found.items()},
        spreads={view: _spreads(study, view) for view in views},
    )


def ablations(study: Study) -> list[Study]:
    """For each trained arm that others add one thing to: it and they as a study of their own, it the baseline."""
    bases = dict.fromkeys(arm.adds_to for arm in study.done())
    done = [arm for arm in study.arms if arm.state == DONE and arm.name in bases]
    return [
        replace(study, baseline=base.name, arms=[base, *(arm for arm in study.arms if arm.adds_to == base.name)])
        for base in done
    ]


def all_views(study: Study) -> list[str]:
    """The shared views, then those that single arms have, each once."""
    own = [view for arm in study.done() for view in arm.runs[0].evaluations]
    return list(dict.fromkeys([*study.views, *own]))


def chosen_on_validation(study: Study) -> Arm | None:
    """The arm with the highest melanoma AUC on validation, mean of its trainings: the choice that a user would make.

    Ties go to the earlier arm. None where nothing was judged on validation.
    """
    values = {
        arm.name: spread([_figure(run, VALIDATION, "melanoma_auc") for run in arm.runs]).mean for arm in study.done()
    }
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    return study.arm(max(known, key=lambda name: known[name])) if known else None


def _differences(study: Study, view: str) -> tuple[dict[str, dict[str, Difference]], dict[str, str]]:
    base = study.arm(study.baseline)
    theirs = base.runs[0].scores.get(view) if base.runs else None
    models: dict[str, Scores] = {}
    reasons: dict[str, str] = {}
    for arm in study.done():
        ours = arm.runs[0].scores.get(view)
        if arm.name == study.baseline or ours is None:
            continue
        why = _no_baseline(study, view) if theirs is None else unlike(ours, theirs)
        if why:
            reasons[arm.name] = why
        else:
            models[arm.name] = ours
    if theirs is None or not models:
        return {}, reasons
    made = compare_all(models, theirs, resamples=study.resamples, level=study.level, seed=study.seed)
    return made, reasons


def _no_baseline(study: Study, view: str) -> str:
    state = study.arm(study.baseline).state
    if state != DONE:
        return f"There is nothing to compare with: {study.baseline} {'was skipped' if state == SKIPPED else 'failed'}."
    return f"{study.baseline} was not judged on {view}."


def _spreads(study: Study, view: str) -> dict[str, dict[str, Spread]]:
    return {
        arm.name: {name: spread([_figure(run, view, name) for run in arm.runs]) for name in FIGURES}
        for arm in study.done()
        if len(arm.runs) > 1 and any(view in run.evaluations for run in arm.runs)
    }


def _figure(run: ArmRun, view: str, figure: str) -> float:
    return run.evaluations[view].figures[figure].value if view in run.evaluations else math.nan

"""Workers: they take cases from the queue, score them, and write what the model says.

Comes in: leased cases. Goes out: findings, each committed with its case's new status, or a reason to try again. A
worker may die between any two lines: what it had leased becomes due again, and what it had committed is not done twice.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dermalert.clinic import queue
from dermalert.clinic.decoder import Decoded, Decoder
from dermalert.clinic.files import Files
from dermalert.clinic.model import Model, ModelInUse
from dermalert.clinic.schema import Case, Finding, Status, now
from dermalert.clinic.settings import Settings
from dermalert.clinic.store import Store
from dermalert.errors import BundleError, ClinicError, DermalertError, NoRoom, RefusedFile
from dermalert.intake.decode import PictureInfo
from dermalert.score import batch
from dermalert.score.gate import FEATURES, Quality

_log = logging.getLogger(__name__)
_BATCH = 8  # cases a lease: the graph takes several at hardly the price of one, and none waits long for the others
_IDLE = 0.1  # seconds between looks into an empty queue
_PAUSE = 1.0  # seconds before another try, when the database or the disk is away
_EMBEDDING = "embedding"


@dataclass(frozen=True)
class Scored:
    """What became of a case that was decoded: the model's finding, what it keeps for drift, and the file's facts."""

    finding: batch.Finding
    embedding: bytes | None
    quality: Quality
    info: PictureInfo


Outcome = Scored | RefusedFile | ClinicError | BundleError | OSError


class Worker:
    """Scores cases in one thread, with a decoder process of its own."""

    def __init__(self, store: Store, files: Files, models: ModelInUse, settings: Settings) -> None:
        self._store, self._files, self._models = store, files, models
        self._lasting = timedelta(seconds=settings.lease_seconds)
        self._max_attempts = settings.max_attempts
        self._decoder = Decoder(settings.limits, settings.decode_memory)
        self.name = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(4)}"

    def run(self, stop: threading.Event) -> None:
        """Scores until told to stop; the cases at hand are finished first. Faults of the moment are waited for."""
        try:
            while not stop.is_set():
                stop.wait(self._one_step(stop))
        finally:
            self._decoder.close()

    def _one_step(self, stop: threading.Event) -> float:
        """Seconds to wait for the next."""
        try:
            return 0 if self.step(stop) else _IDLE
        except (SQLAlchemyError, DermalertError, OSError) as error:
            _log.warning("no scoring for the moment (%s)", type(error).__name__)
        except Exception:  # a worker that is gone scores nothing; what it had leased becomes due again
            _log.exception("a step failed")
        return _PAUSE

    def step(self, stop: threading.Event | None = None) -> int:
        """Scores what is due, at most a batch. Returns how many cases it took.

        Args:
            stop: gives up the waiting for a database that went away.
        """
        with self._store.reading() as session:
            if not queue.is_due(session, now()):
                return 0
        model = self._models.current()
        with self._store.session() as session:
            cases = queue.lease(
                session, self.name, now(), lasting=self._lasting, most=_BATCH, max_attempts=self._max_attempts
            )
        outcomes = self._outcomes(model, cases)

        def record(session: Session) -> None:
            for case, outcome in zip(cases, outcomes, strict=True):
                self._record(session, case, outcome, model)

        self._committed(record, stop or threading.Event())
        return len(cases)

    def _outcomes(self, model: Model, cases: Sequence[Case]) -> list[Outcome]:
        decoded = self._decoded(model, cases)
        whole = [each for each in decoded if isinstance(each, Decoded)]
        scored = iter(scored_of(model, whole))
        return [next(scored) if isinstance(each, Decoded) else each for each in decoded]

    def _decoded(self, model: Model, cases: Sequence[Case]) -> list[Decoded | RefusedFile | ClinicError | OSError]:
        found: list[Decoded | RefusedFile | ClinicError | OSError] = []
        renewed = time.monotonic()
        for case in cases:
            if time.monotonic() - renewed > self._lasting.total_seconds() / 4:
                renewed = time.monotonic()
                self._renew(cases)
            try:
                data = self._files.read(case.sha256)
                found.append(self._decoder.decode(data, model.bundle.size, f"case {case.id}"))
            except (RefusedFile, ClinicError, OSError) as error:
                found.append(error)
        return found

    def _renew(self, cases: Sequence[Case]) -> None:
        with self._store.session() as session:
            queue.renew(session, self.name, [case.id for case in cases], now() + self._lasting)

    def _record(self, session: Session, case: Case, outcome: Outcome, model: Model) -> None:
        at = now()
        if isinstance(outcome, RefusedFile):
            problem = f"{outcome.reason}. {outcome.mend}"
            queue.finish(session, self.name, case.id, Status.REFUSED, at, problem=problem)
        elif isinstance(outcome, Exception):
            _log.warning("case %s: attempt %d failed (%s)", case.id, case.attempts, type(outcome).__name__)
            queue.fail(session, self.name, case.id, str(outcome), at, max_attempts=self._max_attempts)
        else:
            refused = outcome.finding.status == "rejected"
            finished = queue.finish(
                session,
                self.name,
                case.id,
                Status.REFUSED if refused else Status.SCORED,
                at,
                finding=_row(outcome, model, at),
                problem=outcome.finding.message if refused else None,
            )
            if finished:
                info = outcome.info
                picture = finished.picture
                picture.width, picture.height, picture.format = info.width, info.height, info.format

    def _committed(self, record: Callable[[Session], None], stop: threading.Event) -> None:
        """Commits what was found, waiting for a database that is away: as long as the leases last, or until stopped.

        A commit whose answer was lost is no matter: cases that are finished are left alone the second time.
        """
        until = time.monotonic() + self._lasting.total_seconds()
        while True:
            try:
                with self._store.session() as session:
                    record(session)
                return
            except (SQLAlchemyError, NoRoom) as error:
                if stop.wait(_PAUSE) or time.monotonic() > until:
                    raise
                _log.warning("findings wait for the database (%s)", type(error).__name__)


def scored_of(model: Model, decoded: Sequence[Decoded]) -> list[Scored | BundleError]:
    """What the model says of pictures, as `score.batch` would; one that makes it fail costs the others nothing."""
    if not decoded:
        return []
    try:
        return list(_scored(model, decoded))
    except BundleError as error:
        return [error] if len(decoded) == 1 else [each for one in decoded for each in scored_of(model, [one])]


def _scored(model: Model, decoded: Sequence[Decoded]) -> list[Scored]:
    embeds = model.engine.has(_EMBEDDING)
    wanted = {"logits", *(FEATURES if model.bundle.gate else ()), *((_EMBEDDING,) if embeds else ())}
    found = model.engine.run(np.stack([each.picture.pixels for each in decoded]), *wanted)
    findings = batch.judged(model.judge, found, [each.quality for each in decoded])
    embeddings = [row.astype("<f2").tobytes() for row in found[_EMBEDDING]] if embeds else [None] * len(decoded)
    return [
        Scored(finding, embedding, each.quality, each.picture.info)
        for finding, embedding, each in zip(findings, embeddings, decoded, strict=True)
    ]


def _row(scored: Scored, model: Model, at: datetime) -> Finding:
    finding, quality = scored.finding, scored.quality
    names = model.bundle.classes if finding.probabilities else ()
    return Finding(
        bundle=model.bundle.name,
        bundle_digest=model.digest,
        probabilities=dict(zip(names, finding.probabilities, strict=True)),
        melanoma=finding.melanoma,
        malignant=finding.malignant,
        alert=finding.alert,
        diagnosis=finding.diagnosis,
        possible=list(finding.possible),
        ood=finding.ood,
        quality=finding.quality,
        message=finding.message,
        embedding=scored.embedding,
        brightness=quality.light,
        sharpness=quality.sharpness,
        contrast=quality.contrast,
        colour=quality.colour,
        scored_at=at,
    )


class Workers:
    """The scoring threads of one process."""

    def __init__(self, store: Store, files: Files, models: ModelInUse, settings: Settings) -> None:
        self._stop = threading.Event()
        workers = [Worker(store, files, models, settings) for _ in range(settings.workers)]
        self._threads = [
            threading.Thread(target=each.run, args=(self._stop,), name=f"scoring-{number}", daemon=True)
            for number, each in enumerate(workers)
        ]

    def start(self) -> None:
        """Starts them."""
        for thread in self._threads:
            thread.start()

    def alive(self) -> bool:
        """Whether all of them run."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Lets each finish the cases at hand, and waits for it."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

"""A clinic to look at: drawn lesions of patients who never were, scored, some of them decided.

Comes in: the settings of an empty clinic. Goes out: cases in it, brought and scored as any other. The pictures are
cartoons, and what a model says of them tells nothing about skin.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import NamedTuple

import numpy as np

from dermalert.clinic import queue, worklist
from dermalert.clinic.receiving import About, receive
from dermalert.clinic.schema import Case, Origin, now
from dermalert.clinic.service import Service
from dermalert.clinic.settings import Settings
from dermalert.clinic.worker import Workers
from dermalert.drawn import draw_lesion
from dermalert.page.thumbnails import rendition

WHO = "demo"
SIZE = (640, 480)
_LOOK = 0.05  # seconds between looks at the queue


class Sample(NamedTuple):
    """A picture to draw: what it shows, of whom, and how many hours ago it came."""

    diagnosis: str
    seed: int
    view: int
    hours: float
    about: About
    decision: str = ""


def _of(patient: str, lesion: str, site: str, age: int, sex: str) -> About:
    return About(patient=patient, lesion=lesion, site=site, age=age, sex=sex)


_BACK = _of("P-2041", "L1", "back", 61, "female")
SAMPLES = (
    Sample("melanoma", 1, 0, 3, _BACK),
    Sample("melanoma", 1, 1, 24 * 95, _BACK, "follow_up"),
    Sample("seborrheic keratosis", 11, 0, 5, _of("P-1187", "L3", "left forearm", 47, "male")),
    Sample("melanoma", 9, 0, 26, _of("P-0932", "L1", "abdomen", 34, "male")),
    Sample("melanoma", 10, 0, 7, _of("P-3300", "L2", "scalp", 72, "male")),
    Sample("vascular lesion", 9, 0, 1, _of("P-1187", "L4", "left thigh", 47, "male")),
    Sample("melanoma", 8, 0, 30, _of("P-0021", "L9", "right shoulder", 55, "female")),
    Sample("nevus", 6, 0, 2, _of("P-2041", "L2", "neck", 61, "female")),
    Sample("nevus", 0, 0, 4, _of("P-4410", "L1", "chest", 29, "female")),
    Sample("basal cell carcinoma", 4, 0, 49, _of("P-3871", "L1", "nose", 80, "male")),
    Sample("vascular lesion", 1, 0, 6, _of("P-3871", "L2", "lip", 80, "male")),
    Sample("nevus", 9, 0, 12, _of("P-5022", "L1", "left foot", 38, "female")),
    Sample("seborrheic keratosis", 0, 0, 51, _of("P-0932", "L2", "temple", 34, "male"), "no_action"),
    Sample("nevus", 7, 0, 53, _of("P-5022", "L2", "calf", 38, "female"), "no_action"),
    Sample("melanoma", 5, 0, 1.5, _of("P-6113", "L1", "heel", 50, "male")),  # which the gate refuses
)


def fill(settings: Settings) -> int:
    """Brings the samples into the clinic, scores them and decides on some. Returns how many there are."""
    service = Service.of(settings)
    settings.data.mkdir(parents=True, exist_ok=True)
    service.store.upgrade()
    cases = {sample: _received(service, sample) for sample in SAMPLES}
    workers = Workers(service.store, service.files, service.models, settings)
    workers.start()
    while _waiting(service):
        threading.Event().wait(_LOOK)
    workers.stop()
    for sample, case in cases.items():
        _aged(service, sample, case)
    service.store.close()
    return len(cases)


def _received(service: Service, sample: Sample) -> str:
    rng = np.random.default_rng(sample.seed)
    pixels = draw_lesion(sample.diagnosis, rng, width=SIZE[0], height=SIZE[1], view=sample.view)
    data = rendition(pixels, edge=max(SIZE))
    return receive(service.store, service.files, data, who=WHO, origin=Origin.UPLOAD, about=sample.about).case.id


def _waiting(service: Service) -> int:
    with service.store.reading() as session:
        return queue.backlog(session).waiting


def _aged(service: Service, sample: Sample, id_: str) -> None:
    """Lets the case have come some hours ago, and decides on it where the sample says so."""
    with service.store.session() as session:
        case = session.get_one(Case, id_)
        case.received_at = now() - timedelta(hours=sample.hours)
        case.scored_at = case.received_at + timedelta(seconds=1)
        if sample.decision:
            months = 3 if sample.decision == "follow_up" else None
            worklist.decide(session, WHO, id_, sample.decision, months)
            case.reviewed_at = case.received_at + timedelta(hours=1)
        if sample.decision == "follow_up":
            worklist.note(session, WHO, id_, "Flat, no change told of. Photograph it again in three months.")

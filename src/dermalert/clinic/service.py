"""What one running clinic is made of, handed to every route and background task.

Comes in: settings. Goes out: a `Service`: the database, the files and the memory of rates. It starts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from threading import BoundedSemaphore
from typing import Annotated, TypeAlias

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from dermalert.clinic.decoder import Decoder
from dermalert.clinic.drift import Drift, DriftWatch
from dermalert.clinic.files import Files
from dermalert.clinic.metering import ClinicCollector
from dermalert.clinic.model import ModelInUse
from dermalert.clinic.news import News
from dermalert.clinic.receiving import Bounds
from dermalert.clinic.references import References
from dermalert.clinic.renditions import Renditions
from dermalert.clinic.searches import Searches
from dermalert.clinic.settings import Settings
from dermalert.clinic.store import Store
from dermalert.clinic.throttle import Throttle


@dataclass(frozen=True)
class Service:
    """One running clinic.

    Attributes:
        sign_ins: tries to sign in, by address. uploads: requests that bring pictures, by user. exports: tables and
            reports, by user.
        models: the model that scores. renditions: what is shown of pictures. references: similar cases.
        news: whether cases have changed. searches: what readers look for.
        windows: of drift, as far as they were looked at.
        places: for uploads that are read at one moment; each may hold a picture in memory.
    """

    settings: Settings
    store: Store
    files: Files
    models: ModelInUse
    renditions: Renditions
    references: References
    news: News
    sign_ins: Throttle = field(default_factory=lambda: Throttle(20, per=60))
    uploads: Throttle = field(default_factory=lambda: Throttle(3000, per=60))
    exports: Throttle = field(default_factory=lambda: Throttle(30, per=60))
    searches: Searches = field(default_factory=Searches)
    windows: DriftWatch = field(default_factory=DriftWatch)
    places: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(16))

    @classmethod
    def of(cls, settings: Settings) -> Service:
        """The service that `settings` describe; nothing is opened or started yet."""
        store, files = Store(settings.db_url), Files(settings.data / "pictures")
        decoder = Decoder(settings.limits, settings.decode_memory)
        renditions = Renditions(settings.data / "renditions", files, decoder)
        models = ModelInUse(settings.bundle)
        references = References(settings.neighbours, settings.data / "references", models)
        return cls(settings, store, files, models, renditions, references, News(store))

    @cached_property
    def bounds(self) -> Bounds:
        """What is taken in."""
        return Bounds(self.settings.max_bytes, self.settings.max_files, self.settings.max_waiting)

    def drift(self, session: Session) -> Drift:
        """What can be said of drift of the model in use."""
        model = self.models.current()
        return self.windows.look(session, model.bundle, model.digest)

    @cached_property
    def collector(self) -> ClinicCollector:
        """What Prometheus is told."""
        return ClinicCollector(self.store, self.models.current, self.drift)


def service_of(request: Request) -> Service:
    """The service that this request came to."""
    service: Service = request.app.state.service
    return service


Here: TypeAlias = Annotated[Service, Depends(service_of)]

"""Similar reference cases: the pictures of a labelled collection that the model sees as most like a case.

Comes in: the folder, table or manifest that the settings name, and cases' embeddings. Goes out: `stages.similarity`'s
cases. The collection is read in the background when the service starts, and anew when another model scores; until that
is done nobody waits, and the page says so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dermalert.clinic.model import ModelInUse
from dermalert.clinic.schema import Case
from dermalert.errors import DermalertError
from dermalert.stages.similarity import Collection

_log = logging.getLogger(__name__)
SHOWN = 6  # cases
_EVERY = 5.0  # seconds between looks at which model scores


@dataclass(frozen=True)
class Similar:
    """A reference picture: its SHA-256, by which it is shown, what its owner calls it, and the cosine."""

    sha256: str
    label: str
    similarity: float


class References:
    """The reference collection of one service."""

    def __init__(self, among: Path | None, index: Path, models: ModelInUse) -> None:
        """
        Args:
            among: the collection; None: none is configured.
            index: the folder where features are kept.
        """
        self.among, self._index, self._models = among, index, models
        self._known: tuple[str, Collection] | None = None
        self.problem = ""

    def like(self, case: Case) -> list[Similar] | None:
        """The pictures most like the case's, the likest first; None where the collection is not read, or of no use.

        Of no use: the case has no embedding, or another model made it.
        """
        known, finding = self._known, case.finding
        if known is None or finding is None or finding.embedding is None or finding.bundle_digest != known[0]:
            return None
        query = np.frombuffer(finding.embedding, "<f2").astype(np.float32)
        query /= max(float(np.linalg.norm(query)), float(np.finfo(np.float32).tiny))
        found = known[1].nearest(query, SHOWN, but=bytes.fromhex(case.sha256))
        return [Similar(one.sha256.hex(), " or ".join(one.labels), one.similarity) for one in found]

    def file(self, sha256: str) -> Path | None:
        """The collection's picture of that hash; None where it has none."""
        try:
            paths = self._known[1].places.get(bytes.fromhex(sha256), []) if self._known else []
        except ValueError:
            return None
        return paths[0] if paths else None

    @contextmanager
    def kept_ready(self) -> Iterator[None]:
        """Reads the collection in the background, for as long as the service runs."""
        stop = threading.Event()
        thread = threading.Thread(target=self._read, args=(stop,), name="references", daemon=True)
        if self.among is not None:
            thread.start()
        try:
            yield
        finally:
            stop.set()  # not waited for: what is embedded by then is kept, and the rest is done next time

    def _read(self, stop: threading.Event) -> None:
        while not stop.wait(0 if self._known is None and not self.problem else _EVERY):
            try:
                model = self._models.current()
                if self.among and (self._known is None or self._known[0] != model.digest):
                    self._known = model.digest, Collection.read(self.among, model.engine, self._index, 1)
                    self.problem = ""
            except (DermalertError, OSError) as error:
                if not self.problem:
                    _log.warning("the reference collection cannot be read (%s)", type(error).__name__)
                self.problem = str(error)

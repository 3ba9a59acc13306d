"""The model in use: a bundle's folder, loaded, and loaded anew once another bundle lies there.

Comes in: a folder. Goes out: a `Model` that fits together: bundle, engine, judge and digest. A bundle that cannot be
loaded changes nothing: the one before stays in use, and `problem` says why.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from dermalert.bundle.format import FACTS, Bundle, digest_of, shipped_folder
from dermalert.errors import BundleError
from dermalert.score.batch import Judge
from dermalert.score.engine import Engine

_log = logging.getLogger(__name__)
_PAUSE = 1.0  # seconds between tries to load a bundle that is being copied
_Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Model:
    """A bundle ready to score, and the digest that findings name it by."""

    bundle: Bundle
    engine: Engine
    judge: Judge
    digest: str

    @classmethod
    def load(cls, folder: Path) -> Model:
        """Loads a bundle's folder.

        Raises:
            BundleError: as `Bundle.load` and `Engine`, or another bundle was put there meanwhile.
        """
        digest = digest_of(folder)
        bundle = Bundle.load(folder)
        if digest_of(folder) != digest:
            raise BundleError(f"{folder}: it was replaced while it was read.")
        return cls(bundle, Engine(bundle), Judge(bundle, bundle.operating_point), digest)


class ModelInUse:
    """The model of one service; shared by its threads."""

    def __init__(self, folder: Path | None) -> None:
        """
        Args:
            folder: of the bundle; None for the one that ships.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self._model: Model | None = None
        self._stamp: _Stamp | None = None
        self._next_try = 0.0
        self.problem: str | None = None

    def current(self) -> Model:
        """The model that lies in the folder now; the one before, while that cannot be loaded.

        Raises:
            BundleError: there was none before either.
        """
        with self._lock, self._place() as folder:
            stamp = _stamp(folder)
            if self._model is None or (stamp != self._stamp and time.monotonic() >= self._next_try):
                self._renew(folder, stamp)
            if self._model is None:
                raise BundleError(self.problem)
            return self._model

    def _place(self) -> AbstractContextManager[Path]:
        return nullcontext(self._folder) if self._folder else shipped_folder()

    def _renew(self, folder: Path, stamp: _Stamp | None) -> None:
        try:
            model = Model.load(folder)
        except BundleError as error:
            if self.problem is None:
                _log.warning("the bundle can't be loaded: %s", error)
            self.problem, self._next_try = str(error), time.monotonic() + _PAUSE
            return
        if self._model is None or model.digest != self._model.digest:
            _log.info("scoring with bundle %s, digest %s", model.bundle.name, model.digest)
            self._model = model
        self._stamp, self.problem = stamp, None


def _stamp(folder: Path) -> _Stamp | None:
    """What tells cheaply that the facts were replaced; None while they are not there."""
    try:
        status = (folder / FACTS).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino

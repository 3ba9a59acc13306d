"""The training framework, imported late, quietly, and on purpose.

Comes in: nothing. Goes out: the modules `keras` and `tensorflow`, ready for reproducible training.
Nothing else in `learn` imports them, so everything that does not train starts without them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from dermalert.errors import MissingExtra, RunError


class Backend(NamedTuple):
    """The two modules; `Any`, since neither ships complete types."""

    keras: Any
    tf: Any


@lru_cache(maxsize=1)
def backend() -> Backend:
    """Imports Keras on TensorFlow; seconds the first time, nothing later.

    Raises:
        MissingExtra: they are not installed.
        RunError: Keras already runs on another backend in this process.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _quiet_stderr():
            import keras
            import tensorflow as tf
    except ModuleNotFoundError:
        raise MissingExtra("Training", "train") from None
    if keras.backend.backend() != "tensorflow":
        raise RunError(
            f"Keras runs on {keras.backend.backend()} here; training needs TensorFlow. "
            "Unset KERAS_BACKEND and try again."
        )
    # Kernels whose sums depend on thread timing are replaced by fixed-order ones: what makes a resumed run
    # equal an unbroken one bit for bit. Its cost is in docs/decisions/0002-training-speed.md.
    tf.config.experimental.enable_op_determinism()
    return Backend(keras, tf)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    # TensorFlow's C++ side logs while it loads, before its own log level counts.
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)

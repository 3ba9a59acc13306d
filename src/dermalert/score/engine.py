"""The engine: pixels to calibrated probabilities through the bundle's ONNX graph.

Comes in: uint8 pictures at the bundle's size. Goes out: float64 probabilities. Decodes nothing, decides nothing.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dermalert.bundle.format import Bundle
from dermalert.errors import BundleError

_FATAL = 4  # ONNX Runtime's log level; what goes wrong is raised, and told once


class Engine:
    """A bundle's graph, loaded once and run often. One engine may be shared by threads."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """
        Args:
            threads: for one run of the graph; by default ONNX Runtime takes one a core.

        Raises:
            BundleError: the graph cannot be loaded, or takes or gives other shapes than the bundle says.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        # A graph may name files that hold its weights; ONNX Runtime would look for them in the current folder.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        if threads is not None:
            options.intra_op_num_threads = threads
        self.bundle = bundle
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.model, options, providers=["CPUExecutionProvider"], enable_fallback=False
            )
        except Exception as error:  # ONNX Runtime raises classes of its own for each fault
            raise BundleError(f"bundle {bundle.name!r}: its model cannot be loaded ({error}).") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        width, height = bundle.size
        fitting = [("tensor(float)", "N", height, width, 3), ("tensor(float)", "N", len(bundle.classes))]
        found = [_type_and_shape(node) for node in (*inputs, *outputs)]
        if len(inputs) != 1 or found != fitting:
            told = " and ".join(map(str, found))
            raise BundleError(f"bundle {bundle.name!r}: its model takes and gives {told}, not as its facts say.")
        self._input = inputs[0].name

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 (N, C) from uint8 (N, H, W, 3).

        Raises:
            BundleError: the model gives something that is no number.
        """
        (logits,) = self._session.run(None, {self._input: pixels.astype(np.float32)})
        if not np.isfinite(logits).all():
            raise BundleError(f"bundle {self.bundle.name!r}: for some picture its model gives what is no number.")
        return np.asarray(logits, dtype=np.float32)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """float64 (N, C), calibrated; rows sum to 1."""
        return self.bundle.calibration.apply(self.logits(pixels))


def _type_and_shape(node: Any) -> tuple[str | int, ...]:
    return (str(node.type), *(side if isinstance(side, int) else "N" for side in node.shape))

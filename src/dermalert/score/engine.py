"""The engine: pixels to calibrated probabilities through the bundle's ONNX graph.

Comes in: uint8 pictures at the bundle's size. Goes out: float64 probabilities. Decodes nothing, decides nothing.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dermalert.bundle.format import Bundle
from dermalert.errors import BundleError


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
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        self.bundle = bundle
        try:
            # From bytes, not from a path: a graph can then name no other file to be read.
            self._session = onnxruntime.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises classes of its own for each fault
            raise BundleError(f"bundle {bundle.name!r}: its model cannot be loaded ({error}).") from None
        (self._input,) = (node.name for node in self._session.get_inputs())
        width, height = bundle.size
        self._shape = (height, width, 3)
        found = tuple(self._session.get_inputs()[0].shape[1:]), self._session.get_outputs()[0].shape[-1]
        if found != (self._shape, len(bundle.classes)):
            raise BundleError(f"bundle {bundle.name!r}: its model maps {found[0]} to {found[1]}, not as its facts say.")

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 (N, C) from uint8 (N, H, W, 3)."""
        (logits,) = self._session.run(None, {self._input: pixels.astype(np.float32)})
        return np.asarray(logits, dtype=np.float32)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """float64 (N, C), calibrated by the bundle's temperature; rows sum to 1."""
        return self.bundle.temperature.apply(self.logits(pixels))

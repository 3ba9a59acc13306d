"""The engine: pixels to calibrated probabilities, features and evidence through the bundle's ONNX graph.

Comes in: uint8 pictures at the bundle's size. Goes out: float64 probabilities, or what else the graph gives.
Decodes nothing, decides nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dermalert.bundle.format import Bundle
from dermalert.errors import BundleError, ClusterError

# What a graph may give: the number of axes, and whether the last one is of the classes.
OUTPUTS = {"logits": (2, True), "embedding": (2, False), "evidence": (4, True), "texture": (2, False)}
_FATAL = 4  # ONNX Runtime's log level; what goes wrong is raised, and told once


class Engine:
    """A bundle's graph, loaded once and run often. One engine may be shared by threads."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None, gpu: bool = False) -> None:
        """
        Args:
            threads: for one run of the graph; by default ONNX Runtime takes one a core.
            gpu: whether it runs on the first GPU that this process sees, by CUDA.

        Raises:
            BundleError: the graph cannot be loaded, or takes or gives other shapes than the bundle says.
            ClusterError: a GPU is asked for, and cannot be used here.
        """
        provider = "CUDAExecutionProvider" if gpu else "CPUExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise ClusterError(
                "A GPU is asked for, and the ONNX Runtime of this machine knows none. Install onnxruntime-gpu there in "
                "place of onnxruntime, or score on the cores."
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        # A graph may name files that hold its weights; ONNX Runtime would look for them in the current folder.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        if threads is not None:
            options.intra_op_num_threads = threads
        self.bundle = bundle
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.model, options, providers=[provider], enable_fallback=False
            )
        except Exception as error:  # ONNX Runtime raises classes of its own for each fault
            raise BundleError(f"bundle {bundle.name!r}: its model cannot be loaded ({error}).") from None
        if provider not in self._session.get_providers():  # ONNX Runtime goes on without what it cannot load
            raise ClusterError("A GPU is asked for, and CUDA cannot be loaded on this machine. Check its driver.")
        self._outputs = {node.name: node for node in self._session.get_outputs()}
        inputs, (width, height) = self._session.get_inputs(), bundle.size
        if [_type_and_shape(node) for node in inputs] != [("tensor(float)", "N", height, width, 3)]:
            self._refuse(inputs)
        if not self.has("logits") or not all(map(self._fits, self._outputs.values())):
            self._refuse(self._outputs.values())
        self._input = inputs[0].name

    def has(self, name: str) -> bool:
        """Whether the graph gives an output of that name."""
        return name in self._outputs

    def run(self, pixels: NDArray[np.uint8], *names: str) -> dict[str, NDArray[np.float32]]:
        """The outputs asked for, float32, one row a picture; nothing else is computed twice for them.

        Args:
            pixels: uint8 (N, H, W, 3) at the bundle's size.
            names: of `OUTPUTS`: `logits` (N, C); `embedding` (N, E), the pooled features; `evidence` (N, h, w, C), the
                class activation maps; `texture` (N, T), mean and deviation of the maps of earlier stages.

        Raises:
            BundleError: the graph has no such output, or gives something that is no number.
        """
        lacking = [name for name in names if not self.has(name)]
        if lacking:
            raise BundleError(
                f"bundle {self.bundle.name!r}: its model gives no {lacking[0]}, only {', '.join(self._outputs)}. "
                "Train with the network mobilenetv2 for all of them."
            )
        found = self._session.run(list(names), {self._input: pixels.astype(np.float32)})
        if not all(np.isfinite(values).all() for values in found):
            raise BundleError(f"bundle {self.bundle.name!r}: for some picture its model gives what is no number.")
        return dict(zip(names, found, strict=True))

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 (N, C) from uint8 (N, H, W, 3).

        Raises:
            BundleError: the model gives something that is no number.
        """
        return self.run(pixels, "logits")["logits"]

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """float64 (N, C), calibrated; rows sum to 1."""
        return self.bundle.calibration.apply(self.logits(pixels))

    def _fits(self, node: Any) -> bool:
        kind, *shape = _type_and_shape(node)
        classes = len(self.bundle.classes)
        rank, last = OUTPUTS.get(node.name, (0, False))
        return (
            kind == "tensor(float)"
            and len(shape) == rank
            and shape[0] == "N"
            and "N" not in shape[1:]
            and (not last or shape[-1] == classes)
        )

    def _refuse(self, nodes: Iterable[Any]) -> NoReturn:
        told = " and ".join(f"{node.name} {_type_and_shape(node)}" for node in nodes)
        raise BundleError(f"bundle {self.bundle.name!r}: its model takes or gives {told}, not as its facts say.")


def _type_and_shape(node: Any) -> tuple[str | int, ...]:
    return (str(node.type), *(side if isinstance(side, int) else "N" for side in node.shape))

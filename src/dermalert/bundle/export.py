"""Export: a trained Keras model as an ONNX graph.

Comes in: a float32 model from pixels to logits. Goes out: the graph's bytes, proven equal to the model on drawn
noise. Only training calls this: it needs the [train] extra.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from dermalert.errors import BundleError

TOLERANCE = 1e-3  # in logits; float32 convolutions differ in the order of their sums


def export_onnx(model: Any, *, size: tuple[int, int]) -> bytes:
    """The ONNX graph of `model`, float32 (N, height, width, 3) to logits (N, C), with N left open.

    Raises:
        BundleError: the graph does not compute what the model does.
    """
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (2, height, width, 3)).astype(np.float32)
    expected = np.asarray(model(noise))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf2onnx touches NumPy names that newer releases rename
        file = Path(folder) / "model.onnx"
        model.export(file, format="onnx", verbose=False)
        graph = file.read_bytes()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: noise})
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise BundleError(f"The exported graph differs from the model by {difference:.2g} in logits: report this.")
    return graph

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
        graph = _plainly_named(file.read_bytes())
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: noise})
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise BundleError(f"The exported graph differs from the model by {difference:.2g} in logits: report this.")
    return graph


def _plainly_named(graph: bytes) -> bytes:
    """The same graph with its parts named and ordered by where they are used.

    Keras and tf2onnx count what a process has built so far into every name: without this, a run that was resumed
    would give another file than one that was not, for the same weights.
    """
    import onnx

    model = onnx.load_model_from_string(graph)
    inside = {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}
    if any(attribute.type in inside for node in model.graph.node for attribute in node.attribute):
        return graph  # loops and branches have names of their own scope; none of our networks has any
    names = {"": "", model.graph.input[0].name: "pixels", model.graph.output[0].name: "logits"}
    for position, node in enumerate(model.graph.node):
        for name in (*node.input, *node.output):
            names.setdefault(name, f"value_{len(names) - 3}")
        node.name = f"node_{position}"
        node.doc_string = ""
        node.input[:], node.output[:] = [names[name] for name in node.input], [names[name] for name in node.output]
    weights = sorted(model.graph.initializer, key=lambda one: list(names).index(one.name))
    for one in (*weights, *model.graph.input, *model.graph.output):
        one.name = names[one.name]
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = "pictures"
    model.graph.doc_string = ""
    del model.graph.initializer[:], model.graph.value_info[:]
    model.graph.initializer.extend(weights)
    content: bytes = model.SerializeToString(deterministic=True)
    return content

"""Bundles whose graph ends as MobileNetV2 does, in global average pooling and one dense layer, but is written by hand.

Its features are how far the mean colours of the picture's cells lie above a dark grey, so that a red spot is evidence
for melanoma and nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dermalert.bundle.format import Bundle
from graphs import CLASSES, bundle

SIZE, CELL = (40, 32), 8  # pixels: five cells across, four down
# Red speaks for melanoma, green for nevus, blue for a vascular lesion.
DARK = 64
KERNEL = np.eye(3, dtype=np.float32) / 5
BIAS = np.array([-1.0, 2.0, 0.5], dtype=np.float32)


def pooled_graph(
    kernel: NDArray[np.float32] = KERNEL,
    *,
    size: tuple[int, int] = SIZE,
    outputs: tuple[str, ...] = ("logits", "embedding", "evidence"),
) -> bytes:
    """The graph; `outputs` are those that it gives."""
    width, height = size
    classes = kernel.shape[1]
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Transpose", ["cells"], ["colours"], perm=[0, 2, 3, 1]),
        helper.make_node("Sub", ["colours", "dark"], ["above"]),
        helper.make_node("Relu", ["above"], ["features"]),
        helper.make_node("MatMul", ["features", "kernel"], ["evidence"]),
        helper.make_node("ReduceMean", ["evidence"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Add", ["mean", "bias"], ["logits"]),
        helper.make_node("ReduceMean", ["features"], ["embedding"], axes=[1, 2], keepdims=0),
    ]
    shapes: dict[str, list[Any]] = {
        "logits": ["pictures", classes],
        "embedding": ["pictures", 3],
        "evidence": ["pictures", height // CELL, width // CELL, classes],
    }
    taken = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["pictures", height, width, 3])
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs]
    weights = [
        numpy_helper.from_array(kernel.astype(np.float32), "kernel"),
        numpy_helper.from_array(BIAS[:classes], "bias"),
        numpy_helper.from_array(np.array([DARK], np.float32), "dark"),
    ]
    made = helper.make_graph(nodes, "pooled colour", [taken], given, weights)
    opsets = [helper.make_opsetid("", 13)]
    content: bytes = helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()
    return content


def pooled_bundle(
    kernel: NDArray[np.float32] = KERNEL,
    *,
    classes: tuple[str, ...] = CLASSES,
    outputs: tuple[str, ...] = ("logits", "embedding", "evidence"),
    **changes: Any,
) -> Bundle:
    """A whole bundle of that graph; `changes` replace its fields."""
    fields = {"name": "pooled colour", "size": SIZE, "model": pooled_graph(kernel, outputs=outputs), **changes}
    return bundle(classes=classes, **fields)


def spotted(*spots: tuple[int, int, tuple[int, int, int]], size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Grey uint8 (H, W, 3) with one cell of a colour at each (column, row) of cells."""
    width, height = size
    pixels = np.full((height, width, 3), 60, np.uint8)
    for column, row, colour in spots:
        pixels[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = colour
    return pixels

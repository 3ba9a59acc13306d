"""Bundles whose graph is written by hand, so that scoring is tested without training anything.

The graph's logits are the picture's mean red, green and blue in [0, 255] times a matrix. The mean colour is its
embedding, each pixel times the matrix its evidence, and mean and deviation of the colours its texture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from dermalert.bundle.format import Bundle
from dermalert.bundle.gate import Gate
from dermalert.judge.calibration import Calibration
from dermalert.judge.conformal import ConformalSets
from dermalert.judge.intervals import Interval
from dermalert.judge.operating import OperatingPoint

CLASSES = ("melanoma", "nevus", "vascular lesion")
SIZE = (20, 16)
# Red pictures are melanomas, green ones nevi, blue ones vascular lesions.
WEIGHTS = np.eye(3, dtype=np.float32) / 25
OUTPUTS = ("logits", "embedding", "evidence", "texture")


def _matrix(what: str, name: str) -> list[NodeProto]:
    return [helper.make_node("MatMul", [what, "weights"], [name])]


_NODES = {
    "embedding": [helper.make_node("Identity", ["mean"], ["embedding"])],
    "evidence": _matrix("real", "evidence"),
    "texture": [
        helper.make_node("Mul", ["real", "real"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["mean of squares"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["mean", "mean"], ["square of mean"]),
        helper.make_node("Sub", ["mean of squares", "square of mean"], ["signed variance"]),
        helper.make_node("Relu", ["signed variance"], ["variance"]),  # rounding may leave it below 0
        helper.make_node("Sqrt", ["variance"], ["deviation"]),
        helper.make_node("Concat", ["mean", "deviation"], ["texture"], axis=1),
    ],
}


def graph(
    weights: NDArray[np.float32] | TensorProto = WEIGHTS,
    *,
    size: tuple[int, int] = SIZE,
    kind: int = TensorProto.FLOAT,
    pictures: int | str = "pictures",
    inputs: Sequence[str] = ("pixels",),
    outputs: Sequence[str] = OUTPUTS,
    channels: int = 3,
) -> bytes:
    """An ONNX graph; the options make it one that no bundle may have, or with fewer outputs."""
    if isinstance(weights, np.ndarray):
        weights = numpy_helper.from_array(weights.astype(np.float32), "weights")
    classes = weights.dims[1]
    width, height = size
    nodes = [
        helper.make_node("Cast", [inputs[0]], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["mean"], axes=[1, 2], keepdims=0),
        *(node for name in outputs for node in _NODES.get(name, _matrix("mean", name))),
    ]
    shapes = {"embedding": [channels], "evidence": [height, width, classes], "texture": [2 * channels]}
    taken = [helper.make_tensor_value_info(name, kind, [pictures, height, width, channels]) for name in inputs]
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [pictures, *shapes.get(name, [classes])])
        for name in outputs
    ]
    made = helper.make_graph(nodes, "mean colour", taken, given, [weights])
    content: bytes = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    ).SerializeToString()
    return content


def point(threshold: float) -> OperatingPoint:
    some = Interval(0.96, 0.9, 1.0)
    return OperatingPoint("screening", threshold, some, some, positives=40, negatives=80, target=0.95)


def bundle(*, threshold: float | None = 0.5, classes: tuple[str, ...] = CLASSES, **changes: Any) -> Bundle:
    """A whole bundle; `changes` replace its fields."""
    fields: dict[str, Any] = {
        "name": "mean colour",
        "classes": classes,
        "size": SIZE,
        "calibration": Calibration(1.5, (0.0,) * len(classes)),
        "prevalence": dict.fromkeys(classes, 1 / len(classes)),
        "operating_points": () if threshold is None else (point(threshold),),
        "conformal": ConformalSets(0.9, {name: (name,) for name in classes}, dict.fromkeys(classes, 0.2)),
        "licence": "CC0-1.0",
        "attribution": ("Drawn by nobody.",),
        "data": {"source": "drawn", "fingerprint": "0" * 64, "train_pictures": 12},
        "versions": {"dermalert": "0", "python": "3"},
        "model": graph(),
        "card": "# Model card: mean colour\n",
    }
    return Bundle(**{**fields, **changes})


def quality_gate() -> Gate:
    """A gate for `bundle` that goes by quality alone: to its features, nothing is strange."""
    some, none = np.ones(1, np.float32), np.zeros(0, np.float32)
    return Gate(np.zeros(6, np.float32), np.eye(6, dtype=np.float32), np.full(2, 1e9, np.float32), none, some, some)


def paint(file: Path, colour: tuple[int, int, int], **options: Any) -> Path:
    """A picture of one colour, without loss, so that its probabilities are known."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, colour).save(file, "PNG", **options)
    return file

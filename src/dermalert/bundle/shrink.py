"""Shrinking: the same graph in fewer bytes, its outputs and their names kept.

Comes in: an exported graph in float32. Goes out: the bytes of a smaller one. It measures no loss: that is what
`benchmarks/latency.py` and decision 8 do, and what whoever ships a model must do again.

Only the large arrays shrink, those of `LARGE` weights or more. In MobileNetV2 they are nine tenths of the bytes and
the least sensitive: with all arrays in float16 the logits moved by up to 0.36, with the large ones alone by 0.009,
because the first kernels, with the batch normalization folded in, hold values from 1e-5 to 127.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import BundleError

if TYPE_CHECKING:
    from onnx import ModelProto

WAYS = ("float16", "int8")
LARGE = 10_000  # weights in an array
CALIBRATION_BATCH = 16


def shrink(graph: bytes, how: str, *, pictures: NDArray[np.uint8] | None = None) -> bytes:
    """The graph with its large arrays stored smaller; the same bytes for the same input and library versions.

    `float16`: they are stored in float16 and widened to float32 when the graph is loaded; all arithmetic stays
    float32, so no machine is slower or faster for it.

    `int8`: the large pointwise convolutions are computed in int8, each output channel with its own scale, between
    activations in uint8 whose ranges are those on `pictures` (static quantization by ONNX Runtime: Jacob et al.,
    "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018). Other
    large arrays are stored in float16.

    Args:
        graph: in float32, with the input `pixels`, as `export.export_onnx` writes it.
        how: one of `WAYS`.
        pictures: uint8 (N, H, W, 3) of the training part, at the graph's size; for `int8` alone.

    Raises:
        BundleError: no such way, `int8` without pictures, or a weight that float16 cannot hold.
        MissingExtra: onnx is not installed.
    """
    if how not in WAYS:
        raise BundleError(f"A graph cannot be shrunk to {how!r}. Known: {', '.join(WAYS)}.")
    onnx = _onnx()
    model = onnx.load_model_from_string(graph)
    if how == "int8":
        if pictures is None or not len(pictures):
            raise BundleError("Quantization to int8 takes training pictures, to know the range of each activation.")
        model = _quantized(model, pictures)
    _store_in_float16(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        from dermalert.errors import MissingExtra

        raise MissingExtra("Shrinking a graph", "train") from None
    return onnx


def _store_in_float16(model: ModelProto) -> None:
    from onnx import TensorProto, helper, numpy_helper

    widening = []
    for stored in model.graph.initializer:
        if stored.data_type != TensorProto.FLOAT or _weights(stored) < LARGE:
            continue
        values, name = numpy_helper.to_array(stored), stored.name
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise BundleError(f"The graph's array {name} has a weight that float16 cannot hold. Ship it in float32.")
        half = f"{name}_float16"
        stored.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        widening.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT, name=f"widen_{name}"))
    nodes = [*widening, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _quantized(model: ModelProto, pictures: NDArray[np.uint8]) -> ModelProto:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    # ONNX Runtime warns about graphs that it has not optimized itself; ours are folded when they are exported.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            file,
            _reader(pictures),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=_large_pointwise(model),
        )
        smaller = onnx.load_model(file)
    del smaller.metadata_props[:]
    return smaller


def _large_pointwise(model: ModelProto) -> list[str]:
    arrays = {stored.name: stored for stored in model.graph.initializer}
    kernels = [(node.name, arrays.get(node.input[1])) for node in model.graph.node if node.op_type == "Conv"]
    return [
        name
        for name, kernel in kernels
        if kernel is not None and list(kernel.dims[2:]) == [1, 1] and _weights(kernel) >= LARGE
    ]


def _weights(stored: Any) -> int:
    return int(np.prod(stored.dims))


def _reader(pictures: NDArray[np.uint8]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Batches(CalibrationDataReader):  # type: ignore[misc]  # an untyped library's interface
        def __init__(self) -> None:
            self._batches = _batches(pictures)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._batches, None)

    return Batches()


def _batches(pictures: NDArray[np.uint8]) -> Iterator[dict[str, NDArray[np.float32]]]:
    for start in range(0, len(pictures), CALIBRATION_BATCH):
        yield {"pixels": pictures[start : start + CALIBRATION_BATCH].astype(np.float32)}

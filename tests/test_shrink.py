"""Shrinking a graph: fewer bytes, the same outputs by name, the same answers within what is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dermalert.bundle.shrink import shrink
from dermalert.errors import BundleError

SIDE, WIDE, CLASSES = 16, 128, 3
PICTURES = np.random.default_rng(1).integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
OUTPUTS = ("logits", "embedding", "evidence")


def network(largest: float = 1.0) -> bytes:
    """A first convolution with few weights, two pointwise ones with many, and a head: the shape of MobileNetV2."""
    draw = np.random.default_rng(0).normal
    kernels = {
        "first": draw(size=(WIDE, 3, 3, 3)) / 900,
        "narrow": draw(size=(WIDE, WIDE, 1, 1)) / 8,
        "deep": draw(size=(WIDE, WIDE, 1, 1)) / 8,
        "head": draw(size=(WIDE, CLASSES)),
    }
    kernels["deep"][0, 0] = largest
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], "node_0", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "first"], ["wide"], "node_1", strides=[2, 2]),
        helper.make_node("Relu", ["wide"], ["lit"], "node_2"),
        helper.make_node("Conv", ["lit", "narrow"], ["mixed"], "node_3"),
        helper.make_node("Relu", ["mixed"], ["kept"], "node_4"),
        helper.make_node("Conv", ["kept", "deep"], ["maps"], "node_5"),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"], "node_6"),
        helper.make_node("Flatten", ["pooled"], ["embedding"], "node_7"),
        helper.make_node("MatMul", ["embedding", "head"], ["logits"], "node_8"),
        helper.make_node("Transpose", ["maps"], ["last"], "node_9", perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["last", "head"], ["evidence"], "node_10"),
    ]
    takes = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["pictures", SIDE, SIDE, 3])]
    shapes = (["pictures", CLASSES], ["pictures", WIDE], ["pictures", "h", "w", CLASSES])
    gives = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(OUTPUTS, shapes, strict=True)
    ]
    stored = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in kernels.items()]
    graph = helper.make_graph(nodes, "network", takes, gives, stored)
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8
    ).SerializeToString()
    return made


def outputs(graph: bytes) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert [end.name for end in session.get_outputs()] == list(OUTPUTS)
    return dict(zip(OUTPUTS, session.run(None, {"pixels": PICTURES.astype(np.float32)}), strict=True))


def stored(graph: bytes) -> dict[str, int]:
    return {one.name: one.data_type for one in onnx.load_model_from_string(graph).graph.initializer}


def smaller(how: str, graph: bytes | None = None) -> bytes:
    return shrink(graph or network(), how, pictures=PICTURES if how == "int8" else None)


@pytest.mark.parametrize(("how", "share", "off"), [("float16", 0.6, 2e-3), ("int8", 0.4, 0.05)])
def test_a_shrunk_graph_is_smaller_and_gives_every_output_nearly_as_before(how, share, off):
    graph = network()
    made = smaller(how, graph)
    onnx.checker.check_model(onnx.load_model_from_string(made))
    assert len(made) < share * len(graph)
    before, after = outputs(graph), outputs(made)
    for name in OUTPUTS:
        assert np.abs(after[name] - before[name]).max() < off * np.abs(before[name]).max()
    assert any((after[name] != before[name]).any() for name in OUTPUTS)


def test_small_arrays_stay_in_float32():
    kept = stored(smaller("float16"))
    assert kept["first"] == kept["head"] == TensorProto.FLOAT
    assert kept["deep_float16"] == kept["narrow_float16"] == TensorProto.FLOAT16


def test_int8_takes_the_large_pointwise_convolutions_alone():
    kinds = list(stored(smaller("int8")).values())
    assert stored(smaller("int8"))["first"] == TensorProto.FLOAT
    model = onnx.load_model_from_string(smaller("int8"))
    widened = [node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert sum("narrow" in name or "deep" in name for name in widened) == 2
    assert not any("first" in name for name in widened)
    assert kinds.count(TensorProto.INT8) >= 2


@pytest.mark.parametrize("how", ["float16", "int8"])
def test_another_process_makes_the_same_bytes(how):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_shrink as t, hashlib; "
        "print(hashlib.sha256(t.smaller(sys.argv[2])).hexdigest())"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parent), how],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    assert told[0].stdout == told[1].stdout != ""
    assert not told[0].stderr


def test_a_graph_that_is_shrunk_already_stays_as_it_is():
    once = smaller("float16")
    assert smaller("float16", once) == once


def test_a_weight_that_float16_cannot_hold_is_refused():
    with pytest.raises(BundleError, match="deep has a weight that float16 cannot hold"):
        smaller("float16", network(largest=1e5))


def test_an_unknown_way_and_int8_without_pictures_are_refused():
    with pytest.raises(BundleError, match=r"'int4'\. Known: float16, int8"):
        shrink(network(), "int4")
    with pytest.raises(BundleError, match="takes training pictures"):
        shrink(network(), "int8")

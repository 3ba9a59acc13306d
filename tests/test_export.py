"""The export: a graph proven equal to its model, and the same bytes for the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dermalert.bundle import export
from dermalert.bundle.export import TOLERANCE, export_onnx
from dermalert.errors import BundleError
from dermalert.score.engine import Engine
from graphs import SIZE, WEIGHTS, bundle, graph


class Model:
    """Stands for a Keras model whose weights are known, and for what tf2onnx makes of it."""

    def __init__(self, exported: bytes, *, off: float = 0.0) -> None:
        self._exported, self._off = exported, off

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = pixels.mean(axis=(1, 2)) @ WEIGHTS
        logits[0, 0] += self._off
        return logits.astype(np.float32)

    def export(self, file: Path, **_: Any) -> None:
        file.write_bytes(self._exported)


def named(prefix: str) -> bytes:
    """The same graph with other names in another order, as another process would have counted them."""
    model = onnx.load_model_from_string(graph(outputs=("logits",)))
    names: dict[str, str] = {}
    for node in model.graph.node:
        node.name = f"{prefix}/{node.op_type}"
        node.doc_string = prefix
        for ends in (node.input, node.output):
            ends[:] = [names.setdefault(name, f"{prefix}_{name}:0") for name in ends]
    for one in (*model.graph.initializer, *model.graph.input, *model.graph.output):
        one.name = names[one.name]
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = f"unk__{prefix}"
    model.graph.doc_string = f"converted from {prefix}"
    content: bytes = model.SerializeToString()
    return content


def test_the_graph_computes_what_the_model_does_on_any_number_of_pictures() -> None:
    engine = Engine(bundle(model=export_onnx(Model(named("call_51")), size=SIZE)))
    pixels = np.random.default_rng(1).integers(0, 256, (7, SIZE[1], SIZE[0], 3)).astype(np.uint8)
    expected = pixels.astype(np.float64).mean(axis=(1, 2)) @ WEIGHTS
    assert np.allclose(engine.logits(pixels), expected, atol=1e-4)
    assert np.allclose(engine.logits(pixels[:1]), expected[:1], atol=1e-4)


def test_the_same_weights_give_the_same_bytes_whatever_was_built_before() -> None:
    assert export_onnx(Model(named("call_51")), size=SIZE) == export_onnx(Model(named("call_3257")), size=SIZE)


def test_names_say_what_goes_in_and_out() -> None:
    exported = onnx.load_model_from_string(export_onnx(Model(named("call_51")), size=SIZE)).graph
    assert [one.name for one in exported.input] == ["pixels"]
    assert [one.name for one in exported.output] == ["logits"]
    assert exported.input[0].type.tensor_type.shape.dim[0].dim_param == "pictures"
    assert "call_51" not in str(exported)
    assert len({one.name for one in (*exported.initializer, *exported.input, *exported.output)}) == 3


@pytest.mark.parametrize("off", [2 * TOLERANCE, -1.0, float("nan")])
def test_a_graph_that_computes_something_else_is_never_shipped(off: float) -> None:
    with pytest.raises(BundleError, match=r"differs from the model by .* in logits"):
        export_onnx(Model(named("call_51"), off=off), size=SIZE)


class TwoOutputs(Model):
    """One that gives its embedding too."""

    def __call__(self, pixels: NDArray[np.float32]) -> Any:
        mean = pixels.mean(axis=(1, 2))
        return {"logits": super().__call__(pixels), "embedding": (mean * (1 + self.off_embedding)).astype(np.float32)}

    off_embedding = 0.0


def several(prefix: str, *, turned: bool = False) -> bytes:
    """A graph with two outputs whose nodes stand in either of the orders that they may have."""
    model = onnx.load_model_from_string(graph(outputs=("logits", "embedding")))
    inner = {"real": f"{prefix}_9", "mean": f"{prefix}_10", "weights": f"{prefix}_w"}
    for node in model.graph.node:
        node.input[:], node.output[:] = [[inner.get(name, name) for name in ends] for ends in (node.input, node.output)]
    model.graph.initializer[0].name = inner["weights"]
    if turned:
        *first, last, other = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([*first, other, last])
        outputs = list(model.graph.output)[::-1]
        del model.graph.output[:]
        model.graph.output.extend(outputs)
    content: bytes = model.SerializeToString()
    return content


def test_every_output_is_in_the_graph_by_its_name_whatever_the_order_of_its_parts_was() -> None:
    exported = export_onnx(TwoOutputs(several("call_51")), size=SIZE)
    assert exported == export_onnx(TwoOutputs(several("call_8", turned=True)), size=SIZE)
    engine = Engine(bundle(model=exported))
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIZE[1], SIZE[0], 3)).astype(np.uint8)
    found = engine.run(pixels, "logits", "embedding")
    np.testing.assert_allclose(found["embedding"], pixels.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["logits"], found["embedding"] @ WEIGHTS, rtol=1e-4, atol=1e-4)


def test_an_output_beside_the_logits_that_is_off_is_never_shipped_either() -> None:
    model = TwoOutputs(several("call_51"))
    model.off_embedding = 2 * TOLERANCE
    with pytest.raises(BundleError, match=r"differs from the model by .* in embedding"):
        export_onnx(model, size=SIZE)


def test_a_graph_with_branches_is_refused_since_its_outputs_could_not_be_named() -> None:
    model = onnx.load_model_from_string(named("call_51"))
    branch = helper.make_graph(
        [helper.make_node("Identity", ["call_51_logits:0"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch))
    model.graph.output[0].name = "chosen"
    content = model.SerializeToString()
    with pytest.raises(BundleError, match="loops or branches"):
        export_onnx(Model(content), size=SIZE)


def by_colour() -> bytes:
    """A graph that multiplies the colours of pictures 5 wide and 4 high by constants and by their own means."""
    nodes = [
        helper.make_node("Mul", ["pixels", "factors"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["light"], axes=[1, 2], keepdims=1),
        helper.make_node("Mul", ["scaled", "light"], ["lit"]),
        helper.make_node("Add", ["terms", "lit"], ["moved"]),
        helper.make_node("Add", ["moved", "one"], ["more"]),
    ]
    stored = [
        numpy_helper.from_array(np.array(values, np.float32), name)
        for name, values in (("factors", [1, 2, 3]), ("terms", [0.5, 0, -1]), ("one", 1))
    ]
    pixels, more = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4, 5, 3]) for name in ("pixels", "more")
    )
    made = helper.make_graph(nodes, "colours", [pixels], [more], stored)
    content: bytes = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 15)], ir_version=9
    ).SerializeToString()
    return content


def test_what_is_done_to_each_colour_is_done_in_rows_and_gives_the_same() -> None:
    plain, rows = by_colour(), export._in_rows(by_colour())
    pixels = np.random.default_rng(0).random((3, 4, 5, 3), np.float32)
    expected, found = (
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]).run(None, {"pixels": pixels})[0]
        for each in (plain, rows)
    )
    assert np.array_equal(found, expected)
    written = onnx.load_model_from_string(rows).graph
    needed = {name for node in written.node for name in node.input}
    floats = [one for one in written.initializer if one.data_type == TensorProto.FLOAT]
    used = [list(one.dims) for one in floats if one.name in needed]
    assert [15] in used  # a row of five pixels
    assert [3] not in used

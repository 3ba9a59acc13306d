"""Export: a trained Keras model as an ONNX graph.

Comes in: a float32 model from pixels to logits, and whatever else it gives by name. Goes out: the graph's bytes, proven
equal to the model in every output on drawn noise. Only training calls this: it needs the [train] extra.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from dermalert.errors import BundleError

# In logits; of other outputs, a share of their largest value. Float32 convolutions differ in the order of their sums.
TOLERANCE = 1e-3


def export_onnx(model: Any, *, size: tuple[int, int]) -> bytes:
    """The ONNX graph of `model`, from float32 (N, height, width, 3), with N left open, to its outputs by name.

    Args:
        model: gives logits (N, C), or a dict of outputs with `logits` among them, as `learn.outputs.for_export` has it.

    Raises:
        BundleError: the graph does not compute what the model does.
    """
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (2, height, width, 3)).astype(np.float32)
    expected = model(noise)
    if not isinstance(expected, dict):
        expected = {"logits": expected}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf2onnx touches NumPy names that newer releases rename
        file = Path(folder) / "model.onnx"
        model.export(file, format="onnx", verbose=False)
        graph = _plainly_named(_in_rows(file.read_bytes()), tuple(expected))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found = session.run(list(expected), {"pixels": noise})
    for (name, wanted), given in zip(expected.items(), found, strict=True):
        unit = 1.0 if name == "logits" else float(np.abs(wanted).max())
        difference = float(np.abs(given - np.asarray(wanted)).max())
        if not difference <= TOLERANCE * unit:
            raise BundleError(f"The exported graph differs from the model by {difference:.2g} in {name}: report this.")
    return graph


def _in_rows(graph: bytes) -> bytes:
    """The same graph with factors and terms of each colour applied to whole rows of a picture.

    Three values for each of many pixels are three at a time for ONNX Runtime, which takes six times as long as a row of
    them: for pictures of 160×160 a tenth of the network's time. Reshaping copies nothing.
    """
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(graph))
    known = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    shapes = {each.name: [side.dim_value for side in each.type.tensor_type.shape.dim] for each in known}
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    nodes: list[Any] = []
    for node in model.graph.node:
        nodes += _one_in_rows(node, shapes, constants, model.graph.initializer)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    rewritten: bytes = model.SerializeToString()
    return rewritten


def _one_in_rows(node: Any, shapes: dict[str, list[int]], constants: dict[str, Any], stored: Any) -> list[Any]:
    """The node, or those that do the same in rows; constants that these need are added to `stored`."""
    import onnx

    shape = shapes.get(node.output[0], [])
    if node.op_type not in ("Mul", "Add") or len(shape) != 4 or shape[3] != 3:
        return [node]
    _, height, width, colours = shape
    name = node.output[0]

    def constant(suffix: str, values: Any) -> str:
        stored.append(onnx.numpy_helper.from_array(values, f"{name}/{suffix}"))
        return f"{name}/{suffix}"

    def reshaped(given: str, made: str, sides: list[int]) -> Any:
        shape = constant(f"{made}/shape", np.array([0, *sides], np.int64))
        return onnx.helper.make_node("Reshape", [given, shape], [made])

    before, rows = [], []
    for place, given in enumerate(node.input):
        if shapes.get(given) == shape:
            rows.append(f"{name}/rows{place}")
            before.append(reshaped(given, rows[-1], [height, width * colours]))
        elif given in constants and constants[given].shape == (colours,):
            rows.append(constant(f"row{place}", np.tile(constants[given], width)))
        elif shapes.get(given, [])[1:] == [1, 1, colours]:
            repeats = constant(f"repeats{place}", np.array([1, 1, width, 1], np.int64))
            before.append(onnx.helper.make_node("Tile", [given, repeats], [f"{name}/tiled{place}"]))
            rows.append(f"{name}/row{place}")
            before.append(reshaped(f"{name}/tiled{place}", rows[-1], [1, width * colours]))
        else:
            return [node]
    flat = onnx.helper.make_node(node.op_type, rows, [f"{name}/flat"])
    return [*before, flat, reshaped(f"{name}/flat", name, [height, width, colours])]


def _plainly_named(graph: bytes, outputs: tuple[str, ...]) -> bytes:
    """The same graph with its parts in the order of their use, and named by that.

    Keras and tf2onnx count what a process has built so far into every name, and sort by them: without this, a run that
    was resumed would give another file than one that was not, for the same weights.

    Args:
        outputs: their names; of a single one whatever it was called.

    Raises:
        BundleError: the graph has loops or branches, whose names are of their own scope; none of our networks has any.
    """
    import onnx

    model = onnx.load_model_from_string(graph)
    inside = {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}
    if any(attribute.type in inside for node in model.graph.node for attribute in node.attribute):
        raise BundleError("The network has loops or branches, and cannot become a bundle. Choose another network.")
    found = outputs if len(outputs) > 1 else (model.graph.output[0].name,)
    ends = dict(zip(found, outputs, strict=True))
    nodes = _in_order_of_use(model.graph.node, tuple(ends))
    names = {"": "", model.graph.input[0].name: "pixels", **ends}
    given = len(names)
    for position, node in enumerate(nodes):
        for name in (*node.input, *node.output):
            names.setdefault(name, f"value_{len(names) - given}")
        node.name = f"node_{position}"
        node.doc_string = ""
        node.input[:], node.output[:] = [names[name] for name in node.input], [names[name] for name in node.output]
    order = {name: place for place, name in enumerate(names)}
    weights = sorted((one for one in model.graph.initializer if one.name in order), key=lambda one: order[one.name])
    ended = sorted(model.graph.output, key=lambda one: outputs.index(ends[one.name]))
    for one in (*weights, *model.graph.input, *ended):
        one.name = names[one.name]
    for end in (*model.graph.input, *ended):
        end.type.tensor_type.shape.dim[0].dim_param = "pictures"
    ordered = onnx.helper.make_graph(nodes, "dermalert", list(model.graph.input), ended, weights)
    model.graph.CopyFrom(ordered)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _in_order_of_use(nodes: Iterable[Any], outputs: tuple[str, ...]) -> list[Any]:
    """Each node after those that it needs, the first output's first; nodes that no output needs left out."""
    maker = {name: node for node in nodes for name in node.output}
    ordered: list[Any] = []
    placed: set[str] = set()
    waiting = [(name, False) for name in reversed(outputs)]
    while waiting:
        name, ready = waiting.pop()
        node = maker.get(name)
        if node is None or name in placed:
            continue
        if ready:
            ordered.append(node)
            placed.update(node.output)
        else:
            waiting.append((name, True))
            waiting += [(needed, False) for needed in reversed(node.input)]
    return ordered

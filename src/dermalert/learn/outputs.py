"""What the shipped graph gives beside logits: features to compare pictures by, and where the evidence lies.

Comes in: a trained model. Goes out: the same model with more outputs, sharing its weights. Nothing is computed twice
but the head's product, which takes a thousandth of the network's time.
"""

from __future__ import annotations

from typing import Any

from dermalert.learn import networks
from dermalert.learn.backend import backend

TEXTURED = (2, 3, 4)  # of five stages: between the edges of the first and the diagnoses of the last


def for_export(model: Any) -> Any:
    """The model with its outputs by name, as far as it has them.

    Args:
        model: float32, one that `networks.build` or `networks.as_scored` made.

    Returns:
        keras.Model from pictures to a dict of float32 tensors:
        `logits` (N, C).
        `embedding` (N, E): the features after global average pooling.
        `evidence` (N, h, w, C): class activation maps, the features before pooling times the head's kernel (Zhou et
        al., "Learning deep features for discriminative localization", CVPR 2016). The logits are their mean over space
        plus the head's bias.
        `texture` (N, T), of a network of inverted residuals: mean and standard deviation over space of what stages 2,
        3 and 4 give, where weights stay near ImageNet's.
        A network that does not end in global average pooling and one dense layer, or that scores several views of a
        picture, gives logits alone.
    """
    layers = {layer.name: layer for layer in model.layers}
    if not {"pooled", "logits"} <= layers.keys():
        return backend().keras.Model(model.input, {"logits": model.output})
    maps, textured = _maps(model)
    embedding = layers["pooled"](maps)
    found = {
        "logits": layers["logits"](embedding),
        "embedding": embedding,
        "evidence": _evidence(maps, layers["logits"]),
    }
    return backend().keras.Model(model.input, found | ({"texture": _texture(textured)} if textured else {}))


def _maps(model: Any) -> tuple[Any, list[Any]]:
    """The features before pooling, and what the textured stages give; empty of a network without such stages."""
    place = [layer.name for layer in model.layers].index("pooled") - 1
    backbone = model.layers[place]
    if not networks.has_stages(backbone):
        return backbone.output, []
    ends = {layer.name.split("_")[0]: layer.output for layer in backbone.layers}  # the last of each stage stays
    lower = [ends[f"stage{stage}"] for stage in TEXTURED]
    *textured, maps = backend().keras.Model(backbone.input, [*lower, backbone.output])(model.layers[place - 1].output)
    return maps, textured


def _evidence(maps: Any, head: Any) -> Any:
    layers, ops = backend().keras.layers, backend().keras.ops
    product = layers.Conv2D(head.units, 1, use_bias=False, dtype="float32", name="evidence")
    evidence = product(maps)
    product.kernel.assign(ops.reshape(head.kernel, product.kernel.shape))
    return evidence


def _texture(stages: list[Any]) -> Any:
    ops, parts = backend().keras.ops, []
    for maps in stages:
        mean = ops.mean(maps, axis=(1, 2))
        # Not as the mean of squared differences: tf2onnx writes those in one way or another by chance.
        variance = ops.mean(ops.square(maps), axis=(1, 2)) - ops.square(mean)
        parts += [mean, ops.sqrt(ops.relu(variance))]
    return ops.concatenate(parts, axis=1)

"""The same network with its weights in disorder: what a map must not survive.

Comes in: a bundle. Goes out: one whose graph has the same layers, and each layer the same weights in an order of
chance. A map that stays as it was is drawn by the picture's edges, not by what the model has learnt (Adebayo, Gilmer,
Muelly, Goodfellow, Hardt and Kim, "Sanity checks for saliency maps", NeurIPS 2018; all layers at once). The weights are
shuffled rather than drawn anew, which keeps their scale, and works on whole numbers as it does on floats.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dermalert.bundle.format import Bundle
from dermalert.errors import MissingExtra


def with_shuffled_weights(bundle: Bundle, *, seed: int = 0) -> Bundle:
    """`bundle` with every kernel's weights shuffled; offsets and scales stay.

    Raises:
        MissingExtra: the library that takes ONNX graphs apart is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingExtra("Shuffling the weights of a model", "train") from None
    random = np.random.default_rng(seed)
    model = onnx.load_model_from_string(bundle.model)
    for kernel in model.graph.initializer:
        if len(kernel.dims) >= 2:  # shapes, axes, offsets and scales have one dimension or none
            weights = onnx.numpy_helper.to_array(kernel)
            shuffled = random.permutation(weights.ravel()).reshape(weights.shape)
            kernel.CopyFrom(onnx.numpy_helper.from_array(shuffled, kernel.name))
    return replace(bundle, name=f"{bundle.name}, weights shuffled", model=model.SerializeToString())

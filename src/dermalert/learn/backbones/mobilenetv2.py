"""MobileNetV2 at width 1.0, without its classifier, and the ImageNet weights that come with the package.

Architecture: Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
CVPR 2018, https://arxiv.org/abs/1801.04381, table 2. Weights: see LICENSE-mobilenetv2.txt beside this file.

It is not `keras.applications.MobileNetV2`, because the weights were trained with other edges: a convolution of
stride 2 pads both sides alike here, and only the far side there.
"""

from __future__ import annotations

import hashlib
import io
from importlib.resources import files
from typing import Any

from dermalert.errors import RunError
from dermalert.learn.backbones import inverted

WEIGHTS_SHA256 = "272e192299cea5154cac0510ce9a147b834ed584ef00d6d86bf040b3e0851000"
_WEIGHTS = "mobilenetv2-imagenet.npz"

# Of red, green and blue in [0, 1] over ImageNet, as its classifiers have been trained since ResNet.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

MOBILENETV2 = inverted.Architecture(
    "mobilenetv2",
    blocks=(
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 32, 3, 2, 3),
        (6, 64, 4, 2, 3),
        (6, 96, 3, 1, 3),
        (6, 160, 3, 2, 3),
        (6, 320, 1, 1, 3),
    ),
    mean=(255 * MEAN[0], 255 * MEAN[1], 255 * MEAN[2]),
    deviation=(255 * DEVIATION[0], 255 * DEVIATION[1], 255 * DEVIATION[2]),
    both_sides=True,
    made_by="scripts/convert_backbone.py",
)


def load(network: Any) -> None:
    """Gives a network that `inverted.build` made of it the weights that come with the package.

    Raises:
        RunError: they are missing or damaged.
    """
    inverted.load(network, MOBILENETV2, io.BytesIO(_packaged()), _WEIGHTS)


def _packaged() -> bytes:
    file = files(__package__) / _WEIGHTS
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(
            f"{_WEIGHTS} is missing from the installed package ({error}). Install Dermalert again."
        ) from None
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        raise RunError(f"{_WEIGHTS} in the installed package is damaged. Install Dermalert again.")
    return content

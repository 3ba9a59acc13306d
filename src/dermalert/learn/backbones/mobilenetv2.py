"""MobileNetV2 at width 1.0, without its classifier, and the ImageNet weights that come with the package.

Comes in: pictures in [0, 255]; the ImageNet mean and deviation are applied inside. Goes out: 1280 feature maps at
1/32 of the width and height.

Architecture: Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
CVPR 2018, https://arxiv.org/abs/1801.04381, table 2. Weights: see LICENSE-mobilenetv2.txt beside this file.

It is not `keras.applications.MobileNetV2`, because the weights were trained with other edges: a convolution of
stride 2 pads both sides alike here, and only the far side there. And it has no batch normalization: on small data sets
one keeps its statistics as ImageNet left them, and then it is a factor and an offset, which
`scripts/convert_backbone.py` multiplied into the convolutions. The features are the same, and training is about
twice as fast on a CPU. Most folded kernels are about half as large as the published ones, so Adam's steps must be
smaller too: 3e-4 in the last stage trains well, 1e-3 in all of them destroys what it knows.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import RunError
from dermalert.learn.backend import backend

NAME = "mobilenetv2"
WEIGHTS_SHA256 = "272e192299cea5154cac0510ce9a147b834ed584ef00d6d86bf040b3e0851000"
_WEIGHTS = "mobilenetv2-imagenet.npz"

FIRST, LAST = 32, 1280
STAGES = 5  # each at half the resolution of the one before
# Expansion, channels, repeats, and the stride of the first repeat.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

# Of red, green and blue in [0, 1] over ImageNet, as its classifiers have been trained since ResNet.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

_LARGEST = 2_000_000  # bytes of one stored array; the last convolution's is 1.6 MB


def mobilenetv2(shape: tuple[int, int, int], *, policy: Any, seed: int) -> Any:
    """The network with weights drawn by chance.

    Args:
        shape: height, width and 3.
        policy: keras.DTypePolicy of all layers but the first.
        seed: of the weights.

    Returns:
        keras.Model from float32 (N, H, W, 3) in [0, 255] to (N, H/32, W/32, 1280), rounded up. Layers are named
        `stage1_...` at half the resolution to `stage5_...` at 1/32.
    """
    keras = backend().keras
    make = _Layers(policy, seed)
    pictures = keras.Input(shape, name="pixels")
    maps = _normalized(pictures)
    stage, number = 1, 0
    maps = make.convolution(maps, FIRST, size=3, stride=2, name="stage1_first")
    for expansion, channels, repeats, stride in BLOCKS:
        stage += stride == 2
        for repeat in range(repeats):
            number += 1
            first = repeat == 0
            maps = make.block(
                maps, expansion, channels, stride=stride if first else 1, name=f"stage{stage}_block{number:02d}"
            )
    maps = make.convolution(maps, LAST, size=1, name=f"stage{stage}_last")
    return keras.Model(pictures, maps, name=NAME)


def _normalized(pictures: Any) -> Any:
    layer = backend().keras.layers.Rescaling(
        scale=[1 / (255 * deviation) for deviation in DEVIATION],
        offset=[-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)],
        dtype="float32",
        name="normalize",
    )
    return layer(pictures)


class _Layers:
    """The three kinds of layers, each with its share of the seed."""

    def __init__(self, policy: Any, seed: int) -> None:
        self._keras = backend().keras
        self._policy = policy
        self._seeds: Iterator[int] = iter(range(seed * 1000 + 100, seed * 1000 + 1000))

    def block(self, maps: Any, expansion: int, channels: int, *, stride: int, name: str) -> Any:
        """An inverted residual: widen, filter each map alone, narrow, and add what came in if it fits."""
        inside = maps
        if expansion > 1:
            inside = self.convolution(inside, maps.shape[-1] * expansion, size=1, name=f"{name}_expand")
        inside = self.depthwise(inside, stride=stride, name=f"{name}_depthwise")
        inside = self.convolution(inside, channels, size=1, linear=True, name=f"{name}_project")
        if stride == 1 and maps.shape[-1] == channels:
            return self._keras.layers.Add(dtype=self._policy, name=f"{name}_add")([maps, inside])
        return inside

    def convolution(
        self, maps: Any, channels: int, *, size: int, name: str, stride: int = 1, linear: bool = False
    ) -> Any:
        initializers = self._keras.initializers
        drawn = initializers.LecunNormal if linear else initializers.HeNormal
        made = self._keras.layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding=_padding(stride),
            kernel_initializer=drawn(seed=next(self._seeds)),
            dtype=self._policy,
            name=name,
        )(self._padded(maps, stride, name))
        return made if linear else self._relu6(made, name)

    def depthwise(self, maps: Any, *, stride: int, name: str) -> Any:
        layer = self._keras.layers.DepthwiseConv2D(
            3,
            strides=stride,
            padding=_padding(stride),
            # He et al.'s deviation for the nine values that each filter sees; Keras would count all channels.
            depthwise_initializer=self._keras.initializers.RandomNormal(stddev=(2 / 9) ** 0.5, seed=next(self._seeds)),
            dtype=self._policy,
            name=name,
        )
        return self._relu6(layer(self._padded(maps, stride, name)), name)

    def _padded(self, maps: Any, stride: int, name: str) -> Any:
        return (
            maps if stride == 1 else self._keras.layers.ZeroPadding2D(1, dtype=self._policy, name=f"{name}_pad")(maps)
        )

    def _relu6(self, maps: Any, name: str) -> Any:
        return self._keras.layers.ReLU(6, dtype=self._policy, name=f"{name}_relu6")(maps)


def _padding(stride: int) -> str:
    return "same" if stride == 1 else "valid"


def load(network: Any, file: Path | None = None) -> None:
    """Gives a `mobilenetv2` the weights of a file, or those that come with the package.

    The file is an uncompressed .npz with one float32 array a weight, named as `arrays_of` names them.

    Raises:
        RunError: the file is missing, damaged, or of another network.
    """
    arrays = _packaged(network) if file is None else _read(file, str(file), network)
    for name, variable in _variables(network).items():
        variable.assign(arrays[name])


def arrays_of(network: Any) -> dict[str, NDArray[np.float32]]:
    """The network's weights by name: `stage1_first/kernel`, `stage1_first/bias`, ..."""
    return {name: np.array(variable.numpy()) for name, variable in _variables(network).items()}


def _variables(network: Any) -> dict[str, Any]:
    return {f"{layer.name}/{weight.name}": weight for layer in network.layers for weight in layer.trainable_variables}


def _packaged(network: Any) -> dict[str, NDArray[np.float32]]:
    file = files(__package__) / _WEIGHTS
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(
            f"{_WEIGHTS} is missing from the installed package ({error}). Install Dermalert again."
        ) from None
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        raise RunError(f"{_WEIGHTS} in the installed package is damaged. Install Dermalert again.")
    return _read(io.BytesIO(content), _WEIGHTS, network)


def _read(source: Path | io.BytesIO, name: str, network: Any) -> dict[str, NDArray[np.float32]]:
    wanted = {each: tuple(variable.shape) for each, variable in _variables(network).items()}
    try:
        stored = np.load(source, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile) or stored.zip is None:
            raise ValueError("it is not an .npz")
        with stored:
            if set(stored.files) != wanted.keys():
                raise RunError(f"{name}: not the weights of mobilenetv2. scripts/convert_backbone.py makes such files.")
            if max(member.file_size for member in stored.zip.infolist()) > _LARGEST:
                raise ValueError("an array is too large")
            arrays = {each: stored[each] for each in stored.files}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        raise RunError(f"{name}: these weights cannot be read ({error}). Copy the file again.") from None
    for each, shape in wanted.items():
        if arrays[each].shape != shape or not _usable(arrays[each]):
            raise RunError(f"{name}: {each} is not a finite float32 array of shape {shape}. Copy the file again.")
    return arrays


def _usable(array: NDArray[Any]) -> bool:
    return array.dtype == np.float32 and bool(np.isfinite(array).all())

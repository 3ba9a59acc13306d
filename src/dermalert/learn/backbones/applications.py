"""Any network of `keras.applications`, without its classifier.

Comes in: a name, pictures in [0, 255], and what its weights start from. Goes out: feature maps.
Each family scales its pictures in its own way; Keras's own function for it becomes part of the network.
Only `weights="imagenet"` reaches for the internet, once: Keras keeps what it has downloaded.
"""

from __future__ import annotations

import contextlib
import difflib
import random
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dermalert.errors import RunError
from dermalert.learn.backend import backend

_SUFFIXES = (".keras", ".h5", ".hdf5")  # `.weights.h5` is one of them
_WITHOUT_ONNX = "ConvNeXt"  # its GELU and its convolutions by groups cannot be written as ONNX by tf2onnx 1.17
_SECONDS_WITHOUT_ANSWER = 20.0


def names() -> list[str]:
    """The networks of the installed Keras that can become a bundle."""
    members = vars(backend().keras.applications).items()
    found = [name for name, member in members if name[0].isupper() and callable(member)]
    return sorted(name for name in found if not name.startswith(_WITHOUT_ONNX))


def application(pixels: Any, name: str, weights: str, *, policy: Any, seed: int) -> Any:
    """The feature maps that the network `keras.applications.NAME` makes of pixels.

    It always runs as in inference: its batch normalizations keep their statistics, and nothing is dropped. The layer
    that gives the maps holds the network as its `network`.

    Args:
        pixels: float32 KerasTensor (N, H, W, 3) in [0, 255].
        name: one of `names()`.
        weights: `none` (drawn by chance), `imagenet` (downloaded), or the path of a file of this network's weights:
            `.weights.h5`, `.keras`, or the `.h5` that Keras downloads. No code in it is run.
        policy: keras.DTypePolicy of its layers.
        seed: of the weights that are drawn by chance.

    Raises:
        RunError: no such network, a size it cannot do, or weights that cannot be had or read.
    """
    make = _maker(name)
    with _policy(policy), _seeded(seed):
        if weights == "imagenet":
            network = _downloaded(make, name, pixels.shape[1:])
        else:
            network = _undrawn(make, name, pixels.shape[1:], weights=None)
    if weights not in ("none", "imagenet"):
        _load(network, name, Path(weights))
    _make_constants_plain(network)
    scaled: Callable[[Any], Any] = sys.modules[make.__module__].preprocess_input
    return _backbone_layer()(network, scaled, dtype="float32", name="backbone")(pixels)


def _maker(name: str) -> Callable[..., Any]:
    known = names()
    if name not in known:
        lowered = {each.lower(): each for each in known}
        close = [lowered[each] for each in difflib.get_close_matches(name.lower(), lowered, n=4, cutoff=0.5)]
        hint = (
            f"Did you mean {' or '.join(f'keras/{each}' for each in close)}?"
            if close
            else f"It has {', '.join(known)}."
        )
        raise RunError(f"keras.applications has no network {name!r}. {hint}")
    maker: Callable[..., Any] = getattr(backend().keras.applications, name)
    return maker


def _undrawn(make: Callable[..., Any], name: str, shape: tuple[int, ...], weights: str | None) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that sizes beside those of ImageNet get ImageNet's weights is meant
            return make(include_top=False, weights=weights, input_shape=shape)
    except ValueError as error:
        raise RunError(f"keras/{name} cannot be built for pictures of {shape[1]}x{shape[0]}: {error}") from None


def _downloaded(make: Callable[..., Any], name: str, shape: tuple[int, ...]) -> Any:
    # Keras reports a failed download as a bare Exception, and its progress on stdout, which is for results.
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS_WITHOUT_ANSWER)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return _undrawn(make, name, shape, weights="imagenet")
    except RunError:
        raise
    except Exception as error:
        raise RunError(
            f"The ImageNet weights of keras/{name} cannot be downloaded ({error}). Without the internet, give the path "
            "of a file of this network's weights as `weights`, or take the network mobilenetv2: its weights come with "
            "Dermalert."
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def _load(network: Any, name: str, file: Path) -> None:
    if not file.is_file() or file.suffix not in _SUFFIXES:
        raise RunError(
            f"{file}: weights of keras/{name} are `none`, `imagenet`, or a file that ends in {', '.join(_SUFFIXES)}."
        )
    # Keras only warns of layers that the file lacks, and leaves them as they were: so nothing usable is left there.
    learned = [weight for weight in network.weights if "float" in weight.dtype]
    for weight in learned:
        weight.assign(np.full(weight.shape, np.nan, np.float32))
    reason = "weights are missing"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network.load_weights(file)
        whole = all(np.isfinite(weight.numpy()).all() for weight in learned)
    except Exception as error:  # whatever Keras and HDF5 make of a damaged file or one of another network
        reason, whole = " ".join(str(error).split())[:200], False
    if not whole:
        raise RunError(f"{file}: not the weights of keras/{name} without its classifier, or damaged ({reason}).")


def _make_constants_plain(network: Any) -> None:
    # Tensors that were computed outside the graph; the converter to ONNX would take them for inputs of the network.
    for layer in network.layers:
        if isinstance(layer, backend().keras.layers.Normalization):
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)


@lru_cache(maxsize=1)
def _backbone_layer() -> Any:
    keras = backend().keras

    class Backbone(keras.layers.Layer):  # type: ignore[misc, name-defined]
        """A network and the scaling of its pictures.

        A layer of its own for two reasons. A model that calls the network as `network(x, training=False)` hands its
        own `training=True` on to it all the same (Keras 3.15, `functional.operation_fn`), and then the normalizations
        follow the pictures. And what the scaling computes must be computed inside the graph to become part of it.
        """

        def __init__(self, network: Any, scaled: Callable[[Any], Any], **rest: Any) -> None:
            super().__init__(**rest)
            self.network = network
            self.scaled = scaled

        def call(self, pixels: Any) -> Any:
            return self.network(self.scaled(pixels), training=False)

    return Backbone


@contextlib.contextmanager
def _policy(policy: Any) -> Iterator[None]:
    """These networks take no `dtype`; they read Keras's global one."""
    config = backend().keras.config
    before = config.dtype_policy()
    config.set_dtype_policy(policy)
    try:
        yield
    finally:
        config.set_dtype_policy(before)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """These networks take no seed; Keras draws each initializer's own from Python's generator."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)

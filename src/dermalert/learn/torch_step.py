"""The training step in PyTorch, for where there is a GPU: the same network, loss, optimizer and state as in `step`.

Comes in: a Keras model of inverted residuals, or a part of one, its weights by stage; then batches on the device. Goes
out: what `step.Step` gives, and the same state, so that a training may begin on one framework and go on in the other.
The Keras model says what is computed and holds the weights whenever a state was asked for; PyTorch computes. Sums run
in another order, and dropout draws other numbers: two frameworks give like networks, not equal ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import MissingExtra, RunError
from dermalert.learn import networks
from dermalert.learn.backend import backend
from dermalert.learn.step import NEVER, Labels, State

Axes = tuple[int, ...]
_MOST_STEPS = 10**9
Function = Callable[[Any, Any, bool], Any]  # maps, what came into their block, whether in training -> maps


@lru_cache(maxsize=1)
def pytorch() -> Any:
    """The module `torch`.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise MissingExtra("Training on a GPU", "gpu") from None
    return torch


def best_device() -> str:
    """`cuda` or `mps` where there is such a GPU, else `cpu`; convolutions are set to float32 and a fixed order."""
    torch = pytorch()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def divided(model: Any, frozen_stages: int, device: str) -> tuple[Any, Any]:
    """As `networks.divided`: the first half gives a tensor (B, C, h, w) on the device, the second is a Keras model.

    Raises:
        RunError: the network has no such stages to freeze.
    """
    torch, tf = pytorch(), backend().tf
    before, lower, upper = networks.halves(model, frozen_stages)
    network = _Network(lower, device)

    def trunk(pixels: NDArray[np.uint8]) -> Any:
        maps: Any = pixels
        for layer in before:
            maps = layer(tf.cast(maps, tf.float32)).numpy()
        with torch.no_grad():
            on_device = torch.from_numpy(maps).to(device).float()
            return network(on_device.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last))

    return trunk, upper


def mean_said(uppers: Sequence[Any], device: str) -> Callable[[Any], NDArray[np.float32]]:
    """A function from features on the device to the softmax of the Keras models' mean logits, float32 (B, C)."""
    torch = pytorch()
    made = [_Network(upper, device) for upper in uppers]

    def mean(features: Any) -> NDArray[np.float32]:
        with torch.no_grad():
            logits = torch.stack([network(features) for network in made]).mean(dim=0)
            given: NDArray[np.float32] = torch.softmax(logits, dim=1).cpu().numpy()
        return given

    return mean


class TorchStep:
    """`step.Step` for pictures that are not blended, of features on the device.

    Args:
        model: a Keras model that `divided` gave; its weights are the first ones.
        stages: its trainable variables from the head down.
        rates: each stage's factor of the learning rate.
        offset: float32 (C,), added to the logits in the loss, not in the model.
        soft: as of `step.Step`.
        device: as PyTorch names it.
    """

    def __init__(
        self,
        model: Any,
        *,
        stages: Sequence[Sequence[Any]],
        rates: Sequence[float],
        offset: NDArray[np.float32],
        device: str,
        soft: bool = False,
    ) -> None:
        torch = pytorch()
        self._model, self._device = model, device
        self._network = _Network(model, device)
        self._seed = next((layer.seed for layer in _flat(model) if type(layer).__name__ == "Dropout"), 0)
        self._weights = [self._network.weights[id(variable)] for stage in stages for variable in stage]
        self._factors = [rate for rate, stage in zip(rates, stages, strict=True) for _ in stage]
        self._tensors = [weight.tensor.requires_grad_(True) for weight in self._weights]
        self._means = [torch.zeros_like(tensor) for tensor in self._tensors]
        self._squares = [torch.zeros_like(tensor) for tensor in self._tensors]
        self._offset = torch.from_numpy(offset).to(device)
        self._steps = 0
        self._losses = _soft_losses if soft else _coarse_losses

    def train(self, features: Any, labels: Labels, rate: float) -> tuple[float, int]:
        """Learns from a batch; its summed cross-entropy and the number of first choices that its labels allow."""
        torch = pytorch()
        allowed = torch.from_numpy(labels.own).to(self._device)
        self._network.random.manual_seed(self._seed * _MOST_STEPS + self._steps)
        logits = self._network(features, training=True) + self._offset
        losses = self._losses(logits, allowed)
        self._adam(torch.autograd.grad(losses.mean(), self._tensors), rate)
        chosen = allowed.gather(1, logits.argmax(dim=1, keepdim=True))
        hits = (chosen == allowed.amax(dim=1, keepdim=True)).count_nonzero()
        return float(losses.detach().sum()), int(hits)

    def _adam(self, gradients: Sequence[Any], rate: float) -> None:
        """As `Step._adam`. Not `torch.optim`'s: it loads Triton, and Triton after TensorFlow ends the process."""
        torch = pytorch()
        self._steps += 1
        beta1, beta2, epsilon = 0.9, 0.999, 1e-7
        corrected = rate * math.sqrt(1 - beta2**self._steps) / (1 - beta1**self._steps)
        with torch.no_grad():
            torch._foreach_lerp_(self._means, list(gradients), 1 - beta1)
            torch._foreach_mul_(self._squares, beta2)
            torch._foreach_addcmul_(self._squares, gradients, gradients, 1 - beta2)
            spread = torch._foreach_add(torch._foreach_sqrt(self._squares), epsilon)
            torch._foreach_addcdiv_(self._tensors, self._means, spread, [-corrected * each for each in self._factors])

    def state(self) -> State:
        """As `Step.state`; the Keras model has the weights from now on."""
        for weight in self._weights:
            weight.variable.assign(weight.array(weight.tensor))
        kept = {f"weight_{i:03d}": np.array(each.numpy()) for i, each in enumerate(self._model.variables)}
        means, squares = (
            {
                f"{kind}_{i:03d}": weight.array(each)
                for i, (weight, each) in enumerate(zip(self._weights, moments, strict=True))
            }
            for kind, moments in (("mean", self._means), ("square", self._squares))
        )
        return {**kept, **means, **squares, "steps_000": np.full(2, self._steps, np.int64)}

    def restore(self, state: State) -> None:
        """Continues from a `state` of either framework.

        Raises:
            RunError: it belongs to another network.
        """
        now = self.state()
        if state.keys() != now.keys() or any(state[name].shape != array.shape for name, array in now.items()):
            raise RunError("The checkpoint belongs to another network. Train into another folder.")
        for i, variable in enumerate(self._model.variables):
            variable.assign(state[f"weight_{i:03d}"])
        self._steps = int(state["steps_000"].max())
        with pytorch().no_grad():
            for i, weight in enumerate(self._weights):
                weight.tensor.copy_(weight.like(weight.variable.numpy()))
                self._means[i].copy_(weight.like(state[f"mean_{i:03d}"]))
                self._squares[i].copy_(weight.like(state[f"square_{i:03d}"]))


def _coarse_losses(logits: Any, allowed: Any) -> Any:
    """As `step.coarse_losses`."""
    torch = pytorch()
    among = torch.logsumexp(torch.where(allowed > 0, logits, NEVER), dim=1)
    return torch.logsumexp(logits, dim=1) - among


def _soft_losses(logits: Any, given: Any) -> Any:
    """As `step.soft_losses`."""
    return pytorch().nn.functional.cross_entropy(logits, given, reduction="none")


@dataclass(frozen=True)
class _Weight:
    """A weight of the Keras model and the tensor that stands for it.

    Attributes:
        variable: of Keras.
        tensor: on the device, in PyTorch's order of axes.
        axes: Keras's axes in PyTorch's order.
    """

    variable: Any
    tensor: Any
    axes: Axes

    @classmethod
    def of(cls, variable: Any, axes: Axes, device: str) -> _Weight:
        return cls(variable, _tensor(variable.numpy(), axes, device), axes)

    def like(self, array: NDArray[Any]) -> Any:
        """The array as a tensor beside this one."""
        return _tensor(array, self.axes, self.tensor.device)

    def array(self, tensor: Any) -> NDArray[np.float32]:
        """The tensor as Keras has it."""
        back = np.argsort(self.axes)
        values: NDArray[np.float32] = np.array(tensor.detach().cpu().numpy().transpose(back), order="C")
        return values


def _tensor(array: NDArray[Any], axes: Axes, device: Any) -> Any:
    return pytorch().from_numpy(np.array(array.transpose(axes), order="C")).to(device)


class _Network:
    """What a Keras model computes, in PyTorch: a tensor (B, C, H, W) in, one out.

    The networks of `backbones.inverted` are chains, but that a block may add what came into it to what it makes.
    """

    def __init__(self, model: Any, device: str) -> None:
        self.weights: dict[int, _Weight] = {}
        self.random = pytorch().Generator(device)
        self._chain = [(_block(layer), self._function(layer, device)) for layer in _flat(model)]

    def __call__(self, maps: Any, *, training: bool = False) -> Any:
        entered, given = "", maps
        for block, function in self._chain:
            if block != entered:
                entered, given = block, maps
            maps = function(maps, given, training)
        return maps

    def _function(self, layer: Any, device: str) -> Function:
        kind = type(layer).__name__
        if kind not in _KINDS:
            raise RunError(f"PyTorch cannot train a network with the layer {kind}. Train it with TensorFlow.")
        axes, make = _KINDS[kind]
        weights = [_Weight.of(*each, device) for each in zip(layer.trainable_variables, axes, strict=True)]
        self.weights |= {id(weight.variable): weight for weight in weights}
        return make(layer, self.random, *(weight.tensor for weight in weights))


def _flat(model: Any) -> list[Any]:
    """The layers in their order, those of models inside it among them."""
    keras = backend().keras
    found: list[Any] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += _flat(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            found.append(layer)
    return found


def _block(layer: Any) -> str:
    """`stage4_block09` of `stage4_block09_expand`."""
    return "_".join(layer.name.split("_")[:2])


def _convolution(layer: Any, _: Any, kernel: Any, bias: Any) -> Function:
    convolve = pytorch().nn.functional.conv2d
    groups = kernel.shape[0] if type(layer).__name__ == "DepthwiseConv2D" else 1
    pad = _same(kernel.shape[2], layer.strides[0]) if layer.padding == "same" else lambda maps: maps
    return lambda maps, *_: convolve(pad(maps), kernel, bias, stride=layer.strides, groups=groups)


def _same(size: int, stride: int) -> Callable[[Any], Any]:
    """TensorFlow's padding: as much as is needed, the odd pixel below and to the right."""
    functional = pytorch().nn.functional

    def sides(length: int) -> tuple[int, int]:
        needed = max((-(-length // stride) - 1) * stride + size - length, 0)
        return needed // 2, needed - needed // 2

    return lambda maps: functional.pad(maps, (*sides(maps.shape[3]), *sides(maps.shape[2])))


def _padding(layer: Any, _: Any) -> Function:
    (above, below), (left, right) = layer.padding
    return lambda maps, *_: pytorch().nn.functional.pad(maps, (left, right, above, below))


def _rescaling(layer: Any, _: Any) -> Function:
    def rescaled(maps: Any, *_: Any) -> Any:
        scale, offset = (maps.new_tensor(each).reshape(1, -1, 1, 1) for each in (layer.scale, layer.offset))
        return maps * scale + offset

    return rescaled


def _rectified(layer: Any, _: Any) -> Function:
    # Not `clamp`: it has a gradient at the very ends, and TensorFlow's has none.
    return lambda maps, *_: pytorch().nn.functional.hardtanh(maps, 0.0, layer.max_value)


def _dropout(layer: Any, random: Any) -> Function:
    kept = 1 - layer.rate

    def dropped(features: Any, _: Any, training: bool) -> Any:
        if not training:
            return features
        chance = pytorch().rand(features.shape, generator=random, device=features.device)
        return features * (chance < kept) / kept

    return dropped


def _dense(_: Any, __: Any, kernel: Any, bias: Any) -> Function:
    return lambda features, *_: pytorch().nn.functional.linear(features, kernel, bias)


_KINDS: dict[str, tuple[tuple[Axes, ...], Callable[..., Function]]] = {
    "Rescaling": ((), _rescaling),
    "ZeroPadding2D": ((), _padding),
    "Conv2D": (((3, 2, 0, 1), (0,)), _convolution),
    "DepthwiseConv2D": (((2, 3, 0, 1), (0,)), _convolution),
    "ReLU": ((), _rectified),
    "Add": ((), lambda *_: lambda maps, given, _: maps + given),
    "GlobalAveragePooling2D": ((), lambda *_: lambda maps, *_: maps.mean(dim=(2, 3))),
    "Dropout": ((), _dropout),
    "Dense": (((1, 0), (0,)), _dense),
}

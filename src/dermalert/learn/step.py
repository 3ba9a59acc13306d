"""One training step, and everything that a step changes.

Comes in: a Keras model, its weights by stage and a recipe's loss; then batches of pixels and labels, with a learning
rate. Goes out: the batch's loss and hits, and the `state`: every number that decides what later steps do, as plain
arrays. It works for any Keras model; it knows nothing of epochs, files or validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import RunError
from dermalert.learn.backend import backend
from dermalert.learn.together import Together

State = dict[str, NDArray[Any]]

FOCUS = 2.0  # gamma of the focal loss, as its authors chose it
NEVER = -1e9  # a logit so low that its class has no part in a sum of probabilities


@dataclass(frozen=True)
class Labels:
    """What a batch of B pictures shows.

    Attributes:
        own: float32 (B, C), 1 for each class that the picture's label may stand for, else 0.
        other: the same of the picture that was mixed in; where none was, the picture's own.
        share: float32 (B,), how much of the label is the picture's own.
        weight: float32 (B,), how much the picture counts in what is minimised.
    """

    own: NDArray[np.float32]
    other: NDArray[np.float32]
    share: NDArray[np.float32]
    weight: NDArray[np.float32]

    @classmethod
    def plain(cls, own: NDArray[np.float32]) -> Labels:
        """Of pictures as they are, each counting once."""
        ones = np.ones(len(own), np.float32)
        return cls(own, own, ones, ones)

    def __getitem__(self, rows: slice) -> Labels:
        """Of some of the pictures."""
        return Labels(self.own[rows], self.other[rows], self.share[rows], self.weight[rows])


class Step:
    """Adam on the cross-entropy of what labels may stand for.

    A coarse label's probability is that of all its classes together. What is minimised may weigh pictures, focus on
    hard ones (Lin et al., ICCV 2017) or offset the logits (Menon et al., ICLR 2021); the loss that is told is always
    the plain cross-entropy, so that curves of different recipes compare.

    Adam as in Kingma and Ba (https://arxiv.org/abs/1412.6980), with Keras's defaults and the same arithmetic, in
    one fused TensorFlow kernel a weight: Keras's own makes a dozen passes over each.
    """

    def __init__(
        self,
        model: Any,
        *,
        stages: Sequence[Sequence[Any]] | None = None,
        rates: Sequence[float] | None = None,
        focal: bool = False,
        offset: NDArray[np.float32] | None = None,
        soft: bool = False,
        takes: str = "uint8",
        together: Together | None = None,
    ) -> None:
        """
        Args:
            stages: the trainable variables from the head down; by default all are one stage.
            rates: each stage's factor of the learning rate; by default 1.
            focal: minimise the focal loss.
            offset: float32 (C,), added to the logits in the loss, not in the model.
            soft: labels are given as probabilities, as another network's, and not as what they may stand for.
            takes: the type of what the model is given.
            together: the processes that learn from each batch together, a share each; None: this one does alone.
        """
        tf = backend().tf
        self.model = model
        groups = [[variable.value for variable in stage] for stage in (stages or [model.trainable_variables])]
        self._head = len(groups[0])
        self._weights = [weight for group in groups for weight in group]
        rates = rates or [1.0] * len(groups)
        self._factors = [rate for rate, group in zip(rates, groups, strict=True) for _ in group]
        self._focal = focal
        self._losses = soft_losses if soft else coarse_losses
        self._together = together
        classes = model.output_shape[-1]
        self._offset = tf.constant(np.zeros(classes) if offset is None else offset, tf.float32)
        self._means = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in self._weights]
        self._squares = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in self._weights]
        # Head and backbone count their own steps: a backbone that was frozen starts with fresh moments.
        self._steps = tf.Variable(tf.zeros(2, tf.int64), trainable=False)
        height, width, channels = model.input_shape[1:]
        signature = [
            tf.TensorSpec((None, height, width, channels), takes),
            *(tf.TensorSpec((None, classes), tf.float32) for _ in range(2)),
            *(tf.TensorSpec((None,), tf.float32) for _ in range(2)),
        ]
        rated = [*signature, tf.TensorSpec((), tf.float32)]
        run = together.run if together else lambda work: work
        self._train_all = tf.function(run(self._train_graph(len(self._weights))), input_signature=rated)
        self._train_head = tf.function(run(self._train_graph(self._head)), input_signature=rated)
        self._test = tf.function(self._test_graph, input_signature=signature)

    def train(
        self, pixels: NDArray[np.uint8], labels: Labels, rate: float, *, head_only: bool = False
    ) -> tuple[float, int]:
        """Learns from a batch; its summed cross-entropy and the number of first choices that its labels allow."""
        if self._together:
            share = self._together.share(len(pixels))
            pixels, labels = pixels[share], labels[share]
        learn = self._train_head if head_only else self._train_all
        loss, hits = learn(pixels, labels.own, labels.other, labels.share, labels.weight, np.float32(rate))
        return float(loss), int(hits)

    def test(self, pixels: NDArray[np.uint8], labels: Labels) -> tuple[float, int]:
        """The same figures for a batch, learning nothing."""
        loss, hits = self._test(pixels, labels.own, labels.other, labels.share, labels.weight)
        return float(loss), int(hits)

    def state(self) -> State:
        """A copy of the weights, the optimizer's moments, and the state of dropout's generators."""
        return {name: np.array(variable.numpy()) for name, variable in self._variables().items()}

    def restore(self, state: State) -> None:
        """Continues from a `state`.

        Raises:
            RunError: it belongs to another network.
        """
        variables = self._variables()
        if state.keys() != variables.keys() or any(state[n].shape != tuple(v.shape) for n, v in variables.items()):
            raise RunError("The checkpoint belongs to another network. Train into another folder.")
        for name, variable in variables.items():
            variable.assign(state[name])

    def _variables(self) -> dict[str, Any]:
        numbered = {
            "weight": self.model.variables,  # trained ones, running averages and generator states
            "mean": self._means,
            "square": self._squares,
            "steps": [self._steps],
        }
        return {f"{kind}_{i:03d}": variable for kind, group in numbered.items() for i, variable in enumerate(group)}

    def _train_graph(self, count: int) -> Any:
        """A step on the first `count` weights."""
        tf = backend().tf
        moved = tf.constant([1, int(count > self._head)], tf.int64)

        def train(pixels: Any, own: Any, other: Any, share: Any, weight: Any, rate: Any) -> tuple[Any, Any]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(self._weights[:count])
                logits = tf.cast(self.model(pixels, training=True), tf.float32) + self._offset
                losses = share * self._losses(logits, own) + (1 - share) * self._losses(logits, other)
                focused = share * self._hard(logits, own) + (1 - share) * self._hard(logits, other)
                objective = tf.add_n([tf.reduce_mean(weight * focused), *self.model.losses])
            gradients = tape.gradient(objective, self._weights[:count])
            told = tf.reduce_sum(losses), _hits(logits, own)
            if self._together:
                gradients, told = self._of_all(self._together, gradients, told, tf.size(losses))
            self._adam(gradients, tf.cast(self._steps.assign_add(moved), tf.float32), rate)
            return told

        return train

    def _of_all(self, together: Together, gradients: Sequence[Any], told: Sequence[Any], size: Any) -> tuple[Any, Any]:
        """Gradients and figures of the whole batch; the running averages of all processes become their mean."""
        tf = backend().tf
        averages = [each.value for each in self.model.non_trainable_variables if each.dtype == "float32"]
        pictures, *figures = (tf.cast(each, tf.float32) for each in (size, *told))
        summed = together.sum([pictures, *figures, *averages, *(each * pictures for each in gradients)])
        total, loss, hits = summed[:3]
        for average, every in zip(averages, summed[3:], strict=False):
            average.assign(every / together.count)
        return [each / total for each in summed[3 + len(averages) :]], (loss, hits)

    def _hard(self, logits: Any, allowed: Any) -> Any:
        losses = self._losses(logits, allowed)
        return (1 - backend().tf.exp(-losses)) ** FOCUS * losses if self._focal else losses

    def _adam(self, gradients: Sequence[Any], steps: Any, rate: Any) -> None:
        tf = backend().tf
        beta1, beta2, epsilon = (tf.constant(value, tf.float32) for value in (0.9, 0.999, 1e-7))
        for index, gradient in enumerate(gradients):
            count = steps[int(index >= self._head)]
            tf.raw_ops.ResourceApplyAdam(
                var=self._weights[index].handle,
                m=self._means[index].handle,
                v=self._squares[index].handle,
                beta1_power=tf.pow(beta1, count),
                beta2_power=tf.pow(beta2, count),
                lr=rate * self._factors[index],
                beta1=beta1,
                beta2=beta2,
                epsilon=epsilon,
                grad=gradient,
            )

    def _test_graph(self, pixels: Any, own: Any, other: Any, share: Any, weight: Any) -> tuple[Any, Any]:
        logits = backend().tf.cast(self.model(pixels, training=False), "float32") + self._offset
        losses = share * self._losses(logits, own) + (1 - share) * self._losses(logits, other)
        return backend().tf.reduce_sum(weight * losses), _hits(logits, own)


def coarse_losses(logits: Any, allowed: Any) -> Any:
    """float32 (B,): minus the logarithm of the probability of all allowed classes together."""
    tf = backend().tf
    among = tf.reduce_logsumexp(tf.where(allowed > 0, logits, NEVER), axis=1)
    return tf.reduce_logsumexp(logits, axis=1) - among


def soft_losses(logits: Any, given: Any) -> Any:
    """float32 (B,): the cross-entropy with given probabilities."""
    return backend().tf.nn.softmax_cross_entropy_with_logits(labels=given, logits=logits)


def _hits(logits: Any, own: Any) -> Any:
    """How many first choices are allowed by the label, or are the label's own where it is given as probabilities."""
    tf = backend().tf
    allowed = tf.equal(own, tf.reduce_max(own, axis=1, keepdims=True))
    return tf.math.count_nonzero(tf.gather(allowed, tf.argmax(logits, axis=1), batch_dims=1))

"""One training step, and everything that a step changes.

Comes in: a Keras model and a learning rate; then batches of pixels and targets. Goes out: the batch's loss and
hits, and the `state`: every number that decides what later steps do, as plain arrays.
It works for any Keras model; it knows nothing of epochs, files or validation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalert.errors import RunError
from dermalert.learn.backend import backend

State = dict[str, NDArray[Any]]


class Step:
    """Adam on categorical cross-entropy from logits.

    Adam as in Kingma and Ba (https://arxiv.org/abs/1412.6980), with Keras's defaults and the same arithmetic, in
    one fused TensorFlow kernel a weight: Keras's own makes a dozen passes over each.
    """

    def __init__(self, model: Any, learning_rate: float) -> None:
        tf = backend().tf
        self.model = model
        self._weights = [variable.value for variable in model.trainable_variables]
        self._means = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in self._weights]
        self._squares = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in self._weights]
        self._steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        height, width, channels = model.input_shape[1:]
        signature = [
            tf.TensorSpec((None, height, width, channels), tf.uint8),
            tf.TensorSpec((None, model.output_shape[-1]), tf.float32),
        ]
        self._train = tf.function(self._train_graph(learning_rate), input_signature=signature)
        self._test = tf.function(self._test_graph, input_signature=signature)

    def train(self, pixels: NDArray[np.uint8], targets: NDArray[np.float32]) -> tuple[float, int]:
        """Learns from a batch; its summed loss and the number of pictures whose first choice was right."""
        loss, hits = self._train(pixels, targets)
        return float(loss), int(hits)

    def test(self, pixels: NDArray[np.uint8], targets: NDArray[np.float32]) -> tuple[float, int]:
        """The same figures for a batch, learning nothing."""
        loss, hits = self._test(pixels, targets)
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

    def _train_graph(self, learning_rate: float) -> Any:
        tf = backend().tf
        beta1, beta2, epsilon = (tf.constant(value, tf.float32) for value in (0.9, 0.999, 1e-7))
        rate = tf.constant(learning_rate, tf.float32)

        def train(pixels: Any, targets: Any) -> tuple[Any, Any]:
            with tf.GradientTape() as tape:
                losses, hits = _judge(self.model(pixels, training=True), targets)
                objective = tf.add_n([tf.reduce_mean(losses), *self.model.losses])
            gradients = tape.gradient(objective, self._weights)
            count = tf.cast(self._steps.assign_add(1), tf.float32)
            for weight, mean, square, gradient in zip(
                self._weights, self._means, self._squares, gradients, strict=True
            ):
                tf.raw_ops.ResourceApplyAdam(
                    var=weight.handle,
                    m=mean.handle,
                    v=square.handle,
                    beta1_power=tf.pow(beta1, count),
                    beta2_power=tf.pow(beta2, count),
                    lr=rate,
                    beta1=beta1,
                    beta2=beta2,
                    epsilon=epsilon,
                    grad=gradient,
                )
            return tf.reduce_sum(losses), hits

        return train

    def _test_graph(self, pixels: Any, targets: Any) -> tuple[Any, Any]:
        losses, hits = _judge(self.model(pixels, training=False), targets)
        return backend().tf.reduce_sum(losses), hits


def _judge(logits: Any, targets: Any) -> tuple[Any, Any]:
    """Each picture's cross-entropy, float32 (B,), and how many first choices are among the likeliest targets."""
    tf = backend().tf
    logits = tf.cast(logits, tf.float32)
    losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
    chosen = tf.gather(targets, tf.argmax(logits, axis=1), batch_dims=1)
    return losses, tf.math.count_nonzero(chosen >= tf.reduce_max(targets, axis=1))

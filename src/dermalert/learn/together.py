"""Training on several machines at once: each process learns from its share of every batch, by all their gradients.

Comes in: TF_CONFIG, the environment variable by which TensorFlow is told of its workers. Goes out: what `Step` needs to
act as one with them. Every process runs the same command on the same data and ends with the same weights; it knows
nothing of files.

The sum goes through the collective operations of `tf.distribute.MultiWorkerMirroredStrategy`, in a ring (Patarasuk and
Yuan, J. Parallel Distrib. Comput. 2009): what a worker sends does not grow with their number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dermalert.errors import RunError
from dermalert.learn.backend import backend


@dataclass(frozen=True)
class Together:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        count: of processes.
    """

    rank: int
    count: int
    _strategy: Any

    def share(self, size: int) -> slice:
        """This process's part of a batch of so many pictures.

        Raises:
            RunError: there are fewer pictures than processes.
        """
        if size < self.count:
            raise RunError(
                f"A batch of {size} pictures, such as the last of an epoch, cannot be shared by {self.count} "
                "processes. Change the batch size or their number."
            )
        return slice(size * self.rank // self.count, size * (self.rank + 1) // self.count)

    def run(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, in which `sum` can be called."""
        return lambda *given: self._strategy.run(work, args=given)

    def sum(self, tensors: Sequence[Any]) -> list[Any]:
        """Each tensor's sum over all processes, the same to the last bit in every one."""
        tf = backend().tf
        here = tf.distribute.get_replica_context()
        return list(here.all_reduce(tf.distribute.ReduceOp.SUM, [tf.identity(each) for each in tensors]))

    def check_alike(self, epochs: int) -> None:
        """Sees to it that all have done as many epochs.

        Raises:
            RunError: they have not.
        """
        tf = backend().tf
        summed = self.run(lambda: self.sum([tf.constant(epochs, tf.int64), tf.constant(epochs**2, tf.int64)]))
        total, squares = map(int, tf.function(summed)())
        if self.count * squares != total**2:
            raise RunError(
                f"The run has {epochs} whole epochs here and another number elsewhere. Copy the run folder of the "
                "process that is furthest to the others, then resume all."
            )


@lru_cache(maxsize=1)
def together() -> Together | None:
    """The processes that TF_CONFIG tells of; None where it tells of none but this.

    Waits until all are there. Has to be called before TensorFlow computes anything.

    Raises:
        RunError: TF_CONFIG cannot be understood.
    """
    told = os.environ.get("TF_CONFIG")
    if not told:
        return None
    try:
        config = json.loads(told)
        workers, rank = config["cluster"]["worker"], int(config["task"]["index"])
        if config["task"]["type"] != "worker" or not 0 <= rank < len(workers):
            raise ValueError("this process is none of its workers")
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"TF_CONFIG cannot be understood ({error}). docs/scaling.md shows one.") from None
    if len(workers) == 1:
        return None
    communication = backend().tf.distribute.experimental
    ring = communication.CommunicationOptions(implementation=communication.CommunicationImplementation.RING)
    strategy = backend().tf.distribute.MultiWorkerMirroredStrategy(communication_options=ring)
    return Together(rank, len(workers), strategy)

"""Scoring on many machines, or on all cores of one, by Ray Data.

Comes in: a plan. Goes out: a Parquet file of findings for each of its blocks, in a folder that every machine sees. What
is done with a block is what is done on one machine: decoded on threads, scored in the same batches by the same
function. It splits nothing (the plan did) and decides nothing.

Every worker is an actor that loads the model once. Ray gives it one block after another, each a number: a picture is
decoded where it is scored, as its pixels are ten times its file. A worker that dies is replaced, and its block given to
another; a file takes its name when it is whole, so a block is written once, whoever tried it before.
"""

from __future__ import annotations

import copy
import logging
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dermalert import __version__
from dermalert.disk import written_whole
from dermalert.errors import ClusterError, MissingExtra
from dermalert.intake.decode import DEFAULT_LIMITS, Limits
from dermalert.intake.given import Found
from dermalert.intake.overlap import in_order
from dermalert.score.batch import BATCH, Finding, Judge, findings_of, load_found
from dermalert.score.engine import Engine
from dermalert.score.output import table_of
from dermalert.score.plan import Plan

ATTEMPTS = 4  # at a block, before the run goes on without it
_STORE = 100 << 20  # bytes of the object store of a Ray of our own: only numbers of blocks go through it
_FEW = 10_000  # tasks that Ray plans at once; of more blocks, several make one


@dataclass(frozen=True)
class Cluster:
    """Where to run.

    Attributes:
        address: of a Ray cluster, `host:port`, or `auto` on one of its machines; None: a Ray of our own on this
            machine, for this run.
        workers: actors; None: as many as there is room for, and more as machines join.
        worker_cpus: cores of each: decoding threads, and threads of the model where no GPU is asked for.
        worker_gpus: of each, whole ones or a share, which its model then runs on; 0: it runs on the cores.
    """

    address: str | None = None
    workers: int | None = None
    worker_cpus: int = 1
    worker_gpus: float = 0


@dataclass(frozen=True)
class Done:
    """A block whose findings are written. `pictures` counts those of earlier attempts, too."""

    block: int
    pictures: int


def score_on_cluster(plan: Plan, judge: Judge, cluster: Cluster, *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Done]:
    """Scores what of the plan is not scored yet, and tells of each block once it is written, in no order.

    Raises:
        MissingExtra: Ray is not installed.
        ClusterError: the cluster cannot be reached or gives no workers; or some block failed `ATTEMPTS` times: the
            others are written, and the same command takes up those that are not.
    """
    ray = _ray(local=cluster.address is None)
    missing = set(plan.unfinished())
    with _connected(ray, cluster):
        for row in _rows(ray, sorted(missing), _Worker.arguments(plan, judge, cluster, limits), cluster):
            missing.discard(row["block"])
            yield Done(row["block"], row["pictures"])
    if not missing:
        for left in plan.out.glob(".part-*"):  # by workers that died
            left.unlink(missing_ok=True)
    else:
        first = plan.told(min(missing))
        raise ClusterError(
            f"{len(missing)} of {len(plan)} blocks could not be scored, though tried {ATTEMPTS} times: first {first}. "
            "All others are written. Run the same command again for these; Ray's logs tell why."
        )


class _Worker:
    """An actor: the model, loaded once, and what it takes to score a block."""

    def __init__(self, out: str, judge: Judge, cluster: Cluster, limits: Limits, version: str) -> None:
        if version != __version__:
            raise ClusterError(f"Dermalert is {__version__} on a worker and {version} where the run was started.")
        self._plan = Plan(Path(out))
        self._judge, self._limits, self._threads = judge, limits, cluster.worker_cpus
        self._engine = Engine(judge.bundle, threads=cluster.worker_cpus, gpu=cluster.worker_gpus > 0)

    @staticmethod
    def arguments(plan: Plan, judge: Judge, cluster: Cluster, limits: Limits) -> tuple[Any, ...]:
        """What it is made of, to be sent there."""
        return str(plan.out.absolute()), judge, cluster, limits, __version__

    def __call__(self, row: dict[str, int]) -> dict[str, int]:
        pictures = 0
        for file, found in self._plan.parts(row["block"], self._limits):
            pictures += sum(1 for _ in found) if file.is_file() else self._write(file, found)
        return {**row, "pictures": pictures}

    def _write(self, file: Path, found: Iterator[Found]) -> int:
        findings = list(self._findings(found))
        write_part(findings, self._judge.bundle.classes, file)
        return len(findings)

    def _findings(self, found: Iterator[Found]) -> Iterator[Finding]:
        load = partial(load_found, size=self._judge.bundle.size, limits=self._limits)
        loaded = in_order(load, found, self._threads)
        while batch := list(islice(loaded, BATCH)):
            yield from findings_of(self._engine, self._judge, batch)


def write_part(findings: list[Finding], classes: tuple[str, ...], file: Path) -> None:
    """Writes a file of findings whole or not at all; of two that write the same one, the last counts."""
    with written_whole(file, part=file.with_name(f".{file.name}.{uuid.uuid4().hex}")) as stream:
        pq.write_table(table_of(findings, classes), stream, compression="zstd")


# Ray


def _ray(*, local: bool) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if local:  # Ray's switch for desktops, read as it is imported: its servers then listen on 127.0.0.1 only
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise MissingExtra("Scoring on many machines", "cluster") from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what failed for good is told at the end
    return ray


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Ray itself, connected as `cluster` says, for other work than scoring. Raises as `score_on_cluster`."""
    ray = _ray(local=cluster.address is None)
    with _connected(ray, cluster):
        yield ray


@contextmanager
def _connected(ray: Any, cluster: Cluster) -> Iterator[None]:
    """Connects to the cluster, or starts a Ray of our own; one that is connected already is used as it is."""
    if ray.is_initialized():
        yield
        return
    own = {
        "num_cpus": (cluster.workers or 0) * cluster.worker_cpus or None,
        "object_store_memory": _STORE,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
    }
    try:
        ray.init(
            cluster.address or "local",
            logging_level=logging.ERROR,
            log_to_driver=False,
            **({} if cluster.address else own),
        )
    except Exception as error:  # Ray raises whatever its parts do
        raise ClusterError(f"Ray at {cluster.address or 'this machine'}: {_first_line(error)}") from None
    try:
        if cluster.address is None:
            check_room(ray.cluster_resources(), cluster)
        yield
    finally:
        ray.shutdown()


def check_room(there: Mapping[str, float], cluster: Cluster) -> None:
    """Sees to it that one worker fits on this machine, as Ray would wait for ever for another one.

    Raises:
        ClusterError: it does not.
    """
    for kind, wanted in (("CPU", cluster.worker_cpus), ("GPU", cluster.worker_gpus)):
        if wanted > there.get(kind, 0):
            raise ClusterError(
                f"A worker of {wanted:g} {kind}s does not fit on this machine, which has {there.get(kind, 0):g}. "
                f"Ask for fewer with --worker-{kind.lower()}s, or give the --address of a cluster."
            )


def _rows(ray: Any, blocks: list[int], arguments: tuple[Any, ...], cluster: Cluster) -> Iterator[dict[str, int]]:
    """What the workers return, as it comes."""
    if not blocks:
        return
    # How often a task is tried has no other way in yet; without it, a picture that kills its worker never ends.
    with warnings.catch_warnings(), ray.data.DataContext.current(_context(ray)):
        warnings.simplefilter("ignore", DeprecationWarning)
        todo = ray.data.from_items([{"block": one} for one in blocks], override_num_blocks=min(len(blocks), _FEW))
        done = todo.map(
            _Worker,
            fn_constructor_args=arguments,
            compute=_pool(ray, cluster, len(blocks)),
            num_cpus=cluster.worker_cpus,
            num_gpus=cluster.worker_gpus or None,
            max_restarts=-1,
            max_task_retries=ATTEMPTS - 1,
        )
    try:
        yield from done.iter_rows()
    except ray.exceptions.RayError as error:
        raise ClusterError(f"The cluster gave up: {_first_line(error)}") from None


def _context(ray: Any) -> Any:
    """How Ray Data acts in this run; the context of whoever calls stays as it is."""
    context = copy.deepcopy(ray.data.DataContext.get_current())
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # one that fails for good costs no other
    context.actor_task_retry_on_errors = [OSError]  # of the output folder: a share that is away for a moment
    context.max_consecutive_actor_init_deaths = ATTEMPTS - 1
    return context


def _pool(ray: Any, cluster: Cluster, blocks: int) -> Any:
    if cluster.workers is not None:
        return ray.data.ActorPoolStrategy(size=min(cluster.workers, blocks))
    return ray.data.ActorPoolStrategy(min_size=1, initial_size=_room(ray, cluster, blocks), max_size=blocks)


def _room(ray: Any, cluster: Cluster, blocks: int) -> int:
    """Workers that fit on the machines that are there now."""
    there = ray.cluster_resources()
    fits = [there.get("CPU", 0) // cluster.worker_cpus]
    if cluster.worker_gpus:
        fits.append(there.get("GPU", 0) // cluster.worker_gpus)
    return max(1, min(blocks, *map(int, fits)))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

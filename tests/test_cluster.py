"""Scoring by Ray: the same rows as on one machine, and a machine that is lost costs time, not rows."""

from __future__ import annotations

import os
import signal
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import psutil
import pyarrow.dataset as ds
import pytest

from dermalert import api
from dermalert.errors import ClusterError
from dermalert.score.batch import Judge
from dermalert.score.cluster import Cluster, Done, _ray, score_on_cluster
from dermalert.score.output import row_of
from dermalert.score.plan import Plan, planned
from graphs import bundle, paint

BLOCK = 32
MODEL = bundle()
JUDGE = Judge(MODEL, MODEL.operating_point)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 200 pictures, two of them broken, a tar of 40 of them, and the bundle."""
    home = tmp_path_factory.mktemp("home")
    for i in range(200):
        paint(home / "new" / f"{i:03d}.png", (i, i * 7 % 256, i * 13 % 256))
    for broken in (17, 180):
        (home / "new" / f"{broken:03d}.png").write_bytes(b"no picture")
    with tarfile.open(home / "shard.tar", "w") as tar:
        for i in range(40):
            tar.add(home / "new" / f"{i:03d}.png", f"{i:03d}.png")
    MODEL.save(home / "bundle")
    return home


def rows(out: Path) -> list[dict[str, Any]]:
    """As any reader of a Parquet folder finds them."""
    return [dict(row) for row in ds.dataset(out, format="parquet").to_table().to_pylist()]


def rows_here(home: Path) -> list[dict[str, Any]]:
    """Of the folder, on this machine's threads."""
    return [dict(row_of(finding, MODEL.classes)) for finding in api.score(home / "new", MODEL)]


def test_a_ray_of_its_own_gives_the_rows_of_this_machine_and_listens_on_no_network(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    blocked = planned(out, [home / "new", home / "shard.tar"], {}, block=BLOCK).out / "part-000002.parquet"
    (blocked / "in the way").mkdir(parents=True)
    heard = set[str]()
    with pytest.raises(ClusterError, match=r"1 of 8 blocks could not be scored.*064\.png to .*095\.png"):
        listen(score_on_cluster(Plan(out), JUDGE, Cluster()), heard)
    assert heard <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert heard, "Ray ran in processes of its own"
    (blocked / "in the way").rmdir()
    blocked.rmdir()
    here = rows_here(home)
    shard = [{**row, "path": f"{home}/shard.tar::{Path(str(row['path'])).name}"} for row in here[:40]]
    assert rows(out) == here[:64] + here[96:] + shard


def listen(run: Iterable[Done], heard: set[str]) -> None:
    """Adds the addresses on which processes that we started listen, while a run goes on."""
    for _ in run:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                connections = process.net_connections("tcp")
                heard |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}


@contextmanager
def gate(pictures: Path, both: Callable[[], None]) -> Iterator[str]:
    """A server that keeps whoever asks for a picture waiting till two do; then does `both`, and answers them."""
    waiting, lock, opened = set[str](), Lock(), Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                waiting.add(self.path)
                if len(waiting) == 2 and not opened.is_set():
                    both()
                    opened.set()
            opened.wait()
            try:
                self.send_response(200)
                self.end_headers()
                self.wfile.write((pictures / self.path[1:]).read_bytes())
            except OSError:  # the worker that asked is gone
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        opened.set()
        server.shutdown()
        server.server_close()


def test_a_machine_that_is_killed_in_the_middle_costs_time_and_no_row(home: Path, tmp_path: Path) -> None:
    _ray(local=True)
    from ray.cluster_utils import Cluster as Machines

    soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 2}
    small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    machines = Machines(initialize_head=True, head_node_args={**small, "_system_config": soon})
    killed: list[str] = []
    try:
        lost = machines.add_node(num_cpus=1, object_store_memory=80 << 20)

        def kill() -> None:
            raylet = psutil.Process(lost.all_processes["raylet"][0].process.pid)
            its = [raylet, *raylet.children(recursive=True)]
            killed.extend(process.name() for process in its)
            for process in its:
                os.kill(process.pid, signal.SIGKILL)

        with gate(home / "new", kill) as address:
            asked = [home / "new", f"{address}/001.png", home / "new", f"{address}/002.png"]
            plan = planned(tmp_path / "out", asked, {}, block=BLOCK)
            done = list(score_on_cluster(plan, JUDGE, Cluster(machines.address)))
    finally:
        machines.shutdown()
    assert any("MapWorker" in name for name in killed), "a worker was at work on the machine that was killed"
    assert sorted(one.block for one in done) == list(range(len(plan)))
    here = rows_here(home)
    asked_for = [{**here[i], "path": f"{address}/{i:03d}.png"} for i in (1, 2)]
    assert rows(tmp_path / "out") == here + asked_for[:1] + here + asked_for[1:]

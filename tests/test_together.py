"""Processes that train together: the losses and weights of one, and the same in each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermalert.errors import RunError
from dermalert.learn.together import Together, together

SCRIPT = Path(__file__).with_name("train_together.py")


def started(config: dict[str, Any] | None) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    if config:
        environment["TF_CONFIG"] = json.dumps(config)
    return subprocess.Popen(
        [sys.executable, str(SCRIPT)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def pair() -> list[subprocess.Popen[str]]:
    """Two processes of one training, on free ports of this machine."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        workers = [f"127.0.0.1:{each.getsockname()[1]}" for each in taken]
    tasks = [{"type": "worker", "index": rank} for rank in range(2)]
    return [started({"cluster": {"worker": workers}, "task": task}) for task in tasks]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_and_go_on_only_where_both_are() -> None:
    alone, one, two = (json.loads(each.communicate()[0]) for each in [started(None), *pair()])
    for rank, each in enumerate((one, two)):
        assert f"has {3 - rank} whole epochs here" in each.pop("refused")
    assert one == two, "to the last bit"
    np.testing.assert_allclose([loss for loss, _ in one["losses"]], [loss for loss, _ in alone["losses"]], rtol=1e-5)
    assert [hits for _, hits in one["losses"]] == [hits for _, hits in alone["losses"]]
    np.testing.assert_allclose(one["weights"], alone["weights"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [3, 7, 16])
def test_every_picture_of_a_batch_is_in_one_share(size: int) -> None:
    shares = [Together(rank, 3, None).share(size) for rank in range(3)]
    assert [row for share in shares for row in range(size)[share]] == list(range(size))


def test_a_batch_too_small_to_share_is_refused() -> None:
    with pytest.raises(RunError, match="A batch of 1 pictures"):
        Together(0, 2, None).share(1)


@pytest.mark.parametrize(
    "told", ["no json", "{}", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}']
)
def test_a_tf_config_that_cannot_be_understood_is_refused(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", told)
    together.cache_clear()
    with pytest.raises(RunError, match="TF_CONFIG cannot be understood"):
        together()


def test_one_process_alone_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    together.cache_clear()
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert together() is None

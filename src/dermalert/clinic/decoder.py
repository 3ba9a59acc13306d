"""A process of its own that decodes pictures, so that one which kills or hangs its decoder takes nothing else along.

Comes in: bytes that anybody may have made. Goes out: pixels at the model's size and their quality, or a `RefusedFile`.
It lives long and is started anew after it died. Nothing that it says is unpickled: a picture that takes it over could
otherwise take the service over.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import signal
import sys
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from dermalert.errors import BrokenPicture, DecoderLost, NotAPicture, RefusedFile, TooLarge, Unreadable
from dermalert.intake.decode import Limits, Picture, PictureInfo, decode
from dermalert.score.gate import Quality, measure_quality

_GRACE = 3.0  # seconds that a decoder may take beyond its own limit, which it looks at between blocks of input
_START = 60.0  # seconds until a new one must have started
_READY = b"ready"
_HEAD = 4  # bytes that hold the length of what is said in JSON before the pixels
_CHANNELS = 3
_REFUSALS = {kind.code: kind for kind in (NotAPicture, BrokenPicture, TooLarge, Unreadable, RefusedFile)}


@dataclass(frozen=True)
class Decoded:
    """A picture at the size asked for, and its quality as the gate measures it."""

    picture: Picture
    quality: Quality


class Decoder:
    """A decoding process, started when it is first needed. For one thread."""

    def __init__(self, limits: Limits, memory: int) -> None:
        """
        Args:
            limits: of one picture.
            memory: bytes that it may take beyond what it has when it starts; kept to on POSIX systems.
        """
        self._limits = limits
        self._memory = memory
        self._process: Any = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """The process; None while there is none."""
        return self._process.pid if self._connection else None

    def decode(self, data: bytes, size: tuple[int, int], name: str) -> Decoded:
        """A picture, squashed to `size` (width, height).

        Args:
            name: in errors; no file is opened.

        Raises:
            RefusedFile: as `intake.decode.decode`.
            DecoderLost: the process died or took too long; the next call starts another.
        """
        connection = self._started()
        try:
            connection.send_bytes(_framed({"size": size, "name": name}, data))
            if not connection.poll(self._limits.max_seconds + _GRACE):
                raise DecoderLost(f"Decoding took more than {self._limits.max_seconds:g} s, and was stopped.")
            return _answer(connection.recv_bytes())
        except (EOFError, OSError, ValueError, KeyError, TypeError):
            self.close()
            raise DecoderLost("The decoder died on this picture.") from None
        except DecoderLost:
            self.close()
            raise

    def close(self) -> None:
        """Ends the process."""
        if self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._process.close()
            self._connection = None

    def _started(self) -> Connection:
        if self._connection is None:
            context = multiprocessing.get_context("spawn")  # a fork would inherit locks that other threads hold
            self._connection, theirs = context.Pipe()
            seconds = math.ceil(self._limits.max_seconds + 2 * _GRACE)
            arguments = (theirs, self._limits, self._memory, seconds)
            self._process = context.Process(target=_serve, args=arguments, daemon=True, name="dermalert-decoder")
            self._process.start()
            theirs.close()
            try:
                ready = self._connection.poll(_START) and self._connection.recv_bytes() == _READY
            except (EOFError, OSError):
                ready = False
            if not ready:
                self.close()
                raise DecoderLost("The decoder does not start: is there memory left?")
        return self._connection


def _serve(connection: Connection, limits: Limits, memory: int, seconds: int) -> None:
    """The child: one picture after the other, until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends this in order
    _limit_memory(memory)
    connection.send_bytes(_READY)
    while True:
        try:
            asked, data = _unframed(connection.recv_bytes())
        except EOFError:
            return
        _alarm(seconds)
        connection.send_bytes(_decoded(data, tuple(asked["size"]), asked["name"], limits))
        _alarm(0)


def _decoded(data: bytes, size: tuple[int, int], name: str, limits: Limits) -> bytes:
    try:
        picture = decode(data, path=name, size=size, limits=limits)
    except RefusedFile as refusal:
        why = {"refused": refusal.code, "name": name, "reason": refusal.reason, "mend": refusal.mend}
        return _framed(why, b"")
    quality = measure_quality(picture.pixels, picture.info.width, picture.info.height)
    told = {"size": size, "info": asdict(picture.info), "quality": asdict(quality)}
    return _framed(told, picture.pixels.tobytes())


def _answer(message: bytes) -> Decoded:
    told, pixels = _unframed(message)
    if "refused" in told:
        raise _REFUSALS[told["refused"]](told["name"], told["reason"], told["mend"])
    width, height = told["size"]
    array = np.frombuffer(pixels, np.uint8).reshape(height, width, _CHANNELS)
    return Decoded(Picture(array, PictureInfo(**told["info"])), Quality(**told["quality"]))


def _framed(told: dict[str, Any], data: bytes) -> bytes:
    head = json.dumps(told).encode()
    return len(head).to_bytes(_HEAD, "big") + head + data


def _unframed(message: bytes) -> tuple[dict[str, Any], bytes]:
    end = _HEAD + int.from_bytes(message[:_HEAD], "big")
    told: dict[str, Any] = json.loads(message[_HEAD:end])
    return told, message[end:]


def _alarm(seconds: int) -> None:
    """Lets the kernel end this process after so long, even inside a codec whose service has died; 0: no more."""
    if sys.platform != "win32":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)


def _limit_memory(more: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    statm = Path("/proc/self/statm")
    taken = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = taken + more
    resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))

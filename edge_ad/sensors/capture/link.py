"""The parent's end of one capture process: start it, take its frames, give it orders, end it."""

from __future__ import annotations

import array
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edge_ad
from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame
from edge_ad.sensors.capture.ring import Ring
from edge_ad.sensors.capture.watchdog import Fault, WatchOptions

MESSAGE_BYTES = 1 << 16


@dataclass(frozen=True)
class Delivered:
    """A frame and what the checker beside the camera saw amiss in it."""

    frame: Frame
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Message:
    """Anything else that the process says: ``ready``, ``fault``, ``broken``, ``reset`` or ``end``."""

    kind: str
    fields: dict[str, Any]


class CaptureLink:
    """One running capture process.

    lossless : every frame is delivered (the camera waits); else a frame that was not taken yet gives way to a newer
    one, and is counted in ``dropped``. memory : of an earlier process's checker.
    """

    def __init__(
        self,
        uri: str,
        options: WatchOptions,
        *,
        slots: int = 6,
        lossless: bool = False,
        memory: dict[str, Any] | None = None,
    ) -> None:
        self._options = options
        self._lossless = lossless
        self._rings: dict[int, Ring] = {}
        self._waiting: deque[dict[str, Any]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.memory = memory or {}
        self.dropped = 0
        self.faults: Counter[str] = Counter()
        self.temperature_c: float | None = None
        self.last_arrival = time.monotonic()
        self.dead = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock = ours
        # The package's own folder, so that the child finds it wherever the program was started.
        paths = [str(Path(edge_ad.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edge_ad.sensors.capture.process", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=2,  # stdout belongs to the results
                env=environment,
                start_new_session=True,  # Ctrl-C is for us
            )
        except OSError as e:
            ours.close()
            raise EdgeAdError(f"cannot start the capture process: {e.strerror}", "", "free some memory") from None
        finally:
            theirs.close()
        config = {
            "uri": uri,
            "slots": slots,
            "lossless": lossless,
            "options": dataclasses.asdict(options),
            "memory": self.memory,
        }
        self._send(config)
        self._reader = threading.Thread(target=self._listen, name="capture-link", daemon=True)
        self._reader.start()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def pid(self) -> int:
        """Process id of the capture process."""
        return self._process.pid

    def order(self, what: str) -> None:
        """``restart`` the stream or ``reset`` the hardware. Frames that wait are of the old stream: they are
        dropped."""
        with self._changed:
            while self._waiting:
                self._drop()
        self._send({"t": what})

    def take(self, timeout: float) -> Delivered | Message | None:
        """The next thing, or None after ``timeout`` seconds or when the process is gone and all is taken."""
        with self._changed:
            if not self._waiting and not self.dead:
                self._changed.wait(timeout)
            if not self._waiting:
                return None
            message = self._waiting.popleft()
            ring = self._rings.get(message.get("ring", -1))
        if message["t"] != "frame":
            return Message(message["t"], message)
        assert ring is not None
        frame = ring.read(message["frame"])
        self._release(message)
        return Delivered(frame, tuple(Fault(*f) for f in message["faults"]))

    def exit_words(self) -> str:
        """How a dead process ended, for people."""
        try:  # its socket closes a moment before it can be asked
            code: int | None = self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            code = None
        if code is not None and code < 0:
            try:
                return f"signal {signal.Signals(-code).name}"
            except ValueError:
                return f"signal {-code}"
        return f"exit code {code}" if code is not None else "it closed its socket"

    def close(self) -> None:
        """End the process: asked, then told (SIGTERM), then killed. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._send({"t": "stop"})
        for wait, then in ((self._options.stop_s, self._process.terminate), (0.5, self._process.kill)):
            try:
                self._process.wait(wait)
                break
            except subprocess.TimeoutExpired:
                then()
        self._process.wait()
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other side was first
            pass
        self._reader.join(timeout=5)
        self._sock.close()
        with self._changed:
            for ring in self._rings.values():
                ring.close()
            self._rings.clear()
            self._waiting.clear()

    # -- the listening thread --------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while True:
            try:
                data, passed = self._receive()
            except OSError:
                data, passed = b"", []
            if not data:
                with self._changed:
                    self.dead = True
                    self._changed.notify_all()
                return
            message = json.loads(data)
            with self._changed:
                self._enter(message, passed)
                self._changed.notify_all()

    def _receive(self) -> tuple[bytes, list[int]]:
        numbers = array.array("i")
        data, ancillary, _, _ = self._sock.recvmsg(MESSAGE_BYTES, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
        return data, list(numbers)

    def _enter(self, message: dict[str, Any], passed: list[int]) -> None:
        kind = message["t"]
        if kind == "ring":
            self._rings[message["ring"]] = Ring(passed[0], message["slots"], message["bytes"])
            needed = {m.get("ring") for m in self._waiting} | {message["ring"], message["ring"] - 1}
            for old in [g for g in self._rings if g not in needed]:
                self._rings.pop(old).close()
            return
        for fault, _ in message.get("faults", ()):
            self.faults[fault] += 1
        if kind in ("frame", "dropped"):
            self.last_arrival = time.monotonic()
        if kind == "dropped":
            self.dropped += 1
            return
        if kind == "frame":
            self.memory = message["memory"]
            self.temperature_c = message["temperature"]
            if not self._lossless:  # the newest wins
                while self._waiting and self._waiting[0]["t"] == "frame":
                    self._drop()
        elif kind == "ready":
            self.last_arrival = time.monotonic()
        self._waiting.append(message)

    def _drop(self) -> None:
        message = self._waiting.popleft()
        if message["t"] == "frame":
            self.dropped += 1
            self._release(message)

    def _release(self, message: dict[str, Any]) -> None:
        self._send({"t": "free", "ring": message["ring"], "slot": message["slot"]})

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._sock.sendall(json.dumps(message).encode())
        except OSError:  # it is gone; the listening thread says so
            pass

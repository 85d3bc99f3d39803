"""The capture process: a camera by itself, its frames in shared memory, its orders from a socket.

Started by :mod:`edge_ad.sensors.capture.link` as ``python -m edge_ad.sensors.capture.process FD``. Both sides speak
JSON over a socket that keeps messages whole; a closed socket means that the other side is gone, and the camera is let
go.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from typing import Any

from edge_ad.errors import EdgeAdError, one_line
from edge_ad.frame import Frame
from edge_ad.parallel import end_with_parent
from edge_ad.sensors import BrokenFrame, Camera, open_camera
from edge_ad.sensors.capture.ring import Ring, slot_size
from edge_ad.sensors.capture.watchdog import FrameChecker, WatchOptions

MESSAGE_BYTES = 1 << 16
RESET_ELSEWHERE_S = 0.3
"""A reset that the camera's own thread has not taken up by then (it hangs) is done beside it."""
TEMPERATURE_EVERY_S = 5.0


class _Stop(BaseException):
    """Unwinds the camera's ``with`` block from a signal handler."""


class Worker:
    """The child's state: main thread with the camera, one thread that listens."""

    def __init__(self, sock: socket.socket, config: dict[str, Any]) -> None:
        self._sock = sock
        self._uri: str = config["uri"]
        self._slots: int = config["slots"]
        self._lossless: bool = config["lossless"]
        self._options = WatchOptions(**config["options"])
        self._checker = FrameChecker(self._options, config.get("memory"))
        self._ring: Ring | None = None
        self._generation = 0
        self._free: deque[int] = deque()
        self._changed = threading.Condition()
        self._order = ""  # "", "restart" or "reset": what the main thread is to do next
        self._camera: Camera | None = None
        self._temperature: tuple[float, float | None] = (float("-inf"), None)

    # -- messages ------------------------------------------------------------------------------------------------

    def tell(self, **message: Any) -> None:
        """Send one message; a reader that is gone ends this process."""
        data = json.dumps(message).encode()
        if len(data) > MESSAGE_BYTES:
            data = json.dumps({"t": "fault", "opening": False, "error": "a frame with too long a description"}).encode()
        try:
            self._sock.sendall(data)
        except OSError:
            raise _Stop from None

    def listen(self) -> None:
        """The listening thread: slots that are free again, and orders."""
        while True:
            try:
                data = self._sock.recv(MESSAGE_BYTES)
            except OSError:
                data = b""
            if not data:  # the other side is gone
                self._end()
                return
            message = json.loads(data)
            with self._changed:
                if message["t"] == "free":
                    if message["ring"] == self._generation:
                        self._free.append(message["slot"])
                else:
                    self._order = message["t"]
                self._changed.notify_all()
            if message["t"] == "stop":
                self._end()
            elif message["t"] == "reset":
                threading.Thread(target=self._reset_elsewhere, daemon=True).start()

    def _end(self) -> None:
        # A camera that does not close, or hangs in its driver, does not keep the process.
        threading.Timer(self._options.stop_s, os._exit, (1,)).start()
        os.kill(os.getpid(), signal.SIGTERM)

    # -- the camera ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Open the camera and deliver, again after every order, until told to stop."""
        while True:
            opening = True
            self._checker.new_stream()
            try:
                self._camera = open_camera(self._uri)
                with self._camera:
                    self.tell(t="ready", describe=self._camera.describe())
                    opening = False
                    if self._deliver(self._camera):
                        self.tell(t="end")
            except EdgeAdError as e:
                self.tell(t="fault", opening=opening, error=str(e))
            except Exception as e:  # a driver's own: a fault of the camera like others, and told as one
                self.tell(t="fault", opening=opening, error=f"{type(e).__name__}: {' '.join(str(e).split())}")
            with self._changed:
                while not self._order:
                    self._changed.wait()
                order, self._order = self._order, ""
            if order == "reset":
                self._reset()

    def _deliver(self, camera: Camera) -> bool:
        """Pass on frames; True at the end of the stream, False on an order."""
        for item in camera:
            if self._order:
                return False
            if isinstance(item, BrokenFrame):
                self.tell(t="broken", name=item.name, error=item.error)
            elif not self._frame(item, camera):
                return False
        return True

    def _frame(self, frame: Frame, camera: Camera) -> bool:
        now = time.monotonic()
        faults = self._checker(frame, now, self._read_temperature(camera, now))
        size = slot_size(frame)
        if self._ring is None or size > self._ring.slot_bytes:
            self._new_ring(size)
        slot = self._take_slot()
        verdict = [[f.kind, f.text] for f in faults]
        if slot is None:
            if not self._order:
                self.tell(t="dropped", faults=verdict)
            return not self._order
        assert self._ring is not None
        document = self._ring.write(slot, frame)
        self.tell(
            t="frame",
            ring=self._generation,
            slot=slot,
            at=now,
            frame=document,
            faults=verdict,
            memory=self._checker.memory,
            temperature=self._temperature[1],
        )
        return True

    def _take_slot(self) -> int | None:
        """A free slot; a lossless source waits for one, a live camera drops the frame and tells."""
        with self._changed:
            while not self._free and self._lossless and not self._order:
                self._changed.wait()
            return self._free.popleft() if self._free else None

    def _new_ring(self, size: int) -> None:
        if self._ring is not None:
            self._ring.close()
        self._ring = Ring.create(self._slots, size)
        with self._changed:
            self._generation += 1
            self._free = deque(range(self._slots))
        head = {"t": "ring", "ring": self._generation, "slots": self._slots, "bytes": self._ring.slot_bytes}
        try:
            socket.send_fds(self._sock, [json.dumps(head).encode()], [self._ring.fd])
        except OSError:
            raise _Stop from None

    def _read_temperature(self, camera: Camera, now: float) -> float | None:
        read = getattr(camera, "temperature_c", None)
        if callable(read) and now - self._temperature[0] >= TEMPERATURE_EVERY_S:
            try:
                value = read()
            except Exception:  # a sensor that cannot be read is no reason to lose frames
                value = None
            self._temperature = (now, None if value is None else float(value))
        return self._temperature[1]

    # -- hardware reset ------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        reset = getattr(self._camera, "hardware_reset", None)
        done, why = callable(reset), ""
        if callable(reset):
            try:
                reset()
            except Exception as e:
                done, why = False, one_line(e)
        self.tell(t="reset", done=done, error=why)

    def _reset_elsewhere(self) -> None:
        time.sleep(RESET_ELSEWHERE_S)
        with self._changed:
            if self._order != "reset":
                return
            self._order = "restart"
        try:
            self._reset()
        except _Stop:
            pass


def main(fd: int) -> None:
    """Run until told to stop, or until the parent is gone."""
    end_with_parent()
    sock = socket.socket(fileno=fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, which then ends this process in order

    def stop(number: int, _: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: the camera is closing
        raise _Stop

    try:
        signal.signal(signal.SIGTERM, stop)
        data = sock.recv(MESSAGE_BYTES)
        if data:
            worker = Worker(sock, json.loads(data))
            threading.Thread(target=worker.listen, daemon=True).start()
            worker.run()
    except _Stop:
        pass
    # Not sys.exit: a driver's thread that never ends must not keep a closed camera's process.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))

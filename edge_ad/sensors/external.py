"""External triggers: a line on standard input, an HTTP call, an MQTT message. Each asks for one inspection."""

from __future__ import annotations

import json
import os
import re
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, Any

from edge_ad.errors import EdgeAdError, missing_package
from edge_ad.frame import Frame
from edge_ad.sensors import BrokenFrame
from edge_ad.sensors.triggers import Trigger, safe_label
from edge_ad.sensors.uri import Uri

MOST_WAITING = 100
"""Requests that wait for a frame; more are refused, and counted: a camera that stands must not fill the memory."""
BODY_BYTES = 4096


class Requests:
    """Labels that wait for the next frame. Base of all external triggers; safe to use from any thread.

    A request is answered by the first frame that is taken after it; while the camera fails, by the report of it.
    """

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._lock = threading.Lock()
        self.refused = 0

    def ask(self, label: str = "") -> bool:
        """Ask for one inspection; False when too many wait already."""
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                self.refused += 1
                return False
            self._waiting.append(safe_label(label))
            return True

    @property
    def waiting(self) -> int:
        """Requests without an answer."""
        with self._lock:
            return len(self._waiting)

    def start(self) -> None:
        """Begin to listen."""

    def close(self) -> None:
        """Stop listening."""

    def wants(self, item: Frame | BrokenFrame) -> str | None:
        """The label of the oldest request, or None."""
        del item
        with self._lock:
            return self._waiting.popleft() if self._waiting else None


class LineTrigger(Requests):
    """Every line on a stream asks for one inspection and labels it. The end of the stream asks for nothing more."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        super().__init__()
        self._stream = stream
        self._wake: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read in a thread. Raises EdgeAdError when there is no standard input."""
        stream = self._stream if self._stream is not None else sys.stdin
        try:
            number = stream.fileno()
        except (AttributeError, ValueError, OSError):
            raise EdgeAdError("trigger stdin: there is no standard input", "", "pipe the lines in") from None
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._read, args=(number, self._wake[0]), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        if self._wake is not None and self._thread is not None:
            os.close(self._wake[1])
            self._thread.join(timeout=2)
            os.close(self._wake[0])
            self._wake = None

    def _read(self, number: int, wake: int) -> None:
        # Unbuffered: a line that sits in Python's buffer would not wake select.
        rest = b""
        while True:
            ready, _, _ = select.select([number, wake], [], [])
            if wake in ready:
                return
            data = os.read(number, 65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.ask(line.decode("utf-8", "replace"))
            rest = rest[-BODY_BYTES:]


class HttpTrigger(Requests):
    """``POST /trigger`` asks for one inspection; its body, at most 4 KB of text, labels it. Answers with 202.

    Binds to this machine alone unless another address is named. There is no password: name another address only on a
    network of the line's own.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._address = (host, port)
        self._server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1]) if self._server is not None else self._address[1]

    def start(self) -> None:
        """Raises EdgeAdError when the address cannot be had."""
        requests = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # a caller that sends nothing must not keep a thread

            def do_POST(self) -> None:
                self._answer(*requests._called(self.path, self.headers.get("Content-Length"), self.rfile))

            def do_GET(self) -> None:
                if self.path == "/trigger":
                    self._answer(405, "POST asks for an inspection; GET does not, so that no browser does so by itself")
                else:
                    self._answer(404, "POST /trigger")

            def _answer(self, code: int, text: str) -> None:
                body = json.dumps({"waiting": requests.waiting, "message": text}).encode() + b"\n"
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """stderr belongs to the run."""

        try:
            self._server = ThreadingHTTPServer(self._address, Handler)
        except OSError as e:
            host, port = self._address
            raise EdgeAdError(
                f"trigger http: {host}:{port} cannot be had ({e.strerror})", "a free port", "name another: http:8090"
            ) from None
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _called(self, path: str, length: str | None, body: Any) -> tuple[int, str]:
        if path != "/trigger":
            return 404, "POST /trigger"
        if length is not None and not re.fullmatch(r"[0-9]{1,9}", length):
            return 400, "Content-Length is no number"
        size = int(length or 0)
        if size > BODY_BYTES:
            return 413, f"at most {BODY_BYTES} bytes"
        label = body.read(size).decode("utf-8", "replace") if size else ""
        if not self.ask(label):
            return 503, "too many requests wait for a frame"
        return 202, "the next frame is inspected"


class MqttTrigger(Requests):
    """Every message on a topic asks for one inspection; its payload labels it. Reconnects by itself."""

    def __init__(self, host: str, port: int, topic: str, say: Callable[[str], None]) -> None:
        super().__init__()
        self._host, self._port, self._topic, self._say = host, port, topic, say
        self._client: Any = None

    def start(self) -> None:
        """Raises EdgeAdError when the package is missing or the broker cannot be reached."""
        try:
            import paho.mqtt.client as mqtt
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError:
            raise missing_package("paho-mqtt", "mqtt") from None
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.on_connect = self._connected
        client.on_disconnect = lambda *_: self._say(f"trigger mqtt: the connection to {self._host} is lost")
        client.on_message = lambda _client, _data, message: self.message(bytes(message.payload), message.retain)
        client.reconnect_delay_set(1, 30)
        try:
            client.connect(self._host, self._port, keepalive=20)
        except (OSError, ValueError) as e:
            where = f"{self._host}:{self._port}"
            raise EdgeAdError(f"trigger mqtt: no broker at {where} ({e})", "a broker that answers") from None
        client.loop_start()
        self._client = client

    def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def message(self, payload: bytes, retained: bool = False) -> None:
        """One message came. A retained one is of the past and asks for nothing."""
        if not retained:
            self.ask(payload[:BODY_BYTES].decode("utf-8", "replace"))

    def _connected(self, client: Any, *_: Any) -> None:
        client.subscribe(self._topic, qos=1)  # after every reconnection


def open_external(uri: Uri, say: Callable[[str], None]) -> Trigger:
    """``stdin:``, ``http:[HOST:]PORT``, ``mqtt:HOST[:PORT]/TOPIC``. Raises EdgeAdError."""
    uri.only()
    if uri.scheme == "stdin":
        if uri.path:
            raise EdgeAdError(f"trigger {uri}", "stdin:")
        return LineTrigger()
    if uri.scheme == "http":
        found = re.fullmatch(r"(?:(?P<host>[^:/]+|\[[0-9a-f:]+\]):)?(?P<port>[0-9]{1,5})", uri.path)
        if found is None or not 0 <= int(found["port"]) < 65536:
            raise EdgeAdError(f"trigger {uri}", "http:PORT, or http:HOST:PORT to listen beyond this machine")
        return HttpTrigger((found["host"] or "127.0.0.1").strip("[]"), int(found["port"]))
    found = re.fullmatch(r"(?://)?(?P<host>[^:/]+)(?::(?P<port>[0-9]{1,5}))?/(?P<topic>.+)", uri.path)
    if found is None or int(found["port"] or 1883) > 65535:
        raise EdgeAdError(f"trigger {uri}", "mqtt:HOST/TOPIC or mqtt:HOST:PORT/TOPIC")
    return MqttTrigger(found["host"], int(found["port"] or 1883), found["topic"], say)

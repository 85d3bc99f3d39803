"""Triggers: which frames are taken, and that a failing camera is never passed over."""

from __future__ import annotations

import http.client
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.calibration.scene import calibrate_scene
from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame
from edge_ad.runtime.preprocess import Scene
from edge_ad.sensors import BrokenFrame
from edge_ad.sensors.external import MOST_WAITING, HttpTrigger, LineTrigger, MqttTrigger, Requests
from edge_ad.sensors.triggers import Every, PartInView, TriggeredCamera, open_trigger, safe_label
from tests.scenes import scene_frame, scene_frames

PART = (40, 64, 40, 72)
BROKEN = BrokenFrame("gone", 0, "camera", "no frame for 2 s")


class ListCamera:
    """A camera of given items."""

    live = True

    def __init__(self, items: list[Frame | BrokenFrame]) -> None:
        self.items, self.open = items, 0

    def __enter__(self) -> ListCamera:
        self.open += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open -= 1

    def __iter__(self) -> Iterator[Frame | BrokenFrame]:
        yield from self.items

    def describe(self) -> str:
        return "a list"


def fired(trigger: PartInView | Every, frames: list[Frame]) -> list[int]:
    return [i for i, f in enumerate(frames) if trigger.wants(f) is not None]


@given(st.integers(1, 9), st.integers(0, 40))
def test_every_nth_frame(n: int, count: int) -> None:
    trigger = Every(n)
    taken = [i for i in range(count) if trigger.wants(BROKEN) is not None]
    assert taken == list(range(0, count, n))


def scene() -> Scene:
    return Scene(setup=calibrate_scene(scene_frames(6)).setup)


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_part_is_taken_once_when_it_is_fully_in_view_and_still(calibrated: bool) -> None:
    trigger = PartInView(scene() if calibrated else None, still=2)
    empty = [scene_frame(i) for i in range(3)]
    enters = [scene_frame(3 + i, box=PART, step=(0, 0)) for i in range(0)]
    moves = [scene_frame(10 + i, box=(40, 64, -20 + 20 * i, 12 + 20 * i)) for i in range(3)]  # cut off, then moving
    rests = [scene_frame(20 + i, box=PART) for i in range(6)]
    leaves = [scene_frame(30)]
    again = [scene_frame(40 + i, box=PART) for i in range(4)]
    frames = [*empty, *enters, *moves, *rests, *leaves, *again]
    first, second = len(empty) + len(moves) + 2, len(frames) - len(again) + 2
    assert fired(trigger, frames) == [first, second]


def test_a_part_cut_off_by_the_picture_or_the_region_is_never_taken() -> None:
    assert fired(PartInView(scene()), [scene_frame(i, box=(40, 64, 0, 40)) for i in range(6)]) == []
    roi = np.zeros((96, 128), bool)
    roi[20:70, 20:60] = True
    regional = PartInView(replace(scene(), roi=roi))
    assert fired(regional, [scene_frame(i, box=(30, 50, 30, 70)) for i in range(6)]) == []
    assert fired(PartInView(replace(scene(), roi=roi)), [scene_frame(i, box=(30, 50, 30, 50)) for i in range(6)]) == [2]


def test_a_part_that_moved_is_taken_again() -> None:
    frames = [scene_frame(i, box=PART) for i in range(4)] + [scene_frame(i, box=(40, 64, 56, 88)) for i in range(4, 8)]
    assert fired(PartInView(scene(), still=2), frames) == [2, 6]


def test_moving_parts_on_a_belt_are_taken_once_each() -> None:
    belt = [scene_frame(i, box=(40, 64, -40 + 8 * i, -8 + 8 * i)) for i in range(30)]
    assert len(fired(PartInView(scene(), still=0), belt)) == 1
    assert fired(PartInView(scene(), still=2), belt) == []


def test_what_the_trigger_cannot_judge_is_taken() -> None:
    trigger = PartInView(scene())
    assert trigger.wants(scene_frame(1, lost=1.0)) == ""
    assert trigger.wants(BROKEN) == ""


def test_reports_of_a_failing_camera_pass_every_trigger_and_frames_that_do_not_are_counted() -> None:
    camera = ListCamera([scene_frame(0), BROKEN, scene_frame(1), scene_frame(2), scene_frame(3)])
    with TriggeredCamera(camera, Every(4)) as triggered:
        out = list(triggered)
    assert [o.name for o in out] == ["scene-000", "gone", "scene-003"]
    assert triggered.passed == 2 and camera.open == 0 and not triggered.live


def test_a_request_is_answered_by_the_next_frame_and_labels_it() -> None:
    requests = Requests()
    camera = ListCamera([scene_frame(0), scene_frame(1), scene_frame(2), BROKEN])
    out = []
    with TriggeredCamera(camera, requests) as triggered:
        requests.ask("part 7/A")
        for item in triggered:
            out.append(item.name)
            requests.ask() if len(out) == 1 else requests.ask("late")
    assert out == ["scene-000-part-7-A", "scene-001", "scene-002-late", "gone-late"]


def test_stop_ends_a_stream_in_which_nothing_is_wanted() -> None:
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    camera = ListCamera([scene_frame(0)] * 50)
    with TriggeredCamera(camera, Requests(), stop) as triggered:
        assert list(triggered) == []
    assert len(asked) == 3


def test_too_many_requests_are_refused_and_counted() -> None:
    requests = Requests()
    assert all(requests.ask() for _ in range(MOST_WAITING)) and not requests.ask()
    assert requests.refused == 1 and requests.waiting == MOST_WAITING


@given(st.text(max_size=200))
def test_labels_are_safe_in_file_names(text: str) -> None:
    label = safe_label(text)
    assert len(label) <= 64 and "/" not in label and not label.startswith(".")
    assert all(c.isascii() and (c.isalnum() or c in "_.+-") for c in label)


def eventually(condition: object, within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.01)
    return False


def test_lines_ask_and_the_end_of_the_stream_asks_for_nothing_more() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stream:
        trigger = LineTrigger(stream)
        trigger.start()
        os.write(writing, b"one\ntw")
        os.write(writing, b"o\n\n")
        assert eventually(lambda: trigger.waiting == 3)
        os.write(writing, b"not finished")
        os.close(writing)
        time.sleep(0.05)
        assert [trigger.wants(BROKEN) for _ in range(4)] == ["one", "two", "", None]
        trigger.close()
        trigger.close()


def test_a_closed_line_trigger_leaves_no_thread() -> None:
    reading, writing = os.pipe()
    before = threading.active_count()
    with os.fdopen(reading) as stream:
        trigger = LineTrigger(stream)
        trigger.start()
        trigger.close()
    os.close(writing)
    assert threading.active_count() == before


def test_standard_input_that_is_none_is_one_line() -> None:
    with pytest.raises(EdgeAdError, match="no standard input"):
        LineTrigger(io.StringIO("x\n")).start()


def call(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_http_calls_ask() -> None:
    trigger = HttpTrigger("127.0.0.1", 0)
    trigger.start()
    try:
        port = trigger.port
        assert call(port, "POST", "/trigger", b"serial-42") == (
            202,
            b'{"waiting": 1, "message": "the next frame is inspected"}\n',
        )
        assert call(port, "POST", "/trigger")[0] == 202
        assert call(port, "GET", "/trigger")[0] == 405
        assert call(port, "GET", "/")[0] == 404
        assert call(port, "POST", "/elsewhere")[0] == 404
        assert call(port, "POST", "/trigger", b"x" * 5000)[0] == 413
        assert call(port, "POST", "/trigger", None, **{"Content-Length": "-4"})[0] == 400
        assert [trigger.wants(BROKEN) for _ in range(3)] == ["serial-42", "", None]
        for _ in range(MOST_WAITING):
            trigger.ask()
        assert call(port, "POST", "/trigger")[0] == 503
        with pytest.raises(EdgeAdError, match="cannot be had"):
            HttpTrigger("127.0.0.1", port).start()
    finally:
        trigger.close()
        trigger.close()


def test_http_listens_to_this_machine_alone_by_default() -> None:
    trigger = open_trigger("http:0")
    assert isinstance(trigger, HttpTrigger)
    trigger.start()
    try:
        assert trigger._server is not None and trigger._server.server_address[0] == "127.0.0.1"
    finally:
        trigger.close()
    named = open_trigger("http:0.0.0.0:8080")
    assert isinstance(named, HttpTrigger) and named._address == ("0.0.0.0", 8080)


def test_mqtt_messages_ask_and_retained_ones_do_not() -> None:
    trigger = MqttTrigger("localhost", 1883, "line/1", lambda line: None)
    trigger.message(b"serial-1")
    trigger.message(b"of yesterday", retained=True)
    assert [trigger.wants(BROKEN) for _ in range(2)] == ["serial-1", None]


def test_no_broker_is_one_line() -> None:
    pytest.importorskip("paho.mqtt.client")
    with pytest.raises(EdgeAdError, match="no broker at 127.0.0.1:1 "):
        MqttTrigger("127.0.0.1", 1, "line/1", lambda line: None).start()


def test_mqtt_without_its_package_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['paho'] = None\n"
        "from edge_ad.sensors.triggers import open_trigger\n"
        "open_trigger('mqtt:localhost/line').start()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'edge-ad[mqtt]'" in done.stderr


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("every", Every),
        ("every:5", Every),
        ("part", PartInView),
        ("part:?still=0&height-mm=3", PartInView),
        ("stdin:", LineTrigger),
        ("stdin", LineTrigger),
        ("http:8090", HttpTrigger),
        ("mqtt:broker:1884/line/3", MqttTrigger),
        ("mqtt://broker/line", MqttTrigger),
    ],
)
def test_triggers_by_their_text(text: str, kind: type) -> None:
    assert isinstance(open_trigger(text), kind)


@pytest.mark.parametrize(
    "text",
    ["", "often", "every:0", "every:x", "every:5?a=1", "part:left", "part:?still=-1", "stdin:x", "http:", "http:99999"]
    + ["http:a:b:1", "mqtt:host", "mqtt:host:99999/t", "part:?hight=3"],
)
def test_triggers_that_are_none(text: str) -> None:
    with pytest.raises(EdgeAdError):
        open_trigger(text)

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.outputs import open_output

ROOT = Path(__file__).parents[2]
needs_xvfb = pytest.mark.skipif(shutil.which("Xvfb") is None, reason="needs Xvfb (Debian: apt-get install xvfb)")


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A screen of its own for the test."""
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "1024x800x24", "-nolisten", "tcp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdout is not None
    try:
        number = server.stdout.readline().decode().strip()
        assert number.isdigit(), "Xvfb did not start"
        monkeypatch.setenv("DISPLAY", f":{number}")
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def test_no_display_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(EdgeAdError, match=r"DISPLAY is not set.*--output folder:DIR"):
        open_output("window:")


def test_a_display_that_refuses_does_not_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    with pytest.raises(EdgeAdError, match=r"display :4711 cannot be opened.*--output folder:DIR"):
        open_output("window:")


@needs_xvfb
def test_the_overlay_is_on_the_screen(display: str) -> None:
    """In a process of its own, since Qt keeps its threads; the window itself says how large it is."""
    code = (
        "import cv2\nfrom edge_ad.outputs import open_output\n"
        "from tests.outputs.helpers import a_frame, a_result, an_invalid_result\n"
        "with open_output('window:line 1') as output:\n"
        "    for _ in range(5):\n        output.write(a_frame(), a_result())\n"
        "    output.write(None, an_invalid_result())\n"
        "    x, y, width, height = cv2.getWindowImageRect('line 1')\n"
        "    assert width > 300 and height > 300, (width, height)\n"
        "    assert not output.closed\n"
        "    cv2.destroyWindow('line 1')\n"
        "    output.write(a_frame(), a_result())\n"
        "    print('shown')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "shown\n"


@needs_xvfb
def test_the_key_q_ends_the_run(display: str) -> None:
    if shutil.which("xdotool") is None:
        pytest.skip("needs xdotool (Debian: apt-get install xdotool)")
    code = (
        "import time\nfrom edge_ad.outputs import open_output\nfrom tests.outputs.helpers import a_frame, a_result\n"
        "with open_output('window:line 1') as output:\n"
        "    end = time.monotonic() + 30\n"
        "    while not output.closed and time.monotonic() < end:\n"
        "        output.write(a_frame(), a_result())\n        print('shown', flush=True)\n        time.sleep(0.02)\n"
        "    raise SystemExit(0 if output.closed else 3)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"shown\n"
    time.sleep(1.0)
    subprocess.run(
        ["xdotool", "search", "--name", "line 1", "windowfocus", "--sync", "key", "q"], check=True, capture_output=True
    )
    process.communicate(timeout=60)
    assert process.returncode == 0

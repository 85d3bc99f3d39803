"""librealsense: import it, find devices, and put its messages into one clear line. Nothing here starts a stream."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from edge_ad.errors import EdgeAdError, missing_package, one_line

SQLITE, ROSBAG = b"SQLite format 3\x00", b"#ROSBAG V2.0"
_INFO = (
    ("name", "name"),
    ("serial", "serial_number"),
    ("firmware", "firmware_version"),
    ("port", "physical_port"),
    ("usb", "usb_type_descriptor"),
    ("product_line", "product_line"),
)


def sdk() -> Any:
    """The module ``pyrealsense2``. Raises EdgeAdError with what to install when it or its library is missing."""
    try:
        import pyrealsense2
    except ModuleNotFoundError as e:
        if e.name and not e.name.startswith("pyrealsense2"):
            raise
        raise missing_package("pyrealsense2", "realsense") from None
    except ImportError as e:
        if "libusb" in str(e):
            raise EdgeAdError(
                "pyrealsense2 cannot load libusb-1.0.so.0", "the system's libusb", "run: apt install libusb-1.0-0"
            ) from None
        raise EdgeAdError(f"pyrealsense2 cannot be loaded ({e})", "", "install the version for this system") from None
    return pyrealsense2


def about(rs: Any, device: Any) -> dict[str, str]:
    """Name, serial, firmware, port, USB type of a device; what it does not tell is left out."""
    found = {}
    for key, name in _INFO:
        info = getattr(rs.camera_info, name)
        try:
            if device.supports(info):
                found[key] = str(device.get_info(info))
        except RuntimeError:  # a device that went away while it was asked
            continue
    return found


def connected() -> list[dict[str, str]]:
    """What is plugged in now; asking takes some milliseconds. Raises EdgeAdError without the SDK."""
    rs = sdk()
    return [about(rs, device) for device in _devices(context())]


def context() -> Any:
    """The SDK's view of the devices, which pipelines are opened from."""
    return sdk().context()


def pipeline(where: Any, serial: str) -> tuple[Any, Any]:
    """(pipeline, config) for one device of a context."""
    rs = sdk()
    config = rs.config()
    if serial:
        config.enable_device(serial)
    return rs.pipeline(where), config


def _devices(where: Any) -> list[Any]:
    # Asked before a pipeline starts: without a camera `pipeline.start()` waits 15 s.
    try:
        return list(where.query_devices())
    except RuntimeError as e:
        raise EdgeAdError(f"librealsense cannot list devices ({clean(e)})", "access to USB") from None


def find_device(where: Any, serial: str) -> tuple[Any, dict[str, str]]:
    """The device of a context with ``serial``, or the first one for ``""``. Raises EdgeAdError at once when absent."""
    rs = sdk()
    there = [(device, about(rs, device)) for device in _devices(where)]
    for device, info in there:
        if not serial or info.get("serial") == serial:
            return device, info
    if not there:
        wanted = f"RealSense camera {serial}" if serial else "RealSense camera"
        raise EdgeAdError(
            f"no {wanted} is connected", "one on a USB 3 port", "check cable and power, then run: edge-ad cameras"
        )
    names = ", ".join(f"{i.get('serial', '?')} ({i.get('name', 'unnamed')})" for _, i in there)
    raise EdgeAdError(f"no RealSense camera {serial} is connected", f"one of: {names}")


def reset(serial: str, timeout_s: float = 20.0) -> None:
    """Reset a camera's hardware and wait until it is listed again. Raises EdgeAdError when it does not come back."""
    device, info = find_device(context(), serial)
    serial = info.get("serial", serial)
    try:
        device.hardware_reset()
    except RuntimeError as e:
        raise EdgeAdError(f"the RealSense camera {serial} refused the reset ({clean(e)})") from None
    del device
    until, gone = time.monotonic() + timeout_s, False
    quick = time.monotonic() + timeout_s / 4
    while time.monotonic() < until:
        there = serial in [d.get("serial") for d in connected()]
        # It may leave and return between two looks.
        if there and (gone or time.monotonic() > quick):
            return
        gone = gone or not there
        time.sleep(0.1)
    raise EdgeAdError(f"the RealSense camera {serial} did not return within {timeout_s:g} s of its reset")


def clean(error: BaseException) -> str:
    """The SDK's message without its call trace, as one line."""
    return re.split(r" \(?(?:nested|from .*\.cpp)|; Details", one_line(error))[0] or type(error).__name__


def check_file(path: Path) -> None:
    """Raise EdgeAdError unless ``path`` looks like a whole recording that this SDK can read."""
    try:
        with open(path, "rb") as f:
            head = f.read(100)
            size = path.stat().st_size
    except FileNotFoundError:
        raise EdgeAdError(f"{path} does not exist", "a recording of librealsense (.bag or .db3)") from None
    except OSError as e:
        raise EdgeAdError(
            f"{path} cannot be read ({e.strerror})", "a recording of librealsense (.bag or .db3)"
        ) from None
    if head.startswith(SQLITE) and len(head) == 100:
        page = int.from_bytes(head[16:18], "big")
        whole = (65536 if page == 1 else page) * int.from_bytes(head[28:32], "big")
        if size < whole:
            raise EdgeAdError(f"{path} is cut short ({size} of {whole} bytes)", "a whole recording", "copy it again")
    elif not head.startswith(ROSBAG):
        what = "is empty" if not head else "is no recording of librealsense"
        raise EdgeAdError(f"{path} {what}", "a .bag or .db3 that a RealSense tool or edge-ad wrote")


def file_error(path: Path, error: BaseException) -> EdgeAdError:
    """One line for a recording that the SDK refused."""
    text = clean(error)
    if "wanted" in text and "read" in text:
        return EdgeAdError(f"{path} is cut short", "a whole recording", "copy it again, or stop the recording properly")
    reason = text.rpartition("Reason: ")[2]
    if "malformed" in reason:
        return EdgeAdError(f"{path} is damaged", "a whole recording", "copy it again")
    if "SQL" in reason:
        return EdgeAdError(f"{path} is a database, but no recording of librealsense", "a .bag or .db3 of librealsense")
    return EdgeAdError(f"{path} cannot be played ({reason})", "a recording of librealsense")


def start_error(what: str, error: BaseException) -> EdgeAdError:
    """One line for a camera that did not start."""
    text = clean(error)
    if "resolve" in text.lower():
        return EdgeAdError(f"{what} cannot give these streams together", "a mode it has", "name another size or fps")
    if "busy" in text.lower() or "in use" in text.lower() or "errno=16" in text:
        return EdgeAdError(f"{what} is in use by another program", "a free camera", "end the other program")
    if "permission" in text.lower() or "errno=13" in text:
        remedy = "install librealsense's udev rules (docs/cameras.md)"
        return EdgeAdError(f"{what} may not be opened by this user", "access to USB", remedy)
    return EdgeAdError(f"{what} did not start ({text})", "", "unplug it, plug it in again")

"""RealSense without hardware: the simulated camera, the SDK's recorder and player, a real recording, broken files."""

import builtins
import sqlite3
import time

import numpy as np
import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.sensors import open_camera
from edge_ad.sensors.pairing import Pairing
from tests.sensors.refusals import refused
from tests.shared import SHARED, needs_shared

rs = pytest.importorskip("pyrealsense2", reason="pyrealsense2 is not installed (extra 'realsense')")

from edge_ad.sensors import realsense_sdk  # noqa: E402
from edge_ad.sensors.realsense_frames import opencv_distortion  # noqa: E402

BAG = SHARED / "data/real/realsense_d435/single_depth_color_640x480.bag"


def test_no_camera_is_told_within_a_second():
    realsense_sdk.sdk()  # loading the library is not what is measured
    if realsense_sdk.connected():
        pytest.skip("a RealSense camera is connected")
    times = []
    for uri in ("realsense:", "realsense:819112070112") * 2:
        started = time.monotonic()
        assert "is connected; expected one on a USB 3 port" in refused(uri)
        times.append(time.monotonic() - started)
    assert min(times) < 1  # the quickest: the others tell how busy this machine is


def test_simulated_camera_goes_through_the_sdk_and_keeps_the_pictures():
    with open_camera("realsense:simulated?feed=synthetic:gear?frames=3&class=gear") as camera:
        seen = list(camera)
    fed = list(open_camera("synthetic:gear?frames=3"))
    assert [f.sequence for f in seen] == [0, 1, 2] and {f.class_name for f in seen} == {"gear"}
    for a, b in zip(seen, fed, strict=True):
        assert np.array_equal(a.colour, b.colour) and a.health == () and a.flags == ()
        k = b.intrinsics
        assert (a.intrinsics.width, a.intrinsics.height) == (k.width, k.height)
        assert (a.intrinsics.fx, a.intrinsics.ppx) == (pytest.approx(k.fx), pytest.approx(k.ppx))
        there = (a.depth > 0) & (b.xyz[..., 2] > 0)
        assert there.mean() > 0.85
        apart = np.abs(a.depth * a.depth_scale_m - b.xyz[..., 2])[there]
        # Twice resampled to the nearest pixel: flat surfaces come back to the noise, edges may move by a pixel.
        assert np.median(apart) < 3e-4 and a.metadata["depth_number"] == a.sequence + 1
    assert camera.missed == 0 and camera.incomplete == 0


def test_record_and_play_give_the_same_frames(tmp_path):
    path = tmp_path / "line.db3"
    with open_camera(f"realsense:simulated?feed=synthetic:hex_nut?frames=4&record={path}") as camera:
        live = list(camera)
        assert not path.exists()  # it gets its name when it is whole
    with open_camera(f"realsense:{path}") as camera:
        played = list(camera)
        assert "a recording, every frame" in camera.describe()
    assert len(live) == len(played) == 4
    for a, b in zip(live, played, strict=True):
        assert np.array_equal(a.colour, b.colour) and np.array_equal(a.depth, b.depth)
        assert a.depth_timestamp_s == pytest.approx(b.depth_timestamp_s) and a.intrinsics == b.intrinsics
        assert a.depth_scale_m == b.depth_scale_m == 1e-4 and b.health == ()
        assert a.metadata["depth_number"] == b.metadata["depth_number"]
    assert "exists already" in refused(f"realsense:simulated?record={path}")
    assert "is no folder" in refused(f"realsense:simulated?record={tmp_path}/none/a.db3")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["line.db3"]


@pytest.mark.slow  # real time on a busy machine
def test_real_time_takes_the_time_of_the_recording(tmp_path):
    path = tmp_path / "line.db3"
    feed = "belt:gear?fps=10%26realtime=1%26frames=8"
    with open_camera(f"realsense:simulated?feed={feed}&record={path}&fps=10") as camera:
        assert len(list(camera)) == 8
    for _ in range(3):  # the SDK drops what a busy machine does not take in time; it may be all of so short a film
        started = time.monotonic()
        with open_camera(f"realsense:{path}?realtime=1") as camera:
            played = list(camera)
        # 0.7 s between the first picture and the last; every one is played at most once.
        assert time.monotonic() - started > 0.5
        if played:
            break
    numbers = [f.metadata["depth_number"] for f in played]
    assert 1 <= len(played) <= 8 and numbers == sorted(set(numbers))


def test_broken_recordings_are_one_clear_line_each(tmp_path):
    path = tmp_path / "line.db3"
    with open_camera(f"realsense:simulated?feed=synthetic:gear?frames=3&record={path}") as camera:
        list(camera)
    data = path.read_bytes()
    cut = tmp_path / "cut.db3"
    cut.write_bytes(data[: len(data) // 2])
    assert "is cut short" in refused(f"realsense:{cut}")
    zeroed = tmp_path / "zeroed.db3"
    zeroed.write_bytes(data[: len(data) // 3] + bytes(len(data) - len(data) // 3))
    assert "is damaged" in refused(f"realsense:{zeroed}")
    foreign = tmp_path / "foreign.db3"
    with sqlite3.connect(foreign) as db:
        db.execute("create table t (a)")
    assert "no recording of librealsense" in refused(f"realsense:{foreign}")
    text = tmp_path / "text.bag"
    text.write_text("hello")
    assert "is no recording of librealsense" in refused(f"realsense:{text}")
    (tmp_path / "empty.bag").touch()
    assert "is empty" in refused(f"realsense:{tmp_path / 'empty.bag'}")
    assert "does not exist" in refused(f"realsense:{tmp_path / 'none.bag'}")
    assert "does not exist" in refused(f"realsense:{tmp_path / 'none'}")  # a path, not a serial


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("?size=640", ["size=640", "WIDTHxHEIGHT"]),
        ("?fps=0", ["fps=0", ">= 1"]),
        ("?filters=median", ["filters=median", "spatial+temporal+hole_filling"]),
        ("?align=depth", ["align=depth", "colour or raw"]),
        ("?exposure=long", ["exposure=long", "a number"]),
        ("?record=line.bag", ["record=line.bag", ".db3"]),
        ("?realtime=1", ["option 'realtime'"]),
        ("simulated?preset=a.json", ["option 'preset'"]),
        ("simulated?feed=nonsense:", ["unknown scheme"]),
        ("simulated?feed=synthetic:gear?frames=0&timeout=0", ["timeout=0"]),
    ],
)
def test_options_that_are_refused(options, words):
    said = refused(f"realsense:{options}")
    assert all(word in said for word in words), said


@needs_shared
def test_a_real_recording_whose_colour_is_late():
    with open_camera(f"realsense:{BAG}") as camera:
        frames = list(camera)
        assert "Intel RealSense D435 728612070259" in camera.describe()
    assert len(frames) == 1
    frame = frames[0]
    # The recording pairs depth with a colour picture 268 ms older, at 6 frames a second: it must never pass.
    assert frame.health == ("colour is 268 ms behind depth (limit 167 ms)",)
    assert frame.depth_scale_m == 0.001 and frame.clock == "hardware" and frame.colour.shape == (480, 640, 3)
    assert frame.metadata["depth_exposure"] == 6452 and frame.metadata["laser_power"] == 150
    assert (frame.depth > 0).mean() > 0.9


@needs_shared
def test_our_registration_agrees_with_the_sdk_on_a_real_camera():
    from edge_ad.runtime.registration import registered

    with open_camera(f"realsense:{BAG}?skew=500&align=raw") as camera:
        raw = next(iter(camera))
    with open_camera(f"realsense:{BAG}?skew=500") as camera:
        sdk = next(iter(camera))
    assert raw.health == sdk.health == ()
    assert raw.depth_intrinsics.fx == pytest.approx(390.43, abs=0.01)
    assert raw.extrinsics.translation[0] == pytest.approx(0.01431, abs=1e-5)
    ours, theirs = registered(raw).depth.astype(int), sdk.depth.astype(int)
    both = (ours > 0) & (theirs > 0)
    assert ((ours > 0) == (theirs > 0)).mean() > 0.99 and both.mean() > 0.9
    # z is the colour camera's here and the depth camera's there: rotated by 0.7 degrees, they differ by some mm.
    assert np.median(np.abs(ours - theirs)[both]) <= 15
    assert np.percentile(np.abs(ours - theirs)[both] / theirs[both], 90) < 0.02


def test_filters_are_named_in_the_flags():
    with open_camera("realsense:simulated?feed=synthetic:gear?frames=2&filters=spatial+temporal") as camera:
        frames = list(camera)
    assert [f.flags for f in frames] == [("filter:spatial", "filter:temporal")] * 2
    with open_camera("realsense:simulated?feed=synthetic:gear?frames=2") as camera:
        bare = list(camera)
    assert not np.array_equal(bare[1].depth, frames[1].depth)


# -- pairing ----------------------------------------------------------------------------------------------------------


def test_pairing_tells_old_pictures_apart_from_missing_ones():
    check = Pairing(0.04)
    clocks = ("hardware", "hardware")
    assert check((1, 1), (0.0, 0.0), clocks) == ((), ())
    assert check((2, 2), (0.033, 0.050), clocks) == ((), ())
    assert check((3, 2), (0.066, 0.050), clocks)[1] == ("the colour picture is an old one (number 2)",)
    flags, health = check((3, 2), (0.066, 0.050), clocks)
    assert flags == ("repeated",) and len(health) == 2
    assert check((6, 6), (0.2, 0.1), clocks) == ((), ("colour is 100 ms behind depth (limit 40 ms)",))
    assert check.missed == 3  # depth 4 and 5, of colour 3 to 5
    assert "two clocks" in check((7, 7), (0.233, 1e9), ("hardware", "system"))[1][0]


# -- distortion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["inverse_brown_conrady", "modified_brown_conrady"])
def test_distortion_of_the_sdk_is_met_by_opencvs(model):
    """Points projected by the SDK's own function and by OpenCV with the fitted coefficients."""
    import cv2

    k = rs.intrinsics()
    k.width, k.height, k.fx, k.fy, k.ppx, k.ppy = 1280, 720, 640.0, 639.0, 642.0, 361.0
    k.model, k.coeffs = getattr(rs.distortion, model), [-0.055, 0.066, -0.0009, 0.0003, -0.021]
    size = (k.width, k.height)
    found = opencv_distortion(model, tuple(k.coeffs), *size, (k.fx, k.fy, k.ppx, k.ppy))
    matrix = np.array([[k.fx, 0, k.ppx], [0, k.fy, k.ppy], [0, 0, 1]])
    for pixel in ([0, 0], [1279, 719], [300, 600], [640, 10]):
        ray = np.array([(pixel[0] - k.ppx) / k.fx, (pixel[1] - k.ppy) / k.fy, 1.0])
        shown = rs.rs2_project_point_to_pixel(k, [float(v) for v in ray])
        ours = cv2.projectPoints(ray.reshape(1, 1, 3), np.zeros(3), np.zeros(3), matrix, np.array(found))[0].ravel()
        assert np.abs(ours - shown).max() < 0.1


def test_distortion_without_a_form_is_refused():
    with pytest.raises(EdgeAdError, match="kannala_brandt4"):
        opencv_distortion("kannala_brandt4", (0.1, 0, 0, 0, 0), 640, 480, (600, 600, 320, 240))
    with pytest.raises(EdgeAdError, match="met only to"):
        opencv_distortion("inverse_brown_conrady", (0.5, 0, 0.2, 0.2, 0), 640, 480, (300, 300, 320, 240))
    assert opencv_distortion("brown_conrady", (0.1, 0, 0, 0, 0.2), 640, 480, (1, 1, 0, 0)) == (0.1, 0, 0, 0, 0.2)


# -- the SDK itself ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'pyrealsense2'", name="pyrealsense2"), ["edge-ad[realsense]"]),
        (ImportError("libusb-1.0.so.0: cannot open shared object file"), ["apt install libusb-1.0-0"]),
        (ImportError("GLIBC_2.38 not found"), ["cannot be loaded", "GLIBC_2.38"]),
    ],
)
def test_a_missing_sdk_names_the_remedy(monkeypatch, error, words):
    plain = builtins.__import__

    def fails(name, *args, **kwargs):
        if name == "pyrealsense2":
            raise error
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fails)
    with pytest.raises(EdgeAdError) as e:
        realsense_sdk.sdk()
    assert all(word in str(e.value) for word in words)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Couldn't resolve requests", "name another size or fps"),
        ("xioctl(VIDIOC_S_FMT) failed, errno=16 Last Error: Device or resource busy", "in use by another program"),
        ("failed to open usb interface: 0, error: RS2_USB_STATUS_ACCESS errno=13", "udev rules"),
        ("hwmon command failed", "did not start (hwmon command failed)"),
    ],
)
def test_what_the_sdk_says_becomes_one_line(said, words):
    assert words in str(realsense_sdk.start_error("realsense:", RuntimeError(said)))


def test_a_reset_waits_for_the_camera_to_return(monkeypatch):
    done = []

    class Device:
        def hardware_reset(self):
            done.append("reset")

    listed = iter([[], [], [{"serial": "7"}]])
    monkeypatch.setattr(realsense_sdk, "find_device", lambda where, serial: (Device(), {"serial": "7"}))
    monkeypatch.setattr(realsense_sdk, "connected", lambda: next(listed))
    realsense_sdk.reset("7", timeout_s=5)
    assert done == ["reset"]
    monkeypatch.setattr(realsense_sdk, "connected", list)
    with pytest.raises(EdgeAdError, match=r"7 did not return within 0\.3 s"):
        realsense_sdk.reset("7", timeout_s=0.3)

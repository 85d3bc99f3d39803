"""A connected RealSense camera, played by the SDK's software device: modes, settings, exposure, stalls."""

import hashlib
import json
import time

import numpy as np
import pytest

from edge_ad.errors import EdgeAdError

rs = pytest.importorskip("pyrealsense2", reason="pyrealsense2 is not installed (extra 'realsense')")

from edge_ad.sensors import open_camera, realsense_sdk  # noqa: E402
from edge_ad.sensors.realsense_settings import load_preset, settled  # noqa: E402
from tests.sensors import software_camera as software  # noqa: E402

MODE = f"size={software.WIDTH}x{software.HEIGHT}"


@pytest.fixture
def camera(monkeypatch):
    simulated = software.software_device()
    software.connect(monkeypatch, simulated)
    return simulated


def take(uri, count):
    with open_camera(uri) as source:
        frames = []
        for frame in source:
            frames.append(frame)
            if len(frames) == count:
                break
        return frames, source.describe(), source.temperature_c()


def option(simulated, sensor, name):
    return simulated.device.query_sensors()[sensor].get_option(getattr(rs.option, name))


def test_frames_of_a_camera(camera):
    with software.streaming(camera):
        frames, described, temperature = take(f"realsense:?{MODE}&class=nut", 4)
    assert [f.sequence for f in frames] == [0, 1, 2, 3]
    assert "Simulated RealSense SIMULATED" in described and temperature == 41
    for frame in frames:
        number = frame.metadata["colour_number"]
        assert number == frame.metadata["depth_number"] and frame.health == () and frame.class_name == "nut"
        assert (frame.colour == number % 256).all()
        assert frame.depth[120, 150] == 5000 + number  # copied out: later frames do not change it
        assert frame.clock == "hardware" and frame.depth_timestamp_s == pytest.approx(number / 30)
        assert frame.depth_scale_m == 1e-4 and frame.metadata["camera"]["serial"] == "SIMULATED"


def test_exposure_settles_and_is_then_fixed(camera):
    with software.streaming(camera, exposure=lambda n: max(3000 - 200 * n, 1200)):
        frames, _, _ = take(f"realsense:?{MODE}", 1)
    fixed = frames[0].metadata["camera"]["settings"]["fixed"]
    assert fixed == {"depth_exposure": 1200, "depth_gain": 20, "colour_exposure": 1200, "white_balance": 4600}
    assert frames[0].metadata["depth_number"] >= 9 + 4  # it stands still from frame 9 on; four more show that
    for sensor in (0, 1):
        assert option(camera, sensor, "enable_auto_exposure") == 0 and option(camera, sensor, "exposure") == 1200
    assert option(camera, 1, "enable_auto_white_balance") == 0


def test_exposure_is_left_alone_when_asked(camera):
    with software.streaming(camera, exposure=lambda n: 500):
        frames, _, _ = take(f"realsense:?{MODE}&exposure=auto&settle=2", 1)
    assert "fixed" not in frames[0].metadata["camera"]["settings"]
    assert option(camera, 0, "enable_auto_exposure") == 1


def test_settled_means_within_two_per_cent_over_five_frames():
    assert not settled([(100, 100)] * 4)
    assert settled([(500, 9), *[(100, 100), (101, 100)] * 3])
    assert not settled([(100, 100)] * 4 + [(103, 100)])


def test_settings_are_set_and_told(camera):
    uri = f"realsense:?{MODE}&emitter=0&laser=90&units=0.0002&exposure=4000&colour_exposure=100&settle=0"
    with software.streaming(camera):
        frames, _, _ = take(uri, 1)
    told = frames[0].metadata["camera"]["settings"]
    assert told == {
        "emitter_enabled": 0,
        "laser_power": 90,
        "depth_units": pytest.approx(2e-4),
        "exposure": 4000,
        "colour_exposure": 100,
    }
    assert option(camera, 0, "emitter_enabled") == 0 and option(camera, 0, "enable_auto_exposure") == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (f"{MODE}&laser=800", ["laser_power = 800", "0 to 360"]),
        (f"{MODE}&exposure=300000", ["exposure = 300000", "1 to 200000"]),
        (f"{MODE}&preset=/no/preset.json", ["preset /no/preset.json", "cannot be read"]),
        ("size=640x480", ["no colour of 640x480 at 30", "320x240@30"]),
        (f"{MODE}&fps=15", ["at 15 frames a second", "320x240@30"]),
        (f"{MODE}&depth=640x480", ["no depth of 640x480"]),
    ],
)
def test_what_the_camera_has_not_is_refused(camera, options, words):
    with pytest.raises(EdgeAdError) as e, open_camera(f"realsense:?{options}"):
        pass
    assert all(word in str(e.value) for word in words), e.value
    assert "\n" not in str(e.value)


def test_another_serial_is_refused_and_names_what_is_there(camera):
    with pytest.raises(EdgeAdError, match=r"no RealSense camera 12345 .*SIMULATED \(Simulated RealSense\)"):
        open_camera("realsense:12345").__enter__()
    assert realsense_sdk.connected() == [{"name": "Simulated RealSense", "serial": "SIMULATED"}]


def test_a_camera_that_falls_silent_ends_with_an_error(camera):
    with software.streaming(camera) as stop, open_camera(f"realsense:?{MODE}&timeout=0.5&settle=0") as source:
        frames = iter(source)
        next(frames)
        stop.set()
        started = time.monotonic()
        with pytest.raises(EdgeAdError, match=r"gave no frame for 0\.5 s"):
            for _ in frames:
                pass
    assert time.monotonic() - started < 5


def test_an_unplugged_camera_is_told_as_that(camera, monkeypatch):
    with software.streaming(camera) as stop, open_camera(f"realsense:?{MODE}&timeout=0.3&settle=0") as source:
        frames = iter(source)
        next(frames)
        stop.set()
        monkeypatch.setattr(realsense_sdk, "connected", list)
        with pytest.raises(EdgeAdError, match="SIMULATED is no longer connected"):
            for _ in frames:
                pass


def test_colour_ahead_of_depth_is_never_healthy(camera):
    with open_camera(f"realsense:?{MODE}&settle=0") as source:
        frames = iter(source)
        seen = []
        for number in range(1, 12):
            depth, colour = software.pictures(number)
            camera.push(depth, colour, number, colour_number=number + 3)
            if number > 3:
                frame = next(frames)
                seen.append((frame.metadata["colour_number"] - frame.metadata["depth_number"], frame.health))
    # The SDK either finds the partner or gives an old one: what it gives unpaired is told.
    assert seen and all((apart == 0) == (health == ()) for apart, health in seen)


def test_presets_are_hashed_and_refused_by_other_devices(tmp_path, camera):
    path = tmp_path / "preset.json"
    path.write_text(json.dumps({"param-disparityshift": "0"}))
    with pytest.raises(EdgeAdError, match="does not take the preset"):  # a software device takes none
        load_preset(rs, camera.device, path)
    loaded = []

    class Sdk:
        @staticmethod
        def serializable_device(device):
            return type("D", (), {"load_json": staticmethod(loaded.append)})

    assert load_preset(Sdk, None, path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded == [path.read_text()]
    path.write_text("no json")
    with pytest.raises(EdgeAdError, match="is not JSON"):
        load_preset(Sdk, None, path)


def test_raw_depth_is_handed_over_with_its_extrinsics(camera):
    from edge_ad.runtime.registration import registered

    with software.streaming(camera):
        raw, _, _ = take(f"realsense:?{MODE}&align=raw&settle=0", 1)
        aligned, _, _ = take(f"realsense:?{MODE}&settle=0", 1)
    frame = raw[0]
    assert frame.extrinsics.translation == pytest.approx((-0.015, 0, 0)) and frame.depth_intrinsics.width == 320
    assert np.array_equal(frame.depth, software.pictures(frame.metadata["depth_number"])[0])
    ours, theirs = registered(frame).depth, aligned[0].depth
    part = ours > 0
    assert part.mean() > 0.85
    # The same rule in float32 on both sides: few pixels at the rim of a rounding differ.
    same = (np.abs(ours.astype(int) - theirs) < 100) | ((ours == 0) & (theirs == 0))
    assert same.mean() > 0.995

"""OpenCV as a camera: files in place of devices, a depth back end that is played, and what is refused."""

import json

import cv2
import numpy as np
import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.sensors import open_camera, opencv_device
from tests.data import make
from tests.sensors.refusals import refused

SIZE = {"width": 64, "height": 48, "ppx": 31.5, "ppy": 23.5}


@pytest.fixture
def camera_file(tmp_path):
    return make.camera(tmp_path / "camera.json", **SIZE)


def series(folder, count=3):
    """Numbered pictures: c_000.png in colour, d_000.png in 16 bits."""
    folder.mkdir(exist_ok=True)
    for n in range(count):
        make.png(folder / f"c_{n:03d}.png", make.colour(48, 64, n))
        make.png(folder / f"d_{n:03d}.png", make.depth(48, 64, n))
    return folder / "c_%03d.png", folder / "d_%03d.png"


def quote(path):
    return str(path).replace("%", "%25")


def test_two_streams_of_pictures(tmp_path, camera_file):
    colour, depth = series(tmp_path / "in")
    uri = f"opencv:{quote(colour)}?depth={quote(depth)}&camera={camera_file}&class=nut"
    with open_camera(uri) as camera:
        frames = list(camera)
        assert "through OpenCV" in camera.describe()
    assert [f.name for f in frames] == ["opencv-000000", "opencv-000001", "opencv-000002"]
    for n, frame in enumerate(frames):
        assert np.array_equal(frame.colour, make.colour(48, 64, n))
        assert np.array_equal(frame.depth, make.depth(48, 64, n)) and frame.depth.dtype == np.uint16
        assert frame.depth_scale_m == 1e-4 and frame.class_name == "nut" and frame.clock == "system"
        assert frame.intrinsics.width == 64


def test_colour_alone_is_refused_and_says_what_is_needed(tmp_path, camera_file):
    video = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    writer.write(make.colour(48, 64))
    writer.release()
    said = refused(f"opencv:{video}?camera={camera_file}")
    assert "gives colour and no depth" in said and "backend=openni2" in said
    said = refused(f"opencv:{video}?depth={video}&camera={camera_file}")
    assert "one channel of 16 bit depth" in said


def test_what_is_refused(tmp_path, camera_file):
    colour, depth = series(tmp_path / "in", 1)
    both = f"opencv:{quote(colour)}?depth={quote(depth)}"
    assert "names no device" in refused("opencv:?depth=1")
    assert "camera=FILE.json" in refused(both)
    assert "does not exist" in refused(f"opencv:/no/such.avi?depth=/no/d.avi&camera={camera_file}")
    assert "backend=kinect" in refused(f"opencv:0?backend=kinect&camera={camera_file}")
    assert "no device /dev/video77" in refused(f"opencv:77?depth=78&camera={camera_file}")
    other = make.camera(tmp_path / "other.json", **{**SIZE, "width": 32})
    assert "colour of 64 x 48 pixels; expected 32 x 48" in refused(f"{both}&camera={other}")
    (tmp_path / "text.avi").write_text("hello")
    assert "cannot open" in refused(f"opencv:{tmp_path}/text.avi?depth={tmp_path}/text.avi&camera={camera_file}")
    assert json.loads(camera_file.read_text())["width"] == 64


def test_a_back_end_that_this_opencv_lacks_is_named(camera_file):
    if int(cv2.CAP_OPENNI2) in [int(b) for b in cv2.videoio_registry.getBackends()]:
        pytest.skip("this OpenCV was built with OpenNI 2")
    assert "built without openni2" in refused(f"opencv:0?backend=openni2&camera={camera_file}")


def test_a_depth_back_end(monkeypatch, camera_file):
    """OpenCV's protocol of such devices: one grab, then colour and depth by their flags."""
    asked = []

    class Capture:
        def __init__(self, number, backend):
            assert (number, backend) == (0, cv2.CAP_OPENNI2)
            self.left = 2

        def isOpened(self):  # noqa: N802
            return True

        def grab(self):
            self.left -= 1
            return self.left >= 0

        def retrieve(self, flag):
            asked.append(flag)
            picture = make.depth(48, 64) if flag == cv2.CAP_OPENNI_DEPTH_MAP else make.colour(48, 64)[..., ::-1]
            return True, picture

        def release(self):
            asked.append("released")

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(opencv_device.cv2.videoio_registry, "getBackends", lambda: [cv2.CAP_OPENNI2])
    frames = []
    with (
        pytest.raises(EdgeAdError, match=r"gave no frame for 0\.3 s"),
        open_camera(f"opencv:0?backend=openni2&camera={camera_file}&timeout=0.3") as camera,
    ):
        for frame in camera:
            frames.append(frame)  # noqa: PERF402
    assert asked == [cv2.CAP_OPENNI_BGR_IMAGE, cv2.CAP_OPENNI_DEPTH_MAP] * 2 + ["released"]
    assert np.array_equal(frames[0].colour, make.colour(48, 64)) and frames[0].depth_scale_m == 0.001
    assert np.array_equal(frames[0].depth, make.depth(48, 64))

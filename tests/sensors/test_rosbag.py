"""ROS bags: written here with the package itself, read back as frames; broken and foreign ones."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Extrinsics, Frame, Intrinsics
from edge_ad.sensors import BrokenFrame, open_camera
from tests.sensors.refusals import refused

pytest.importorskip("rosbags", reason="rosbags is not installed (extra 'rosbag')")

from rosbags.rosbag1 import Writer  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402

from edge_ad.sensors.ros_messages import COMPRESSED, IMAGE, INFO, TRANSFORM, Transforms, intrinsics  # noqa: E402
from tests.sensors.ros import (  # noqa: E402
    STORE,
    K,
    aligned_messages,
    compressed,
    header,
    image,
    info,
    pictures,
    write_bag2,
)


def test_ros2_bag_with_aligned_depth(tmp_path):
    path = write_bag2(tmp_path / "line", aligned_messages())
    with open_camera(f"rosbag:{path}?class=nut") as camera:
        frames = list(camera)
        assert "/camera/aligned_depth_to_color/image_raw" in camera.describe()
    assert [f.name for f in frames] == ["line-000000", "line-000001", "line-000002"]
    for n, frame in enumerate(frames):
        colour, depth = pictures(n)
        assert np.array_equal(frame.colour, colour) and np.array_equal(frame.depth, depth)
        assert frame.depth_scale_m == 0.001 and frame.intrinsics == K and frame.depth_intrinsics is None
        assert frame.colour_timestamp_s == pytest.approx(100 + n / 10) and frame.clock == "ros"
        assert frame.class_name == "nut"


def test_pictures_without_a_partner_are_counted_not_paired(tmp_path):
    messages = aligned_messages(4)
    del messages[-2]  # the last colour picture
    del messages[3]  # the first depth picture
    path = write_bag2(tmp_path / "line", messages)
    with open_camera(f"rosbag:{path}") as camera:
        frames = list(camera)
        assert camera.missed == 2
    assert [f.colour_timestamp_s for f in frames] == pytest.approx([100.1, 100.2])
    late = write_bag2(tmp_path / "late", aligned_messages(late=0.04))
    assert "within 20 ms" in refused(f"rosbag:{late}")
    assert len(list(open_camera(f"rosbag:{late}?skew=45"))) == 3


def test_raw_depth_takes_its_place_from_tf_static(tmp_path):
    own = Intrinsics(12, 8, 14.0, 14.0, 5.5, 3.5)
    types = STORE.types
    half = np.sqrt(0.5)

    def link(parent, child, xyz, quaternion):
        return types["geometry_msgs/msg/TransformStamped"](
            header(0, parent),
            child,
            types["geometry_msgs/msg/Transform"](
                types["geometry_msgs/msg/Vector3"](*xyz), types["geometry_msgs/msg/Quaternion"](*quaternion)
            ),
        )

    turned = link("base", "color", (0.1, 0.2, 0.3), (0.0, 0.0, half, half))  # a quarter turn about z
    plain = link("base", "depth", (0.1, 0.25, 0.3), (0.0, 0.0, 0.0, 1.0))
    messages = [
        ("/tf_static", TRANSFORM, types[TRANSFORM]([turned, plain]), 0),
        ("/cam/color/camera_info", INFO, info(0), 0),
        ("/cam/depth/camera_info", INFO, info(0, "depth", own), 0),
        ("/cam/color/image_raw", IMAGE, image(pictures(0)[0][..., ::-1], 1, "bgr8"), 1),
        ("/cam/depth/image_rect_raw", IMAGE, image(np.full((8, 12), 0.5, np.float32), 1, "32FC1", "depth"), 1),
    ]
    frame = next(iter(open_camera(f"rosbag:{write_bag2(tmp_path / 'raw', messages)}")))
    assert np.array_equal(frame.colour, pictures(0)[0])
    assert frame.depth.dtype == np.float32 and frame.depth_scale_m == 1.0 and frame.depth_intrinsics == own
    # depth origin in base (0, 0.05, 0) beyond colour's; colour's axes are turned by 90 degrees.
    assert frame.extrinsics.translation == pytest.approx((0.05, 0, 0), abs=1e-9)
    assert frame.extrinsics.rotation == pytest.approx((0, 1, 0, -1, 0, 0, 0, 0, 1), abs=1e-9)
    said = refused(f"rosbag:{write_bag2(tmp_path / 'lost', messages[1:])}")
    assert "seen from depth, colour from color" in said and "/tf_static" in said


def test_transforms_without_a_chain_are_none():
    assert Transforms().between("a", "b") is None
    assert Transforms().between("/a", "a") == Extrinsics()


def test_compressed_topics(tmp_path):
    colour, depth = pictures(5)
    png = cv2.imencode(".png", colour[..., ::-1])[1].tobytes()
    zipped = bytes(12) + cv2.imencode(".png", depth)[1].tobytes()
    messages = [
        ("/cam/color/camera_info", INFO, info(0), 0),
        ("/cam/color/image_raw/compressed", COMPRESSED, compressed(png, 1, "bgr8; png compressed"), 1),
        (
            "/cam/aligned_depth/image_raw/compressedDepth",
            COMPRESSED,
            compressed(zipped, 1, "16UC1; compressedDepth png"),
            1,
        ),
    ]
    frame = next(iter(open_camera(f"rosbag:{write_bag2(tmp_path / 'c', messages)}?scale=0.0001")))
    assert np.array_equal(frame.colour, colour) and np.array_equal(frame.depth, depth) and frame.depth_scale_m == 1e-4


def test_a_picture_that_is_wrong_breaks_one_frame_alone(tmp_path):
    messages = aligned_messages(3)
    odd = image(pictures(1)[1], 100.1, "16UC1")
    odd.data = odd.data[:-100]
    messages[5] = (messages[5][0], IMAGE, odd, 100.1)
    frames = list(open_camera(f"rosbag:{write_bag2(tmp_path / 'odd', messages)}"))
    assert [type(f) for f in frames] == [Frame, BrokenFrame, Frame]
    assert "/camera/aligned_depth_to_color/image_raw" in frames[1].error


def test_ros1_bag(tmp_path):
    path = tmp_path / "line.bag"
    store = get_typestore(Stores.ROS1_NOETIC)
    colour, depth = pictures(0)
    with Writer(path) as writer:
        stamp1 = store.types["builtin_interfaces/msg/Time"](sec=7, nanosec=0)
        head = store.types["std_msgs/msg/Header"](seq=0, stamp=stamp1, frame_id="color")
        roi = store.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        camera_info = store.types[INFO](
            head, 16, 24, "plumb_bob", np.zeros(5), np.array([30, 0, 11.5, 0, 31, 7.5, 0, 0, 1.0]), np.eye(3).ravel(),
            np.zeros(12), 0, 0, roi,
        )  # fmt: skip
        for topic, kind, message in (
            ("/c/color/camera_info", INFO, camera_info),
            ("/c/color/image_raw", IMAGE, store.types[IMAGE](head, 16, 24, "rgb8", 0, 72, colour.reshape(-1))),
            (
                "/c/aligned_depth/image_raw",
                IMAGE,
                store.types[IMAGE](head, 16, 24, "16UC1", 0, 48, depth.view(np.uint8).reshape(-1)),
            ),
        ):
            connection = writer.add_connection(topic, kind, typestore=store)
            writer.write(connection, 7 * 10**9, store.serialize_ros1(message, kind))
    frame = next(iter(open_camera(f"rosbag:{path}")))
    assert np.array_equal(frame.colour, colour) and np.array_equal(frame.depth, depth) and frame.intrinsics == K
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "cannot be read" in refused(f"rosbag:{path}")


@pytest.mark.parametrize(
    ("drop", "options", "words"),
    [
        ("color/image_raw", "", ["no colour topic among", "colour=/TOPIC"]),
        ("color/camera_info", "", ["no /camera/color/camera_info", "record it as well"]),
        ("", "?depth=/nope", ["no picture topic /nope", "/camera/color/image_raw"]),
        ("", "?scale=5", ["scale=5"]),
        ("", "?sorting=1", ["option 'sorting'"]),
    ],
)
def test_bags_that_lack_something(tmp_path, drop, options, words):
    kept = [m for m in aligned_messages() if not drop or drop not in m[0]]
    said = refused(f"rosbag:{write_bag2(tmp_path / 'bag', kept)}{options}")
    assert all(word in said for word in words), said


def test_two_colour_topics_are_a_question(tmp_path):
    messages = aligned_messages()
    messages.append(("/second/color/image_raw", IMAGE, image(pictures(0)[0], 1, "rgb8"), 1))
    path = write_bag2(tmp_path / "two", messages)
    assert "several colour topics (/camera/color/image_raw, /second/color/image_raw)" in refused(f"rosbag:{path}")
    assert len(list(open_camera(f"rosbag:{path}?colour=/camera/color/image_raw"))) == 3


def test_what_is_no_bag(tmp_path):
    assert "does not exist" in refused(f"rosbag:{tmp_path}/none")
    assert "no metadata.yaml" in refused(f"rosbag:{tmp_path}")
    assert "names no bag" in refused("rosbag:")
    (tmp_path / "a.mcap").write_bytes(b"\x89MCAP0\r\n")
    assert f"use mcap:{tmp_path}/a.mcap" in refused(f"rosbag:{tmp_path}/a.mcap")
    (tmp_path / "a.bag").write_text("hello")
    assert "cannot be read" in refused(f"rosbag:{tmp_path}/a.bag")
    path = write_bag2(
        tmp_path / "sdk", [("/device_0/sensor_0/Depth_0/image/data", IMAGE, image(pictures(0)[1], 1, "16UC1"), 1)]
    )
    assert "use realsense:" in refused(f"rosbag:{path}")


def test_fisheye_is_refused():
    with pytest.raises(EdgeAdError, match="equidistant"):
        intrinsics("/c", info(0, model="equidistant", d=(0.1, 0.0, 0.0, 0.0)))
    assert intrinsics("/c", SimpleNamespace(**vars(info(0, d=(0.1, 0, 0, 0, 0))))).distortion == (0.1, 0, 0, 0, 0)

"""ROS bags and MCAP files: written here with the packages themselves, read back as frames; broken and foreign ones."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Extrinsics, Frame, Intrinsics
from edge_ad.sensors import BrokenFrame, open_camera
from tests.frames import boxes

pytest.importorskip("rosbags", reason="rosbags is not installed (extra 'rosbag')")
pytest.importorskip("mcap", reason="mcap is not installed (extra 'mcap')")

from rosbags.rosbag1 import Writer as Writer1  # noqa: E402
from rosbags.rosbag2 import Writer as Writer2  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402

from edge_ad.sensors.mcap_writer import McapWriter  # noqa: E402
from edge_ad.sensors.ros_messages import COMPRESSED, IMAGE, INFO, TRANSFORM, Transforms, intrinsics  # noqa: E402

STORE = get_typestore(Stores.ROS2_HUMBLE)
K = Intrinsics(24, 16, 30.0, 31.0, 11.5, 7.5)


def stamp(seconds):
    return STORE.types["builtin_interfaces/msg/Time"](sec=int(seconds), nanosec=round(seconds % 1 * 1e9))


def header(seconds, frame_id="color"):
    return STORE.types["std_msgs/msg/Header"](stamp=stamp(seconds), frame_id=frame_id)


def image(array, seconds, encoding, frame_id="color", padding=0):
    rows = np.ascontiguousarray(array).view(np.uint8).reshape(array.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    return STORE.types[IMAGE](
        header(seconds, frame_id), *array.shape[:2], encoding, 0, rows.shape[1], np.ascontiguousarray(rows).reshape(-1)
    )


def compressed(data, seconds, form):
    return STORE.types[COMPRESSED](header(seconds), form, np.frombuffer(data, np.uint8))


def info(seconds, frame_id="color", k=K, model="plumb_bob", d=(0.0,) * 5):
    matrix = np.array([k.fx, 0, k.ppx, 0, k.fy, k.ppy, 0, 0, 1.0])
    roi = STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    projection = np.zeros(12)
    return STORE.types[INFO](
        header(seconds, frame_id),
        k.height,
        k.width,
        model,
        np.array(d),
        matrix,
        np.eye(3).ravel(),
        projection,
        0,
        0,
        roi,
    )


def pictures(number):
    rng = np.random.default_rng(number)
    depth = rng.integers(400, 900, (16, 24)).astype(np.uint16)
    return rng.integers(0, 256, (16, 24, 3)).astype(np.uint8), depth


def write_bag2(path, messages):
    """messages: (topic, type, message, seconds)."""
    with Writer2(path, version=9) as writer:
        connections = {}
        for topic, kind, message, seconds in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], round(seconds * 1e9), STORE.serialize_cdr(message, kind))
    return path


def aligned_messages(count=3, late=0.0, depth_topic="/camera/aligned_depth_to_color/image_raw"):
    out = [
        ("/camera/color/camera_info", INFO, info(0), 0),
        (depth_topic.rpartition("/")[0] + "/camera_info", INFO, info(0), 0),
    ]
    for n in range(count):
        colour, depth = pictures(n)
        t = 100 + n / 10
        out.append(("/camera/color/image_raw", IMAGE, image(colour, t, "rgb8", padding=5), t))
        out.append((depth_topic, IMAGE, image(depth, t + late, "16UC1"), t + late))
    return out


def refused(uri):
    with pytest.raises(EdgeAdError) as e, open_camera(uri) as camera:
        list(camera)
    assert "\n" not in str(e.value)
    return str(e.value)


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
    with Writer1(path) as writer:
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


# -- MCAP -------------------------------------------------------------------------------------------------------------


def write_mcap(path, frames, class_name=None):
    with McapWriter(path, class_name) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def frames_of(count, **changes):
    return [
        boxes(48, 64, (10, 20, 10 + n, 40), colour_timestamp_s=n / 30, depth_timestamp_s=n / 30, **changes)
        for n in range(count)
    ]


def test_what_is_recorded_as_mcap_comes_back(tmp_path):
    kept = frames_of(3, clock="hardware")
    path = write_mcap(tmp_path / "raw.mcap", kept, "nut")
    assert [p.name for p in tmp_path.iterdir()] == ["raw.mcap"]
    back = list(open_camera(f"mcap:{path}"))
    assert len(back) == 3
    for a, b in zip(kept, back, strict=True):
        assert np.array_equal(a.colour, b.colour) and a.intrinsics == b.intrinsics and b.class_name == "nut"
        # 0.1 mm a unit becomes metres: exactly what the cloud is made of.
        assert np.array_equal(a.depth.astype(np.float32) * np.float32(1e-4), b.depth) and b.clock == "hardware"
        assert b.colour_timestamp_s == pytest.approx(a.colour_timestamp_s)
    millimetres = [boxes(48, 64, (9, 20, 9, 40), depth_scale_m=0.001)]
    back = list(open_camera(f"mcap:{write_mcap(tmp_path / 'mm.mcap', millimetres)}"))
    assert np.array_equal(back[0].depth, millimetres[0].depth) and back[0].depth.dtype == np.uint16
    assert back[0].depth_scale_m == 0.001


def test_raw_depth_keeps_its_own_grid(tmp_path):
    rotation = (0.999848, 0.0, 0.0174524, 0.0, 1.0, 0.0, -0.0174524, 0.0, 0.999848)
    own = Intrinsics(64, 48, 50.0, 50.0, 31.0, 23.0, (0.1, 0, 0, 0, 0))
    frame = frames_of(1, depth_intrinsics=own, extrinsics=Extrinsics(rotation, (0.015, 0, 0.001)))[0]
    back = next(iter(open_camera(f"mcap:{write_mcap(tmp_path / 'raw.mcap', [frame])}")))
    assert back.depth_intrinsics == own and back.extrinsics.translation == pytest.approx((0.015, 0, 0.001))
    assert back.extrinsics.rotation == pytest.approx(rotation, abs=1e-5)


def test_a_killed_recorder_leaves_every_whole_frame(tmp_path):
    """Cut at every 997th byte: the frames before the cut are whole, what follows is one clear line."""
    path = write_mcap(tmp_path / "raw.mcap", frames_of(4))
    data, whole = path.read_bytes(), list(open_camera(f"mcap:{path}"))
    cut, counts = tmp_path / "cut.mcap", []
    for size in range(len(data) - 20, 8, -997):
        cut.write_bytes(data[:size])
        try:
            seen = list(open_camera(f"mcap:{cut}"))
        except EdgeAdError as e:
            assert "\n" not in str(e)
            counts.append(0)
            continue
        frames, last = seen[:-1], seen[-1]
        assert isinstance(last, BrokenFrame) and f"cut short after {len(frames)} frames" in last.error
        assert all(
            np.array_equal(a.depth, b.depth) and np.array_equal(a.colour, b.colour) for a, b in zip(whole, frames)
        )
        counts.append(len(frames))
    assert counts[0] == 4 and counts == sorted(counts, reverse=True) and {1, 2, 3} <= set(counts)


def test_an_unfinished_recording_stands_under_another_name(tmp_path):
    with McapWriter(tmp_path / "a.mcap") as writer:
        writer.write(frames_of(1)[0])
        partial = tmp_path / "a.partial.mcap"
        assert [p.name for p in tmp_path.iterdir()] == [partial.name]
        seen = list(open_camera(f"mcap:{partial}"))
        assert isinstance(seen[0], Frame) and isinstance(seen[1], BrokenFrame)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mcap"]
    with pytest.raises(EdgeAdError, match="exists already"):
        McapWriter(tmp_path / "a.mcap").__enter__()
    with McapWriter(tmp_path / "empty.mcap"):
        pass
    assert not list(tmp_path.glob("empty*"))


def test_foreign_mcap_files(tmp_path):
    from mcap.writer import Writer

    path = tmp_path / "json.mcap"
    with open(path, "wb") as f:
        writer = Writer(f)
        writer.start()
        schema = writer.register_schema("RawImage", "jsonschema", b"{}")
        writer.add_message(writer.register_channel("/image", "json", schema), 0, json.dumps({}).encode(), 0)
        writer.finish()
    assert "holds messages in json" in refused(f"mcap:{path}")
    (tmp_path / "text.mcap").write_text("hello")
    assert "is no MCAP file" in refused(f"mcap:{tmp_path}/text.mcap")
    (tmp_path / "empty.mcap").touch()
    assert "is empty" in refused(f"mcap:{tmp_path}/empty.mcap")
    assert "does not exist" in refused(f"mcap:{tmp_path}/none.mcap")
    assert "names no file" in refused("mcap:")

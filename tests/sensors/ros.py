"""ROS messages and bags, written with the package ``rosbags`` itself."""

import numpy as np
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

from edge_ad.frame import Intrinsics
from edge_ad.sensors.ros_messages import COMPRESSED, IMAGE, INFO

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
    with Writer(path, version=9) as writer:
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

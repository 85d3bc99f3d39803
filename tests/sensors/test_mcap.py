"""MCAP files: what is recorded comes back; cut off, unfinished and foreign ones."""

import json

import numpy as np
import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Extrinsics, Frame, Intrinsics
from edge_ad.sensors import BrokenFrame, open_camera
from tests.frames import boxes
from tests.sensors.refusals import refused

pytest.importorskip("rosbags", reason="rosbags is not installed (extra 'rosbag')")
pytest.importorskip("mcap", reason="mcap is not installed (extra 'mcap')")

from edge_ad.sensors.mcap_writer import McapWriter  # noqa: E402


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

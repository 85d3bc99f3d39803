"""``edge-ad record`` and ``edge-ad cameras``: layouts, splits, raw files, signals, a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from edge_ad.cli import cameras as cameras_module
from edge_ad.cli.main import main
from edge_ad.data.dataset import open_dataset
from edge_ad.sensors import BrokenFrame, open_camera
from edge_ad.sensors.recorder import record
from tests.frames import boxes

EDGE_AD = [sys.executable, "-m", "edge_ad.cli.main"]


def edge_ad(*arguments):
    done = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    return done.exit_code, done.stdout, done.stderr


def refused(*arguments):
    code, out, err = edge_ad("record", *arguments)
    last = err.strip().splitlines()[-1]
    assert code == 1 and last.startswith("error: ") and out == "", (code, out, err)
    return last


def test_records_what_fit_and_the_folder_camera_read(tmp_path):
    out = tmp_path / "recordings"
    camera = "synthetic:gear?defects=0&frames=9"
    code, text, err = edge_ad(
        "record", "--camera", camera, "--out", out, "--frames", 2, "--trigger", "every:2", "--json"
    )
    told = json.loads(text)
    assert code == 0 and told["frames"] == 2 and told["skipped"] == {} and told["missed"] == 0
    assert told["names"] == ["gear/train/good/00000", "gear/train/good/00001"] and "Ctrl-C ends it" in err
    for split, label, name in (("validation", "good", "gear"), ("test", "good", "gear"), ("test", "scratch", "nut")):
        place = ("--split", split, "--label", label, "--class", name)
        assert edge_ad("record", "--camera", camera, "--out", out, "--frames", 1, *place)[0] == 0
    items = open_dataset(out).items
    assert [i.name for i in items] == [
        "gear/train/good/00000",
        "gear/train/good/00001",
        "gear/validation/good/00000",
        "gear/test/good/00000",
        "nut/test/scratch/00000",
    ]
    sequences = [json.loads(p.read_text())["sequence"] for p in sorted((out / "gear/train/good").glob("0*.json"))]
    assert sequences == [0, 2]  # every second frame
    frames = list(open_camera(f"folder:{out}?split=train"))
    assert all(not isinstance(f, BrokenFrame) and f.class_name == "gear" for f in frames) and len(frames) == 2


def test_defects_go_to_the_test_split_by_themselves(tmp_path):
    edge_ad("record", "--camera", "synthetic:gear?frames=1", "--out", tmp_path, "--label", "dent")
    assert [i.name for i in open_dataset(tmp_path).items] == ["gear/test/dent/00000"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--camera", "synthetic:gear"], ["nowhere to write to", "--out DIR"]),
        (["--camera", "synthetic:gear", "--out", "OUT", "--split", "train", "--label", "dent"], ["good parts alone"]),
        (["--camera", "synthetic:gear", "--out", "OUT", "--label", "../up"], ["label '../up'"]),
        (["--camera", "synthetic:gear", "--out", "OUT", "--class", ""], ["class ''"]),
        (["--camera", "synthetic:gear", "--raw", "OUT/a.txt"], ["FILE.mcap"]),
        (["--camera", "synthetic:gear", "--raw", "OUT/a.db3"], ["a RealSense camera"]),
        (["--camera", "folder:OUT/none", "--out", "OUT"], ["does not exist"]),
        (["--camera", "lidar:", "--out", "OUT"], ["unknown scheme"]),
    ],
)
def test_what_is_refused(tmp_path, arguments, words):
    said = refused(*(a.replace("OUT", str(tmp_path)) for a in arguments))
    assert all(word in said for word in words), said
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_knows_no_class_needs_one(tmp_path):
    pytest.importorskip("pyrealsense2", reason="pyrealsense2 is not installed (extra 'realsense')")
    camera = "realsense:simulated?feed=synthetic:gear?frames=2"
    assert "pass --class NAME" in refused("--camera", camera, "--out", tmp_path / "a")
    assert edge_ad("record", "--camera", camera, "--out", tmp_path / "a", "--class", "gear")[0] == 0
    assert len(open_dataset(tmp_path / "a").items) == 2
    raw = tmp_path / "raw.db3"
    code, text, _ = edge_ad("record", "--camera", camera, "--raw", raw, "--json")
    assert code == 0 and json.loads(text)["frames"] == 2
    with open_camera(f"realsense:{raw}") as played:
        assert len(list(played)) == 2
    assert "exists already" in refused("--camera", camera, "--raw", raw)


def test_raw_and_layout_at_once(tmp_path):
    pytest.importorskip("mcap", reason="mcap is not installed (extra 'mcap')")
    raw = tmp_path / "raw.mcap"
    code, _, _ = edge_ad("record", "--camera", "synthetic:gear?frames=2", "--out", tmp_path / "a", "--raw", raw)
    assert code == 0
    frames = list(open_camera(f"mcap:{raw}"))
    assert len(frames) == len(open_dataset(tmp_path / "a").items) == 2 and frames[0].class_name == "gear"


def test_frames_that_the_camera_cannot_vouch_for_are_counted_and_not_recorded():
    frames = [
        boxes(8, 8, (2, 5, 2, 5), name="a"),
        BrokenFrame("b", 1, "x", "cut short"),
        boxes(8, 8, (2, 5, 2, 5), name="c", health=("colour is 90 ms behind depth",)),
        boxes(8, 8, (2, 5, 2, 5), name="d"),
    ]

    class Sink:
        def write(self, frame):
            return frame.name

    report = record(frames, lambda f: [Sink()])
    assert report.written == ["a", "d"]
    assert report.skipped == {"cut short": 1, "colour is 90 ms behind depth": 1}
    assert record(frames, lambda f: [Sink()], count=1).written == ["a"]
    assert record(frames, lambda f: [Sink()], interval_s=60).written == ["a"]
    assert record(frames, lambda f: [Sink()], stop=lambda: True).written == []


def test_only_unusable_frames_are_an_error(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.color.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "in/a.depth.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    said = refused("--camera", f"folder:{tmp_path}/in?class=nut", "--out", tmp_path / "out")
    assert "gave no frame to record" in said and "a.color.png" in said


def start(out, **environment):
    command = [*EDGE_AD, "record", "--camera", "synthetic:hex_nut?frames=0&defects=0", "--out", str(out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})


def wait_for(process, count):
    seen = 0
    until = time.monotonic() + 60
    while seen < count and time.monotonic() < until:
        seen += process.stderr.readline().startswith("wrote ")
    assert seen == count
    return seen


@pytest.mark.parametrize("delay_ms", [0, 13, 31])
def test_a_kill_leaves_every_finished_frame_and_no_half_one(tmp_path, delay_ms):
    out = tmp_path / "recordings"
    process = start(out)
    told = wait_for(process, 3)
    time.sleep(delay_ms / 1000)
    process.send_signal(signal.SIGKILL)
    rest = process.communicate()[1]
    told += sum(line.startswith("wrote ") for line in rest.splitlines())
    items = open_dataset(out).items
    assert told <= len(items) <= told + 1  # one may have been finished and not yet told
    for item in items:
        assert item.frame().depth.shape == (320, 320)
    # The next recording clears what was half written, and goes on numbering.
    assert edge_ad("record", "--camera", "synthetic:hex_nut?frames=1", "--out", out)[0] == 0
    assert len(open_dataset(out).items) == len(items) + 1
    assert not list(out.rglob(".*.partial")) and not list(out.rglob(".*.tmp"))


def test_ctrl_c_ends_a_recording_well(tmp_path):
    process = start(tmp_path / "recordings")
    wait_for(process, 2)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and "frames in" in rest.strip().splitlines()[-1]
    assert not list(tmp_path.rglob(".*"))


# -- cameras ----------------------------------------------------------------------------------------------------------


def test_cameras_lists_what_each_source_needs(monkeypatch):
    real = cameras_module.util.find_spec
    monkeypatch.setattr(cameras_module.util, "find_spec", lambda name: None if name == "depthai" else real(name))
    code, out, _ = edge_ad("cameras", "--json", "--no-search")
    rows = {row["uri"].partition(":")[0]: row for row in json.loads(out)["cameras"]}
    assert code == 0 and set(rows) >= {"folder", "synthetic", "belt", "realsense", "orbbec", "oak", "opencv", "mcap"}
    assert rows["oak"]["missing"] == "depthai" and rows["oak"]["remedy"] == "pip install 'edge-ad[oak]'"
    assert rows["folder"]["missing"] is None
    code, text, _ = edge_ad("cameras", "--no-search")
    assert "needs 'depthai': pip install 'edge-ad[oak]'" in text


def test_cameras_names_what_is_connected_and_survives_a_bad_sdk(monkeypatch):
    import types

    good = types.SimpleNamespace(connected=lambda: [{"name": "D435", "serial": "123"}])

    def broken():
        raise RuntimeError("usb\nstack is down")

    modules = {"edge_ad.sensors.realsense_sdk": good, "edge_ad.sensors.orbbec": types.SimpleNamespace(connected=broken)}
    modules["edge_ad.sensors.oak"] = types.SimpleNamespace(connected=list)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(cameras_module.util, "find_spec", lambda name: object())
    code, out, _ = edge_ad("cameras", "--json")
    rows = {row["uri"].partition(":")[0]: row for row in json.loads(out)["cameras"]}
    assert code == 0 and rows["realsense"]["devices"] == [{"name": "D435", "serial": "123"}]
    assert rows["orbbec"]["error"] == "usb stack is down" and rows["oak"]["devices"] == []
    code, text, _ = edge_ad("cameras")
    assert "connected: name D435 serial 123" in text and "usb stack is down" in text and "none connected" in text


def test_a_camera_that_lies_leaves_only_what_it_can_vouch_for(tmp_path):
    """Colour runs ahead of depth for a while: those frames are not training data, and the summary says so."""
    camera = "fault:ahead?at=4&for=5&frames=20&fps=10"
    code, text, err = edge_ad("record", "--camera", camera, "--out", tmp_path, "--class", "box", "--json")
    told = json.loads(text)
    assert code == 0 and told["camera"]["faults"] and sum(told["skipped"].values()) >= 1
    sequences = [json.loads(p.read_text())["sequence"] for p in sorted((tmp_path / "box/train/good").glob("0*.json"))]
    assert len(sequences) == told["frames"] == len(open_dataset(tmp_path).items)
    assert not set(sequences) & set(range(4, 9)), sequences
    assert "camera: " in err

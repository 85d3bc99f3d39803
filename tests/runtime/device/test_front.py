"""From the camera's images to the parts: every kind of frame and of scene gives the CPU's Result."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_ad.bundle import Bundle
from edge_ad.calibration.scene import calibrate_scene
from edge_ad.frame import Extrinsics, Frame, Intrinsics
from edge_ad.runtime.detector import Detector
from edge_ad.runtime.device import frame as frame_module
from edge_ad.runtime.device import judge
from edge_ad.runtime.device.detector import DeviceDetector
from edge_ad.runtime.device.frame import FrameKind
from edge_ad.runtime.geometry import depth_to_xyz
from edge_ad.runtime.preprocess import Scene
from tests.emulator.emulate import needs_compiler
from tests.frames import boxes
from tests.runtime.device.emulated import EmulatedDriver
from tests.runtime.device.memory import Race
from tests.runtime.device.same import assert_same, changed
from tests.scenes import scene_frame, scene_frames
from tests.shared import SHARED, needs_shared

pytestmark = needs_compiler
Cpu, Device = Callable[..., Detector], Callable[..., DeviceDetector]
BESIDE = Extrinsics((0.9998, 0.0, 0.02, 0.0, 1.0, 0.0, -0.02, 0.0, 0.9998), (0.012, -0.003, 0.002))


def as_cloud(frame: Frame) -> Frame:
    """The camera gives points, some of them no numbers."""
    assert frame.depth is not None and frame.intrinsics is not None
    xyz = depth_to_xyz(frame.depth, frame.depth_scale_m, frame.intrinsics)
    xyz[20:22, 30:33] = np.nan, np.inf, -1
    return replace(frame, depth=None, intrinsics=None, xyz=xyz)


def as_metres(frame: Frame) -> Frame:
    assert frame.depth is not None
    depth = frame.depth.astype(np.float32) * np.float32(frame.depth_scale_m)
    depth[0, :3] = np.nan, np.inf, -1
    return replace(frame, depth=depth, depth_scale_m=1.0)


def on_its_own_grid(frame: Frame, dtype: Any = np.uint16, lens: bool = False) -> Frame:
    assert frame.depth is not None and frame.intrinsics is not None
    k = frame.intrinsics
    if lens:
        k = replace(k, distortion=(0.05, -0.02, 1e-3, -1e-3, 0.0))
    source = Intrinsics(k.width, k.height, 82.0, 81.0, k.ppx - 1.5, k.ppy + 0.5)
    return replace(frame, depth=frame.depth.astype(dtype), intrinsics=k, depth_intrinsics=source, extrinsics=BESIDE)


KINDS: dict[str, Callable[[Frame], Frame]] = {
    "a cloud": as_cloud,
    "float32 depth": as_metres,
    "a lens": lambda f: replace(f, intrinsics=replace(f.intrinsics, distortion=(0.05, -0.02, 1e-3, -1e-3, 0.0))),
    "depth of its own": on_its_own_grid,
    "float32 of its own": lambda f: on_its_own_grid(f, np.float32),
    "of its own, seen through a lens": lambda f: on_its_own_grid(f, lens=True),
    "float64 of its own": lambda f: on_its_own_grid(f, np.float64),
    "big-endian depth": lambda f: replace(f, depth=f.depth.astype(">u2")),  # type: ignore[union-attr]
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_frame(kind: str, cpu: Cpu, device: Device, frames: list[Frame]) -> None:
    reference, detector = cpu(), device()
    wanted = reference(KINDS[kind](frames[2]))
    assert wanted.map is not None
    assert_same(detector(KINDS[kind](frames[2])), wanted)


def without_depth(frame: Frame) -> Frame:
    assert frame.depth is not None
    return replace(frame, depth=np.zeros_like(frame.depth))


REFUSED: dict[str, Callable[[Frame], Frame]] = {
    "no depth": without_depth,
    "neither": lambda f: replace(f, depth=None),
    "no intrinsics": lambda f: replace(f, intrinsics=None),
    "another size": lambda f: replace(f, colour=f.colour[:-2]),
    "no extrinsics": lambda f: replace(on_its_own_grid(f), extrinsics=None),
    "wide squares": lambda f: replace(on_its_own_grid(f), depth_intrinsics=Intrinsics(72, 60, 4.0, 4.0, 36.0, 30.0)),
}


@pytest.mark.parametrize("background", ["plane", "none"])
@pytest.mark.parametrize("why", REFUSED)
def test_frames_that_are_refused(
    why: str, background: str, bundle: Bundle, cpu: Cpu, device: Device, frames: list[Frame]
) -> None:
    """With a host step or without, in the same words; and the next frame is none the worse."""
    crop = "part" if background == "plane" else "image"
    b = changed(bundle, geometry={"background": background, "crop": crop})
    reference, detector = cpu(b), device(b=b)
    for frame in (REFUSED[why](frames[0]), frames[1]):
        assert_same(detector(frame), reference(frame))
    assert reference(REFUSED[why](frames[0])).decision == "invalid"


def masks(frame: Frame) -> dict[str, Any]:
    h, w = frame.shape
    roi, expected = np.zeros((h, w), bool), np.ones((h, w), bool)
    roi[4 : h - 6, 8 : w - 5] = True
    expected[:, : w // 2] = False
    return {"roi": roi, "expected_depth": expected}


@pytest.mark.parametrize("crop", ["image", "roi"])
@pytest.mark.parametrize("pose", ["free", "fixed"])
def test_a_whole_scene_needs_no_step_on_the_host(
    crop: str, pose: str, bundle: Bundle, cpu: Cpu, device: Device, frames: list[Frame]
) -> None:
    b = changed(bundle, geometry={"background": "none", "crop": crop, "pose": pose, "max_depth_m": 0.41})
    reference, detector = cpu(b), device(b=b)
    for frame in (frames[2], frames[1]):
        assert frame.depth is not None
        holes = replace(frame, depth=np.where(np.indices(frame.shape).sum(axis=0) % 16 < 3, 0, frame.depth))
        scene = {c: Scene(**masks(frame)) for c in b.class_names}
        reference.preprocess.scenes.update(scene)
        detector.preprocess.scenes.update(scene)
        wanted = reference(holes)
        assert wanted.lost is not None and wanted.lost.any() == (pose == "fixed")
        prepared = detector.prepare(holes)
        driver = detector.driver
        assert isinstance(driver, EmulatedDriver) and "gather_points" not in driver.launched
        assert_same(detector.finish(detector.score(detector.encode(prepared))), wanted)


@pytest.mark.parametrize("tiled", [False, True])
def test_a_calibrated_scene(tiled: bool, bundle: Bundle, cpu: Cpu, device: Device) -> None:
    """Its plane is a test per pixel, tiles cut it, and a camera that moved is told."""
    setup = calibrate_scene(scene_frames(8)).setup
    if tiled:
        setup = replace(setup, tiles=((0, 0, 70, 70), (20, 50, 90, 120)), tile_overlap=0.1)
    scene = {c: Scene(setup=setup) for c in bundle.class_names}
    reference, detector = cpu(class_name="cookie"), device(class_name="cookie")
    reference.preprocess.scenes.update(scene)
    detector.preprocess.scenes.update(scene)
    box = (30, 70, 30, 90)
    for frame in (scene_frame(3, box=box), scene_frame(4, box=box, distance=0.52)):
        wanted = reference(frame)
        assert_same(detector(frame), wanted)
    assert reference(scene_frame(4, box=box, distance=0.52)).health == "degraded"


def test_more_areas_than_the_device_lists(
    cpu: Cpu, device: Device, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = boxes(80, 140, (10, 30, 10, 30), (45, 65, 55, 75), (12, 32, 100, 120), class_name="hex_nut")
    wanted = cpu()(frame)
    assert len(wanted.regions) > 1
    for module in (frame_module, judge):
        monkeypatch.setattr(module, "MOST_AREAS", 1)
    detector = device()
    download, used = detector.driver.download, set()

    def watched(target: Any, source: Any, nbytes: int, stream: Any) -> None:
        if nbytes == 12 * 80 * 140:
            used.add(stream.handle)
        download(target, source, nbytes, stream)

    monkeypatch.setattr(detector.driver, "download", watched)
    assert_same(detector(frame), wanted)
    # The thread that reads answers: on a stream on which another may record a graph it would break that.
    assert used == {detector.device.front.stream.handle}


def test_a_frame_that_the_garbage_collector_gives_back_inside_the_lock(device: Device, frames: list[Frame]) -> None:
    """The collector may run in any allocation, also in those of ``take`` itself."""
    detector = device()
    pool = detector.device.front.pool
    with detector.driver.current():
        held = pool.take(FrameKind.of(frames[0]))
    with pool._lock:
        giver = threading.Thread(target=lambda: pool.give(held.slot), daemon=True)
        giver.start()
        giver.join(5)
        assert not giver.is_alive()
    assert pool.idle == 1
    pool._back.clear()  # `held` gives it back once more


def test_frames_share_slots_and_give_them_back(device: Device, frames: list[Frame]) -> None:
    detector = device()
    pool = detector.device.front.pool
    for frame in frames:
        detector.prepare(frame)
        gc.collect()
    assert len(pool._all) == pool.idle == 1
    held = [detector.prepare(f) for f in frames]
    assert len(pool._all) == 3
    del held
    gc.collect()
    assert pool.idle == 3
    detector.prepare(boxes(40, 50, (10, 30, 10, 30), class_name="cookie"))  # another mode: the old ones are freed
    assert len(pool._all) == 1


@pytest.mark.parametrize("forgotten", ["ready", "used"])
def test_a_forgotten_order_between_frames_is_caught(
    forgotten: str, bundle: Bundle, device: Device, frames: list[Frame]
) -> None:
    detector = device(b=changed(bundle, geometry={"background": "none", "crop": "image"}))  # no wait on the host
    driver, pool = detector.driver, detector.device.front.pool
    wait = driver.wait
    if forgotten == "ready":
        driver.wait = lambda s, e: None if e in [f.ready for f in pool._all] else wait(s, e)  # type: ignore[method-assign]
    else:
        pool._wait = lambda slot: slot.used.clear()  # type: ignore[method-assign]
    with pytest.raises(Race):
        for frame in frames:
            detector.encode(detector.prepare(frame))
            gc.collect()


@needs_shared
@pytest.mark.parametrize("scene", ["kinect_tabletop", "arc_tote"])
def test_recorded_frames(scene: str, bundle: Bundle, cpu: Cpu, device: Device) -> None:
    """Real cameras: objects on a table (several parts above a plane), and a tote (a scene with its region)."""
    from edge_ad.data.dataset import open_dataset

    tote = scene == "arc_tote"
    data = open_dataset(SHARED / "data/real" / scene, **({"class_name": "tote"} if tote else {}))
    geometry = {"background": "none", "crop": "roi", "pose": "fixed"} if tote else {"ransac_iterations": 200}
    b = changed(bundle, geometry=geometry)
    reference, detector = cpu(b, class_name="hex_nut"), device(b=b, class_name="hex_nut")
    for item in (data.items[0], data.items[-1]):
        frame = item.read_frame()
        if tote:
            roi = np.zeros(frame.shape, bool)
            roi[100:400, 150:500] = True
            some = {c: Scene(roi, frame.depth > 0) for c in b.class_names}  # type: ignore[operator]
            reference.preprocess.scenes.update(some)
            detector.preprocess.scenes.update(some)
        wanted = reference(frame)
        assert wanted.map is not None and wanted.map.shape == (480, 640)
        assert_same(detector(frame), wanted)


@needs_shared
def test_a_recorded_frame_with_depth_on_its_own_grid(bundle: Bundle, cpu: Cpu, device: Device) -> None:
    """A D435's frame registered on the device; the whole image, as no part lies in view."""
    pytest.importorskip("pyrealsense2")
    from edge_ad.sensors import open_camera

    b = changed(bundle, geometry={"background": "none", "crop": "image"})
    (path,) = (SHARED / "data/real/realsense_d435").glob("*.bag")
    with open_camera(f"realsense:{path}?align=raw") as camera:
        frame = next(f for f in camera if isinstance(f, Frame))
    assert frame.depth_intrinsics is not None
    wanted = cpu(b, class_name="cookie")(frame)
    assert wanted.map is not None
    assert_same(device(b=b, class_name="cookie")(frame), wanted)

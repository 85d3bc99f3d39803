"""The calibrated scene at run time: a camera that moved is told with how much, and what parts do is not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.calibration.scene import calibrate_scene
from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame
from edge_ad.runtime.geometry import frame_xyz
from edge_ad.runtime.parts import CUT_OFF
from edge_ad.runtime.preprocess import Preprocessor, Scene
from edge_ad.runtime.scene_check import SEEN_STRIDE, SceneSetup, check, look
from tests.frames import geometry
from tests.scenes import HEIGHT, WIDTH, scene_frame, scene_frames

SETUP = calibrate_scene(scene_frames(8)).setup


def reasons(frame: Frame, setup: SceneSetup = SETUP) -> tuple[str, ...]:
    return check(setup, frame.shape, frame_xyz(frame)[::SEEN_STRIDE, ::SEEN_STRIDE])


@given(st.integers(0, 40))
def test_a_camera_that_stands_is_never_said_to_have_moved(number: int) -> None:
    assert reasons(scene_frame(100 + number)) == ()


@given(st.floats(-0.06, 0.06).filter(lambda d: abs(d) > 0.004), st.integers(0, 9))
def test_a_shift_is_told_in_millimetres(shift: float, number: int) -> None:
    frame = scene_frame(100 + number, distance=0.5 + shift)
    state = look(SETUP, frame_xyz(frame)[::SEEN_STRIDE, ::SEEN_STRIDE])
    assert state.visible and state.shift_m == pytest.approx(shift, abs=5e-4)
    assert state.tilt_deg < 0.3
    (first, *_) = reasons(frame)
    assert first.startswith("the camera moved: the supporting plane is ")
    assert f"{abs(state.shift_m) * 1e3:.1f} mm {'farther' if shift > 0 else 'nearer'}" in first


@given(st.floats(0.8, 15.0), st.booleans())
def test_a_tilt_is_told_in_degrees(tilt: float, other_way: bool) -> None:
    tilt = -tilt if other_way else tilt
    state = look(SETUP, frame_xyz(scene_frame(7, tilt_deg=tilt))[::SEEN_STRIDE, ::SEEN_STRIDE])
    assert state.visible and state.tilt_deg == pytest.approx(abs(tilt), abs=0.2)
    assert "degrees" in reasons(scene_frame(7, tilt_deg=tilt))[0]


@given(
    st.integers(5, 40),
    st.integers(5, 50),
    st.integers(20, 50),
    st.integers(20, 70),
    st.sampled_from([0.006, 0.02, 0.05]),
)
def test_parts_on_the_plane_are_no_motion(y: int, x: int, h: int, w: int, thickness: float) -> None:
    """Also flat ones that cover much of the view."""
    assert reasons(scene_frame(3, box=(y, y + h, x, x + w), thickness=thickness)) == ()


def test_a_part_that_hides_the_plane_leaves_it_unchecked() -> None:
    frame = scene_frame(3, box=(0, HEIGHT, 0, WIDTH))
    state = look(SETUP, frame_xyz(frame)[::SEEN_STRIDE, ::SEEN_STRIDE])
    assert not state.visible or abs(state.shift_m) > SETUP.shift_limit_m


def test_something_nearer_than_the_working_distance_is_told() -> None:
    text = " ".join(reasons(scene_frame(3, box=(20, 60, 20, 60), thickness=0.25)))
    assert "nearer than the working distance" in text


def test_another_mode_of_the_camera_is_told() -> None:
    assert "64 x 48 pixels in a scene of 128 x 96" in reasons(scene_frame(0, height=48, width=64))[0]


def test_lost_depth_alone_is_no_motion() -> None:
    assert reasons(scene_frame(4, lost=0.6)) == ()
    assert reasons(scene_frame(4, lost=0.97)) == ()


def test_the_json_document_comes_back_as_it_was() -> None:
    read = SceneSetup.from_json(json.loads(json.dumps(SETUP.to_json())), "there")
    assert read.to_json() == SETUP.to_json() and (read.seen == SETUP.seen).all()
    assert SceneSetup.from_array(SETUP.to_array(), "there").to_json() == SETUP.to_json()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 99}, "at most 1"),
        ({"schema": "1"}, "no scene"),
        ({"plane": {}}, "normal"),
        ({"plane": {"normal": [0, 0, -2], "offset": 1, "inliers": 1}}, "unit normal"),
        ({"seen": "!!"}, "broken field"),
        ({"seen": ""}, "broken field"),
        ({"band_m": [1]}, "broken field"),
        ({"width": 0}, "size"),
        ({"tiles": [[1, 2]]}, "broken field"),
    ],
)
def test_broken_documents_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(EdgeAdError, match=words):
        SceneSetup.from_json({**SETUP.to_json(), **change}, "scene.json")


@pytest.mark.parametrize("array", [np.zeros(4, np.uint8), np.frombuffer(b"[1]", np.uint8)])
def test_broken_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(EdgeAdError, match="no scene"):
        SceneSetup.from_array(array, "bundle b")


def preprocessor(scene: Scene, **changes: object) -> Preprocessor:
    return Preprocessor(geometry(**{"size": 64, **changes}), (0.5,) * 3, (0.5,) * 3, {"part": scene})


def test_the_calibrated_plane_takes_the_place_of_ransac(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = scene_frame(3, box=(30, 60, 40, 80))
    searched = preprocessor(Scene(), crop="part")(frame, "part")

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a frame waits for RANSAC")

    monkeypatch.setattr("edge_ad.runtime.parts.fit_plane", never)
    tested = preprocessor(Scene(setup=SETUP), crop="part")(frame, "part")
    assert (tested.samples[0].valid == searched.samples[0].valid).all()
    assert tested.health == ()
    with pytest.raises(AssertionError, match="RANSAC"):
        preprocessor(Scene(), crop="part")(frame, "part")


def test_a_moved_camera_makes_the_samples_degraded() -> None:
    moved = preprocessor(Scene(setup=SETUP), crop="part")(scene_frame(3, box=(30, 60, 40, 80), distance=0.48), "part")
    assert moved.health and "20.0 mm nearer" in moved.health[0]


def test_the_class_auto_uses_the_scene_that_all_classes_share() -> None:
    pre = preprocessor(Scene(setup=SETUP), crop="part")
    pre.scenes["other"] = Scene(setup=SETUP)
    moved = scene_frame(3, box=(30, 60, 40, 80), distance=0.48)
    assert pre(moved, "auto").health
    pre.scenes["other"] = Scene(setup=replace(SETUP, noise_m=1.0))
    assert pre(moved, "auto").health == ()


def test_a_part_at_the_rim_of_a_calibrated_region_is_cut_off() -> None:
    roi = np.zeros((HEIGHT, WIDTH), bool)
    roi[10:90, 10:120] = True
    pre = preprocessor(Scene(roi=roi, setup=SETUP), crop="part")
    assert pre(scene_frame(3, box=(30, 60, 40, 80)), "part").samples[0].notes == ()
    assert CUT_OFF in pre(scene_frame(3, box=(30, 60, 0, 40)), "part").samples[0].notes


def test_tiles_cut_a_large_part_into_finer_samples() -> None:
    setup = replace(SETUP, tiles=((0, 0, 96, 96), (0, 32, 96, 128)))
    part = (20, 70, 8, 120)
    out = preprocessor(Scene(setup=setup), crop="part")(scene_frame(3, box=part), "part")
    assert [s.transform.side for s in out.samples] == [96, 96]
    assert [s.transform.x0 for s in out.samples] == [0, 32]
    covered = np.zeros((HEIGHT, WIDTH), bool)
    for sample in out.samples:
        t = sample.transform
        rows, cols = np.nonzero(sample.valid)
        covered[t.source_rows()[rows], t.source_cols()[cols]] = True
        assert sample.lost.sum() == 0
    inside = np.zeros_like(covered)
    inside[part[0] : part[1], part[2] : part[3]] = True
    assert not (covered & ~inside).any()
    assert covered.sum() > 0.3 * inside.sum()  # every second pixel or so: 96 pixels on 64

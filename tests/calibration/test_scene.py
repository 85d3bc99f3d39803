"""Scene calibration on scenes whose plane, noise, scale and motion are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_ad.calibration.scene import SceneOptions, calibrate_scene
from edge_ad.calibration.scene_files import find_roi, open_target, write_scene
from edge_ad.calibration.scene_picture import draw_scene
from edge_ad.cli.calibrate import command
from edge_ad.data.dataset import open_dataset
from edge_ad.errors import EdgeAdError
from edge_ad.files import read_json, write_image
from edge_ad.frame import Frame
from edge_ad.runtime.scene_check import SceneSetup
from tests.bundles import tiny_bundle
from tests.frames import intrinsics
from tests.scenes import HEIGHT, WIDTH, scene_frame, scene_frames


def test_the_plane_noise_and_scale_of_a_known_scene() -> None:
    report = calibrate_scene(scene_frames(20, tilt_deg=10.0, noise_m=2e-4))
    s = report.setup
    cosine = float(-np.asarray(s.plane.normal)[2])
    assert np.degrees(np.arccos(cosine)) == pytest.approx(10.0, abs=0.1)
    assert s.plane.offset == pytest.approx(0.5 * np.cos(np.radians(10)), abs=2e-4)
    # The noise was put on the depth; its quantisation of 0.1 mm adds a little.
    assert s.noise_m == pytest.approx(2e-4, rel=0.15)
    # 0.5 m away with a focal length of WIDTH pixels, stretched along the slope by 1 / cos.
    assert s.mm_per_pixel == pytest.approx(500 / WIDTH / np.cos(np.radians(10)), rel=0.03)
    assert s.smallest_mm[0] == pytest.approx(3 * s.mm_per_pixel, rel=1e-6)
    assert s.smallest_mm[1] == pytest.approx(3e3 * s.noise_m)
    assert s.belt_px == (0.0, 0.0) and s.tiles == () and not report.warnings
    assert report.roi.mean() > 0.9


def test_parts_in_view_neither_tilt_the_plane_nor_count_as_noise() -> None:
    empty = calibrate_scene(scene_frames(12, noise_m=2e-4)).setup
    full = calibrate_scene(scene_frames(12, box=(30, 60, 40, 80), noise_m=2e-4)).setup
    assert full.plane.offset == pytest.approx(empty.plane.offset, abs=1e-4)
    assert full.noise_m == pytest.approx(empty.noise_m, rel=0.1)
    assert full.band_m[0] < 0.5 - 0.03 and full.band_m[1] == pytest.approx(empty.band_m[1], abs=1e-3)
    assert full.least_seen > 0.95 and full.seen.mean() < empty.seen.mean()


def test_the_direction_of_a_belt_is_found() -> None:
    moving = calibrate_scene(scene_frames(20, box=(30, 60, 10, 30), step=(4, 0))).setup
    assert moving.belt_px[0] == pytest.approx(4, abs=0.5) and abs(moving.belt_px[1]) < 0.5
    up = calibrate_scene(scene_frames(16, box=(60, 80, 50, 75), step=(0, -3))).setup
    assert up.belt_px[1] == pytest.approx(-3, abs=0.5) and abs(up.belt_px[0]) < 0.5


def test_a_smaller_defect_takes_more_tiles_and_an_impossible_one_says_how_near_to_go() -> None:
    frames = scene_frames(4)
    coarse = calibrate_scene(frames, SceneOptions(sample=64)).setup
    fine = calibrate_scene(frames, SceneOptions(sample=64, defect_mm=12.0)).setup
    assert coarse.tiles == () and len(fine.tiles) >= 2
    assert fine.smallest_mm[0] <= 12.0 < coarse.smallest_mm[0] * 1.5
    covered = np.zeros((HEIGHT, WIDTH), bool)
    for y0, x0, y1, x1 in fine.tiles:
        covered[max(0, y0) : y1, max(0, x0) : x1] = True
        assert y1 - y0 == x1 - x0
    assert covered[calibrate_scene(frames).roi].all()
    impossible = calibrate_scene(frames, SceneOptions(defect_mm=3.0))
    assert impossible.setup.tiles == () and "bring it to" in impossible.warnings[0]


def test_lost_depth_and_a_given_region() -> None:
    frames = scene_frames(6, lost=0.3)
    roi = np.zeros((HEIGHT, WIDTH), bool)
    roi[20:80, 30:100] = True
    report = calibrate_scene(frames, roi=roi)
    assert (report.roi == roi).all()
    assert report.setup.plane.offset == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("frames", "roi", "words"),
    [
        ([scene_frame(0)], None, "1 frames"),
        ([scene_frame(0), scene_frame(1, height=60)], None, "2 sizes"),
        ([scene_frame(0), scene_frame(1)], np.ones((4, 4), bool), "4 x 4 pixels"),
        ([scene_frame(0, lost=1.0), scene_frame(1)], None, "no pixel has depth"),
        ([scene_frame(i, noise_m=0.2) for i in range(3)], None, "no plane"),
    ],
    ids=["one frame", "sizes", "roi", "no depth", "no plane"],
)
def test_scenes_that_cannot_be_measured(frames: list[Frame], roi: np.ndarray | None, words: str) -> None:
    with pytest.raises(EdgeAdError, match=words):
        calibrate_scene(frames, roi=roi)


def test_the_picture_shows_region_tiles_and_figures() -> None:
    frames = scene_frames(10, box=(30, 60, 10, 30), step=(4, 0))
    report = calibrate_scene(frames, SceneOptions(sample=64, defect_mm=12.0))
    picture = draw_scene(report)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    for colour in ((60, 220, 90), (255, 190, 40)):  # the region's outline and the tiles
        assert (picture == np.array(colour, np.uint8)).all(axis=2).sum() > 100
    assert any("belt" in line for line in report.lines())


def test_a_folder_of_recordings_takes_the_scene_and_fit_finds_it(tmp_path: Path) -> None:
    from tests.scenes import write_recordings

    write_recordings(tmp_path / "bracket" / "train" / "good", 3)
    place = open_target(tmp_path / "bracket")
    written = write_scene(place, calibrate_scene(scene_frames(4)))
    assert [Path(w).name for w in written] == ["roi.png", "scene.png", "scene.json"]
    dataset = open_dataset(tmp_path, "auto", None)
    setup = SceneSetup.from_json(read_json(dataset.scenes["bracket"]), "there")
    assert setup.width == WIDTH and dataset.roi("bracket") is not None
    with pytest.raises(EdgeAdError, match="exists already"):
        open_target(tmp_path / "bracket")
    open_target(tmp_path / "bracket", force=True)


def test_a_region_drawn_by_hand_is_kept(tmp_path: Path) -> None:
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[10:50, 10:60] = 255
    write_image(tmp_path / "roi.png", drawn)
    found = find_roi(open_target(tmp_path), (), (HEIGHT, WIDTH))
    assert found is not None and (found == (drawn > 0)).all()


def test_a_bundle_takes_the_scene_and_keeps_region_and_tiles(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "b")
    tiled = calibrate_scene(scene_frames(4), SceneOptions(sample=64, defect_mm=12.0))
    place = open_target(tmp_path / "b", "cap")
    write_scene(place, tiled)
    again = open_target(tmp_path / "b", "cap")
    assert again.bundle is not None
    arrays = again.bundle.scene("cap")
    assert arrays is not None and arrays["roi"].shape == (12, 16)  # as the model was fitted
    setup = SceneSetup.from_array(arrays["setup"], "there")
    assert setup.tiles == () and setup.noise_m == tiled.setup.noise_m
    again.bundle.verify()
    assert bundle.scene("bracket") is None


def test_targets_that_are_refused(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "b")
    with pytest.raises(EdgeAdError, match="does not know the class"):
        open_target(tmp_path / "b", "nut")
    with pytest.raises(EdgeAdError, match="is no bundle"):
        open_target(tmp_path / "folder", "nut")


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "9,9,5,20", "0,0,5000,20"])
def test_boxes_that_are_none(text: str, tmp_path: Path) -> None:
    with pytest.raises(EdgeAdError, match="--roi"):
        find_roi(open_target(tmp_path), (text,), (HEIGHT, WIDTH))


def test_the_command_writes_a_scene_and_says_what_it_found(tmp_path: Path) -> None:
    from tests.scenes import write_recordings

    write_recordings(tmp_path / "empty", 4)
    run = CliRunner().invoke(
        command,
        ["scene", str(tmp_path / "out"), "--camera", f"folder:{tmp_path / 'empty'}", "--roi", "10,10,100,80", "--json"],
    )
    assert run.exit_code == 0, run.output
    document = json.loads(run.stdout)
    assert document["scene"]["plane"]["offset"] == pytest.approx(0.5, abs=1e-3)
    assert (tmp_path / "out" / "scene.png").is_file()
    again = CliRunner().invoke(command, ["scene", str(tmp_path / "out"), "--camera", f"folder:{tmp_path / 'empty'}"])
    assert again.exit_code == 1 and again.stderr.startswith("error: ") and "--force" in again.stderr


def test_a_source_without_good_frames_is_one_line(tmp_path: Path) -> None:
    from tests.scenes import write_recordings

    write_recordings(tmp_path / "dark", 3, lost=1.0)
    run = CliRunner().invoke(command, ["scene", str(tmp_path / "out"), "--camera", f"folder:{tmp_path / 'dark'}"])
    assert run.exit_code == 1 and "no pixel has depth" in run.stderr
    assert not (tmp_path / "out").exists()


def test_the_intrinsics_may_be_absent_when_the_cloud_is_given() -> None:
    from edge_ad.runtime.geometry import frame_xyz

    clouds = [replace(f, depth=None, xyz=frame_xyz(f), intrinsics=None) for f in scene_frames(4)]
    assert calibrate_scene(clouds).setup.plane.offset == pytest.approx(0.5, abs=1e-3)
    assert intrinsics(4, 4).width == 4

"""Synthetic parts: determinism, exact geometry, and defects that touch what they say they touch."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.data.synthetic import CLASSES, DEFECTS, INTRINSICS, kinds_for, synthesize
from edge_ad.errors import EdgeAdError

CASES = [(c, k) for c in CLASSES for k in kinds_for(c)]
# Every kind once, over all classes, keeps the module quick; test_shares_of_every_class covers the rest.
SOME = [(CLASSES[i % len(CLASSES)], k) for i, k in enumerate(DEFECTS) if k in kinds_for(CLASSES[i % len(CLASSES)])]


def kinds(modality):
    return [(c, k) for c, k in SOME if DEFECTS[k] == modality]


def project(xyz):
    k = INTRINSICS
    valid = xyz[..., 2] > 0
    x, y, z = xyz[valid].astype(np.float64).T
    return valid, x / z * k.fx + k.ppx, y / z * k.fy + k.ppy


def test_enough_classes_and_kinds():
    assert len(CLASSES) >= 5
    assert len(DEFECTS) >= 8
    assert set(DEFECTS.values()) == {"colour", "depth", "both"}
    assert {k for _, k in CASES} == set(DEFECTS)
    assert {k for _, k in SOME} | {"print_fault"} == set(DEFECTS)


@pytest.mark.parametrize("class_name", CLASSES)
def test_good_part(class_name):
    part = synthesize(class_name, 3)
    assert part.colour.shape == (INTRINSICS.height, INTRINSICS.width, 3) and part.colour.dtype == np.uint8
    assert part.xyz.shape == part.colour.shape and part.xyz.dtype == np.float32
    assert part.defect is None and not part.gt.any()
    valid, u, v = project(part.xyz)
    rows, cols = np.nonzero(valid)
    assert np.abs(u - cols).max() < 0.01 and np.abs(v - rows).max() < 0.01
    assert not part.xyz[~valid].any(), "a missing point is (0, 0, 0)"
    widths = np.ptp(np.nonzero(part.part), axis=1) / INTRINSICS.width
    assert 0.45 < widths.max() < 0.85
    border = np.ones_like(part.part)
    border[12:-12, 12:-12] = False
    assert not (part.part & border).any(), "the supporting plane is free all around"
    lost = (part.part & ~valid).sum() / part.part.sum()
    assert 0.001 < lost < 0.05


def test_plane_and_noise():
    """The border is one plane, a little tilted, with the stated depth noise."""
    xyz = synthesize("gear", 11).xyz.astype(np.float64)
    border = np.zeros(xyz.shape[:2], dtype=bool)
    border[:30] = border[-30:] = border[:, :30] = border[:, -30:] = True
    points = xyz[border & (xyz[..., 2] > 0)]
    design = np.column_stack([points[:, :2], np.ones(len(points))])
    solution, *_ = np.linalg.lstsq(design, points[:, 2], rcond=None)
    residual = points[:, 2] - design @ solution
    assert 0.41 < solution[2] < 0.43
    assert np.hypot(*solution[:2]) < np.tan(np.deg2rad(4))
    assert 1.0e-4 < residual.std() < 2.0e-4


def test_height_is_that_of_the_part():
    """The gear's hub stands about 17 mm above the plane, its web lower than its rim."""
    part = synthesize("gear", 5)
    z = part.xyz[..., 2]
    plane = np.median(z[:30][z[:30] > 0])
    heights = 1000 * (plane - z[part.part & (z > 0)])
    assert 14 < np.percentile(heights, 99) < 20


@pytest.mark.parametrize(("class_name", "kind"), [("cookie", None), ("hex_nut", "crack"), ("bearing", "dent")])
def test_same_seed_same_part(class_name, kind):
    a, b = synthesize(class_name, (4, 2), kind), synthesize(class_name, (4, 2), kind)
    for name in ("colour", "xyz", "gt", "part"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes()
    assert a.defect == b.defect
    other = synthesize(class_name, (4, 3), kind)
    assert (other.colour != a.colour).any() and (other.xyz != a.xyz).any()


@pytest.mark.parametrize(("class_name", "kind"), kinds("colour"))
def test_colour_defect_leaves_depth(class_name, kind):
    good, bad = synthesize(class_name, 21), synthesize(class_name, 21, kind)
    np.testing.assert_array_equal(good.xyz, bad.xyz)
    difference = np.abs(good.colour.astype(int) - bad.colour).max(axis=2)
    assert difference[bad.gt].mean() > 8
    assert bad.defect is not None and bad.defect.depth_mm == 0


@pytest.mark.parametrize(("class_name", "kind"), kinds("depth"))
def test_depth_defect_leaves_colour(class_name, kind):
    good, bad = synthesize(class_name, 22), synthesize(class_name, 22, kind)
    np.testing.assert_array_equal(good.colour, bad.colour)
    known = (good.xyz[..., 2] > 0) & (bad.xyz[..., 2] > 0)
    difference = 1000 * np.abs(good.xyz[..., 2] - bad.xyz[..., 2])
    assert difference[known & bad.gt].max() >= 0.9
    assert difference[known & ~bad.gt].max() <= 0.25 + 1e-3
    assert bad.defect is not None and bad.defect.colour_levels == 0


@pytest.mark.parametrize(("class_name", "kind"), kinds("both"))
def test_defect_in_both(class_name, kind):
    good, bad = synthesize(class_name, 23), synthesize(class_name, 23, kind)
    assert bad.defect is not None and bad.defect.depth_mm > 0.9 and bad.defect.colour_levels > 8
    known = (good.xyz[..., 2] > 0) & (bad.xyz[..., 2] > 0) & ~bad.gt
    assert (1000 * np.abs(good.xyz[..., 2] - bad.xyz[..., 2]))[known].max() <= 0.25 + 1e-3
    # Outside the ground truth the colour moves by its step and what shot noise adds to it.
    assert np.abs(good.colour.astype(int) - bad.colour)[~bad.gt].max() <= 12


@settings(max_examples=12, deadline=None)
@given(case=st.sampled_from(CASES), seed=st.integers(0, 10**6))
def test_share_is_within_bounds(case, seed):
    part = synthesize(case[0], seed, case[1])
    assert part.defect is not None
    assert 0.003 <= part.defect.share <= 0.10
    assert part.defect.share == pytest.approx(part.gt.sum() / part.part.sum())
    assert part.defect.modality == DEFECTS[case[1]]


def test_missing_depth_stays_in_ground_truth():
    """Ground truth comes from the noise-free twins: dropouts inside a defect do not punch holes in it."""
    lost = 0
    for seed in range(4):
        part = synthesize("connector_plate", seed, "chip")
        lost += int((part.gt & (part.xyz[..., 2] == 0)).sum())
    assert lost > 0


@pytest.mark.parametrize(
    ("class_name", "kind", "words"),
    [("teapot", None, ["teapot", "cookie"]), ("gear", "rust", ["rust", "dent"]), ("cookie", "print_fault", ["cookie"])],
)
def test_unknown_names(class_name, kind, words):
    with pytest.raises(EdgeAdError) as e:
        synthesize(class_name, 0, kind)
    assert all(w in str(e.value) for w in words)


@pytest.mark.parametrize("defect", ["bulge", "debris"])
def test_ground_truth_has_no_specks(defect: str) -> None:
    """A new highest point changes nothing where the defect is not."""
    for seed in range(3):
        part = synthesize("gear", (9, seed), defect)
        count, _, stats, _ = cv2.connectedComponentsWithStats(part.gt.astype(np.uint8), connectivity=8)
        assert count > 1
        assert stats[1:, cv2.CC_STAT_AREA].min() >= min(10, stats[1:, cv2.CC_STAT_AREA].max())

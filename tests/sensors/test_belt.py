"""Parts on a moving belt: where they are, what stands still, what repeats."""

import numpy as np
import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.sensors import open_camera
from edge_ad.sensors.belt import Belt


def frames(uri):
    return list(open_camera(uri))


def place(frame):
    """Mean column of what stands above the belt, or None for an empty one."""
    z = frame.xyz[..., 2]
    far = np.median(z[z > 0])
    part = (z > 0) & (z < far - 0.004)
    return None if part.sum() < 200 else float(np.nonzero(part)[1].mean())


def test_a_part_comes_stops_and_leaves():
    seen = frames("belt:hex_nut?seed=3&parts=1&defects=0&fps=10&speed=200&stop=0.5")
    assert len(seen) == 18  # 260 mm at 200 mm/s and half a second of rest, at 10 frames a second
    assert [f.colour_timestamp_s for f in seen] == pytest.approx(np.arange(18) / 10)
    places = [place(f) for f in seen]
    assert places[0] is None and places[-1] is None
    shown = [p for p in places if p is not None]
    assert all(b >= a - 0.5 for a, b in zip(shown, shown[1:]))
    still = [p for p in shown if abs(p - 161.3) < 1.5]
    assert len(still) >= 5  # while the belt stands, the part is in the middle of the picture
    assert {f.class_name for f in seen} == {"hex_nut"} and all(f.name.endswith("hex_nut-good") for f in seen)


def test_while_the_belt_stands_only_the_noise_is_new():
    seen = frames("belt:gear?seed=1&parts=1&defects=0&fps=10&speed=1000&stop=0.6")
    a, b = seen[3], seen[4]
    assert not np.array_equal(a.colour, b.colour) and not np.array_equal(a.xyz, b.xyz)
    assert np.abs(a.colour.astype(int) - b.colour).mean() < 4
    assert np.abs(a.colour.astype(int) - seen[0].colour).mean() > 5


def test_the_same_seed_gives_the_same_belt_and_another_one_another():
    uri = "belt:?seed={}&parts=2&fps=2&speed=200&defects=1"
    one, two, other = (frames(uri.format(s)) for s in (5, 5, 6))
    assert all(np.array_equal(a.colour, b.colour) and np.array_equal(a.xyz, b.xyz) for a, b in zip(one, two))
    assert not np.array_equal(one[1].colour, other[1].colour)
    assert [f.class_name for f in one] == ["bearing"] * 3 + ["bottle_cap"] * 3
    assert not any(f.name.endswith("good") for f in one)


def test_a_defect_changes_nothing_but_itself():
    good = frames("belt:cookie?seed=2&parts=1&fps=2&speed=200&defects=0")[1]
    bad = frames("belt:cookie?seed=2&parts=1&fps=2&speed=200&defects=1")[1]
    changed = np.abs(good.colour.astype(int) - bad.colour).max(axis=2) > 0
    changed |= np.abs(good.xyz[..., 2] - bad.xyz[..., 2]) > 2.5e-4
    assert 0 < changed.mean() < 0.1


@pytest.mark.parametrize(
    ("fps", "speed", "stop", "gap"), [(10.0, 200.0, 0.0, 260.0), (7.0, 90.0, 1.5, 300.0), (100.0, 999.0, 0.2, 240.0)]
)
def test_the_belt_never_goes_back_and_parts_keep_their_distance(fps, speed, stop, gap):
    belt = Belt(fps, speed, stop, gap)
    at = [belt.at(i) for i in range(belt.frames(3))]
    moved = np.array([m for _, _, m in at])
    step = np.diff(moved)
    assert (step > -1e-6).all() and (step < speed / fps + 1e-6).all()
    assert at[-1][0] == 2 and all(abs(place) <= gap / 2 + 1e-6 for _, place, _ in at)
    for number, place, m in at:
        assert m == pytest.approx(number * gap + place + gap / 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("wheel", "no synthetic class 'wheel'"),
        ("gear?gap=100", "gap=100"),
        ("gear?speed=0", "speed=0"),
        ("gear?loop=1", "option 'loop'"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(EdgeAdError, match=words):
        open_camera(f"belt:{options}")

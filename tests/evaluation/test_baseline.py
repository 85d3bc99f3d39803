"""The per-pixel z-score: it finds what stands out in place, and the synthetic parts are too hard for it."""

import numpy as np
import pytest

from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.evaluation.baseline import anomaly_map, fit, image_auroc
from edge_ad.frame import Frame


def frame(seed, height=40, width=64, noise=3.0):
    rng = np.random.default_rng(seed)
    colour = np.clip(120 + noise * rng.standard_normal((height, width, 3)), 0, 255).astype(np.uint8)
    xyz = np.zeros((height, width, 3), dtype=np.float32)
    xyz[..., 2] = 0.4 + 1e-4 * rng.standard_normal((height, width))
    return Frame(colour=colour, xyz=xyz, name=str(seed))


def test_statistics():
    statistics = fit((frame(s) for s in range(200)), size=32)
    inside = slice(8, 24)  # 40 of 64 rows lie inside the square
    assert np.abs(statistics.mean[inside, :, :3] - 119.5).max() < 1.5
    assert 2.0 < statistics.deviation[inside, :, :3].mean() < 4.0
    assert (statistics.depth_share[inside] == 1).all() and not statistics.depth_share[:6].any()


@pytest.mark.parametrize("channel", ["colour", "height"])
def test_a_change_peaks_where_it_is(channel):
    statistics = fit((frame(s) for s in range(30)), size=64)
    good, bad = frame(99), frame(99)
    if channel == "colour":
        bad.colour[20:26, 40:46] += 60
    else:
        bad.xyz[20:26, 40:46, 2] -= 0.004
    normal, spoilt = anomaly_map(good, statistics), anomaly_map(bad, statistics)
    row, col = np.unravel_index(int(spoilt.argmax()), spoilt.shape)
    assert 20 <= row - 12 < 26 and 40 <= col < 46
    assert spoilt.max() > 2 * normal.max()


def test_missing_depth_is_not_an_anomaly():
    statistics = fit((frame(s) for s in range(30)), size=64)
    a, b = frame(99), frame(99)
    b.xyz[10:14, 10:14] = 0
    assert anomaly_map(b, statistics).max() <= anomaly_map(a, statistics).max() + 1e-3


def test_refusals():
    with pytest.raises(EdgeAdError, match="at least 2"):
        fit([frame(0)])
    with pytest.raises(InvalidFrame, match="no depth"):
        fit([Frame(colour=frame(0).colour)] * 2)
    empty = frame(0)
    empty.xyz[:] = 0
    with pytest.raises(InvalidFrame, match="no pixel has depth"):
        fit([empty, empty])


@pytest.mark.slow
def test_synthetic_parts_are_too_hard_for_it(tmp_path):
    from edge_ad.data.dataset import open_dataset
    from edge_ad.data.synthetic import CLASSES, write_dataset

    write_dataset(tmp_path / "parts", seed=1)
    result = image_auroc(open_dataset(tmp_path / "parts"))
    assert set(result) == set(CLASSES)
    assert max(result.values()) < 0.80

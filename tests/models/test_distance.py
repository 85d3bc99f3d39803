"""Distance, smoothing and score, each against an independent computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from edge_ad.errors import EdgeAdError
from edge_ad.models.distance import distance, image_score, smooth


@pytest.mark.parametrize("size", [1e-4, 1e-3, 1e-2, 5e-2, 0.5])
def test_small_distances_keep_their_digits(size: float) -> None:
    """Against float64; sqrt(2 - 2 cos) in float32 fails this by orders of magnitude at the small end."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 768, generator=generator)
    y = x + size * torch.randn(500, 768, generator=generator)
    unit = [v.double() / v.double().norm(dim=-1, keepdim=True) for v in (x, y)]
    exact = (unit[0] - unit[1]).norm(dim=-1)
    error = float((distance(x, y).double() - exact).abs().max())
    assert error <= 2e-7
    cosine = torch.nn.functional.cosine_similarity(x, y, dim=-1)
    shortcut = (2 - 2 * cosine).clamp_min(0).sqrt()
    if size <= 1e-3:
        assert float((shortcut.double() - exact).abs().max()) > 50 * error


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), a=st.floats(0.01, 100), b=st.floats(0.01, 100))
def test_distance_ignores_magnitude_is_symmetric_and_bounded(seed: int, a: float, b: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, 6, 12, generator=generator, dtype=torch.float64)
    d = distance(x, y)
    torch.testing.assert_close(distance(a * x, b * y), d)
    torch.testing.assert_close(distance(y, x), d)
    assert float(d.max()) <= 2 + 1e-12
    assert float(distance(x, x).max()) == 0


def test_distance_of_opposite_and_zero_vectors() -> None:
    x = torch.tensor([[3.0, 4.0]])
    assert float(distance(x, -x)) == pytest.approx(2)
    assert float(distance(x, torch.zeros(1, 2))) == pytest.approx(1)
    assert float(distance(torch.zeros(1, 2), torch.zeros(1, 2))) == 0


def test_box_cascade_equals_zero_padded_uniform_filters() -> None:
    image = np.random.default_rng(0).random((40, 40))
    expected = image
    for window in [5] * 5 + [7] * 3:
        expected = ndimage.uniform_filter(expected, window, mode="constant")
    ours = smooth(torch.from_numpy(image), "box-cascade").numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.8, 4.0])
def test_gaussian_equals_scipy(sigma: float) -> None:
    image = np.random.default_rng(0).random((40, 40))
    expected = ndimage.gaussian_filter(image, sigma, mode="constant", truncate=4.0)
    np.testing.assert_allclose(smooth(torch.from_numpy(image), "gaussian", sigma).numpy(), expected, atol=1e-12)


def test_no_smoothing_and_unknown_methods() -> None:
    image = torch.rand(8, 8)
    assert torch.equal(smooth(image, "none"), image)
    with pytest.raises(EdgeAdError, match="median"):
        smooth(image, "median")
    with pytest.raises(EdgeAdError, match="sigma"):
        smooth(image, "gaussian", 0.0)
    with pytest.raises(EdgeAdError, match="mean"):
        image_score(image, "mean")


def test_scores() -> None:
    image = torch.tensor([[0.0, 0.0], [1.0, 3.0]])
    assert float(image_score(image)) == 3
    assert float(image_score(image, "max-over-rms")) == pytest.approx(3 / 2**0.5)
    assert float(image_score(torch.zeros(2, 2), "max-over-rms")) == 0

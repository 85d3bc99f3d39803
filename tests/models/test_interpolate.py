"""From tokens to pixels: against plain loops, and the golden interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_ad.errors import EdgeAdError
from edge_ad.models.interpolate import bilinear, three_nearest
from tests.shared import SHARED, needs_shared


def test_bilinear_at_pixel_centres() -> None:
    tokens = torch.randn(9, 4, dtype=torch.float64)
    pixels = bilinear(tokens, 12)
    assert pixels.shape == (144, 4)
    for row, col in ((0, 0), (3, 7), (11, 11), (5, 0)):
        y, x = (min(max((i + 0.5) * 3 / 12 - 0.5, 0), 2) for i in (row, col))
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, 2), min(x0 + 1, 2)
        expected = (
            (1 - (y - y0)) * ((1 - (x - x0)) * tokens[y0 * 3 + x0] + (x - x0) * tokens[y0 * 3 + x1])
            + (y - y0) * ((1 - (x - x0)) * tokens[y1 * 3 + x0] + (x - x0) * tokens[y1 * 3 + x1])
        )  # fmt: skip
        torch.testing.assert_close(pixels[row * 12 + col], expected)


def test_a_linear_layer_commutes_with_both_interpolations() -> None:
    """What the restructured graphs rest on (METHOD section 7): the weights of a pixel sum to 1."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 5).double()
    tokens = torch.randn(49, 6, dtype=torch.float64)
    torch.testing.assert_close(bilinear(layer(tokens), 28), layer(bilinear(tokens, 28)))
    index = torch.randint(0, 49, (200, 3))
    weight = torch.rand(200, 3, dtype=torch.float64)
    weight = weight / weight.sum(-1, keepdim=True)
    torch.testing.assert_close(three_nearest(layer(tokens), index, weight), layer(three_nearest(tokens, index, weight)))


def test_weight_zero_gives_the_zero_vector() -> None:
    out = three_nearest(torch.randn(4, 3), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3))
    assert torch.equal(out, torch.zeros(2, 3))


def test_tokens_must_form_a_square() -> None:
    with pytest.raises(EdgeAdError, match="12 RGB tokens"):
        bilinear(torch.zeros(12, 2), 24)


@needs_shared
def test_golden_three_nearest_interpolation() -> None:
    golden = np.load(SHARED / "golden" / "geometry.npz")
    features = torch.from_numpy(golden["features"])
    index = torch.from_numpy(golden["interp_index"].astype(np.int64))
    weight = torch.from_numpy(golden["interp_weight"].astype(np.float32))
    ours = three_nearest(features, index, weight).numpy()
    np.testing.assert_allclose(ours, golden["interpolated"], rtol=0, atol=1e-5 * np.abs(golden["interpolated"]).max())

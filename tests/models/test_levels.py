"""Expected distances: positive, kept in their range, and divided out pixel by pixel."""

from __future__ import annotations

import torch

from edge_ad.models.interpolate import bilinear, three_nearest
from edge_ad.models.levels import Level


def test_a_level_is_the_exponential_of_two_linear_layers() -> None:
    torch.manual_seed(0)
    level = Level(5, 7)
    x = torch.randn(11, 5)
    by_hand = torch.nn.functional.gelu(x @ level.fc1.weight.T + level.fc1.bias) @ level.fc2.weight.T + level.fc2.bias
    assert torch.allclose(level(x), by_hand[:, 0].exp(), rtol=1e-6)


def test_a_feature_never_seen_cannot_ask_for_an_absurd_level() -> None:
    torch.manual_seed(0)
    level = Level(5, 7)
    level.limits.copy_(torch.tensor([-1.0, 0.5]))
    found = level(1e6 * torch.randn(50, 5))
    assert float(found.min()) >= torch.tensor(-1.0).exp() - 1e-6
    assert float(found.max()) <= torch.tensor(0.5).exp() + 1e-6


def test_interpolating_a_positive_level_keeps_it_inside_its_tokens_range() -> None:
    torch.manual_seed(0)
    tokens = torch.rand(16, 1) + 0.5
    assert tokens.min() <= bilinear(tokens, 32).min() and bilinear(tokens, 32).max() <= tokens.max()
    weight = torch.rand(40, 3)
    weight /= weight.sum(1, keepdim=True)
    pixels = three_nearest(tokens, torch.randint(0, 16, (40, 3)), weight)
    assert tokens.min() - 1e-6 <= pixels.min() and pixels.max() <= tokens.max() + 1e-6

"""Features relative to their class: the map, and the code that tells the classes apart."""

from __future__ import annotations

import numpy as np
import torch

from edge_ad.models.condition import Condition, class_code
from edge_ad.presets import CODE


def test_a_condition_is_the_class_s_own_affine_map() -> None:
    torch.manual_seed(0)
    condition = Condition(3, 5)
    x = torch.randn(7, 5)
    assert torch.equal(condition(x, 2), x)  # until it is fitted
    condition.weight.normal_()
    condition.offset.normal_()
    for row in range(3):
        expected = torch.stack([condition.weight[row] @ v + condition.offset[row] for v in x])
        torch.testing.assert_close(condition(x, row), expected)


def test_codes_are_unit_vectors_of_their_own_and_stay() -> None:
    codes = np.stack([class_code(i) for i in range(40)])
    assert codes.shape == (40, CODE) and codes.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, rtol=1e-6)
    cosines = codes @ codes.T - np.eye(40)
    assert np.abs(cosines).max() < 0.95
    np.testing.assert_array_equal(class_code(7), codes[7])

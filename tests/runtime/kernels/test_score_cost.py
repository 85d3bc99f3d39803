"""The counts, against a count made another way, and the sizes of the two presets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_ad.runtime.kernels import source_of
from edge_ad.runtime.kernels.floor import DEVICES
from edge_ad.runtime.kernels.score_cost import ScoreProblem, score_costs, triangular_products

PAPER = ScoreProblem(
    50176, 50176, 784, 1024, 6016, 2944, 768, 1152, (960, 768), ((640, 512), (832, 512)), True
)  # fmt: skip


@pytest.mark.parametrize(("hidden", "rank"), [(16, 17), (64, 64), (100, 65), (960, 768), (32, 200)])
def test_products_are_those_of_the_tiles(hidden: int, rank: int) -> None:
    padded = -(-hidden // 32) * 32
    done = np.zeros((rank, padded), bool)
    for c in range(rank):
        done[c, c // 64 * 64 :] = True
    assert triangular_products(hidden, rank) == int(done.sum())


def test_the_triangle_saves_a_third_of_the_papers_products() -> None:
    p = PAPER
    whole = sum(h * r for h, r in (p.to_rgb, *p.text))
    some = sum(triangular_products(h, r) for h, r in (p.to_rgb, *p.text))
    assert 0.25 < 1 - some / whole < 0.40


def test_fp16_halves_what_the_operands_move_and_uses_the_tensor_cores() -> None:
    half, full = ({c.kernel.rsplit("_f", 1)[0]: c for c in score_costs(replace(PAPER, half=h))} for h in (True, False))
    assert half["score_product"].tensor == full["score_product"].operations > 0
    assert half["score_operand_points"].bytes < 0.55 * full["score_operand_points"].bytes


def test_the_kernels_are_those_that_scoring_launches() -> None:
    found = [c.kernel for c in score_costs(PAPER)]
    assert found.count("score_distance_rgb") == 1 and found.count("score_distance_anchor") == 2
    assert (
        found.count("score_product_f16") == 3 and {k for k in found if not source_of(k).startswith("score_")} == set()
    )


def test_every_kernel_of_a_part_has_a_count_and_more_pixels_cost_more() -> None:
    few = score_costs(replace(PAPER, n=1000))
    for a, b in zip(few, score_costs(PAPER)):
        assert a.kernel == b.kernel and a.bytes <= b.bytes
        for device in DEVICES:
            assert 0 < a.floor_ms(device) <= b.floor_ms(device)

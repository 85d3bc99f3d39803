"""OCTA: the equations, and the laws that follow from them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import EdgeAdError
from edge_ad.models.octa import Octa, TopKExperts, anchor_cosines, frozen_anchors, scale_prompts

D = 8


def make(seed: int = 0, **options: float) -> Octa:
    torch.manual_seed(seed)
    return Octa(D, **options).double()  # type: ignore[arg-type]


def prompts(seed: int = 0, classes: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale_prompts(torch.randn(classes, 14, D, generator=generator, dtype=torch.float64))


@torch.no_grad()
def test_equations_5_to_8_prompt_by_prompt() -> None:
    octa, text = make().eval(), prompts()
    p = octa.prototype[0]
    for c in range(3):
        enhanced = []
        for t in text[c]:
            logits = octa.moe.gate(t).tolist()
            best = sorted(range(4), key=logits.__getitem__)[2:]
            total = sum(math.exp(logits[i]) for i in best)
            enhanced.append(sum(math.exp(logits[i]) / total * octa.moe.experts[i](t) for i in best))
        scores = [float(octa.w_q(p) @ octa.w_k(t)) / math.sqrt(D) for t in enhanced]
        weights = [math.exp(s) / sum(math.exp(r) for r in scores) for s in scores]
        f_p = sum(w * octa.w_v(t) for w, t in zip(weights, enhanced, strict=True))
        f_hat = octa.mlp(p + f_p)
        expected = octa.norm(f_hat + octa.ffn(f_hat))
        torch.testing.assert_close(octa(text)[c], expected, rtol=0, atol=1e-12)


def test_sizes() -> None:
    octa = Octa(D, experts=5, hidden_ratio=3)
    assert octa.prototype.shape == (1, D)
    assert len(octa.moe.experts) == 5
    hidden = {m[0].out_features for m in (octa.mlp, octa.ffn, *octa.moe.experts)}
    assert hidden == {3 * D}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), top_k=st.integers(1, 4))
def test_gates_sum_to_one_over_the_k_best(seed: int, top_k: int) -> None:
    torch.manual_seed(seed)
    moe = TopKExperts(D, 4, top_k, 2 * D).double()
    x = torch.randn(20, D, dtype=torch.float64)
    gates = moe.gates(x)
    assert torch.equal((gates > 0).sum(-1), torch.full((20,), top_k))
    torch.testing.assert_close(gates.sum(-1), torch.ones(20, dtype=torch.float64))
    logits = moe.gate(x)
    chosen = gates > 0
    least = logits.masked_fill(~chosen, math.inf).amin(-1)
    assert bool((logits.masked_fill(chosen, -math.inf).amax(-1) <= least).all())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_experts_outside_the_k_best_get_no_gradient(seed: int) -> None:
    octa = make(seed).eval()
    text = prompts(seed, classes=1)[:, :1]  # one prompt, so that two experts are certainly unused
    octa(text).pow(2).mul(torch.arange(D)).sum().backward()
    chosen = octa.moe.gates(text)[0, 0] > 0
    gradients = [sum(float(p.grad.abs().sum()) for p in e.parameters() if p.grad is not None) for e in octa.moe.experts]
    for used, gradient in zip(chosen.tolist(), gradients, strict=True):
        assert (gradient > 0) == used


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(14)))
def test_the_order_of_the_prompts_changes_nothing(seed: int, order: list[int]) -> None:
    octa, text = make(seed).eval(), prompts(seed)
    torch.testing.assert_close(octa(text[:, order]), octa(text), rtol=0, atol=1e-9)


def test_classes_are_independent_and_dropout_acts_in_training_alone() -> None:
    octa, text = make(dropout=0.5), prompts()
    with torch.no_grad():
        octa.eval()
        torch.testing.assert_close(octa(text[1:2])[0], octa(text)[1], rtol=0, atol=1e-12)
        assert torch.equal(octa(text), octa(text))
        octa.train()
        assert not torch.equal(octa(text), octa(text))


def test_prompt_scale_frozen_anchors_and_cosines() -> None:
    text = prompts()
    torch.testing.assert_close(text.norm(dim=-1), torch.full((3, 14), math.sqrt(D), dtype=torch.float64))
    anchors = frozen_anchors(text)
    torch.testing.assert_close(anchors[2], sum(text[2]) / 14)
    cosines = anchor_cosines(anchors)
    torch.testing.assert_close(cosines.diagonal(), torch.ones(3, dtype=torch.float64))
    expected = float(anchors[0] @ anchors[1] / anchors[0].norm() / anchors[1].norm())
    assert float(cosines[0, 1]) == pytest.approx(expected)


@pytest.mark.parametrize("top_k", [0, 5])
def test_bad_top_k(top_k: int) -> None:
    with pytest.raises(EdgeAdError, match=rf"octa.top_k is {top_k}; expected 1 to 4"):
        Octa(D, top_k=top_k)

"""Object-Conditioned Textual Feature Adaptor: prompt embeddings -> one anchor a class (METHOD section 4, eq. 5-8).

Runs while fitting only; the anchors are constants afterwards.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.errors import EdgeAdError


def scale_prompts(embeddings: Tensor) -> Tensor:
    """L2-normalise along the last axis and scale by sqrt(D), so that an element is about 1. Any (..., D)."""
    return F.normalize(embeddings, dim=-1) * math.sqrt(embeddings.shape[-1])


def frozen_anchors(prompts: Tensor) -> Tensor:
    """``anchors = "frozen"``: the mean prompt embedding, (C,14,D) -> (C,D). Nothing is learned."""
    return prompts.mean(dim=1)


def anchor_cosines(anchors: Tensor) -> Tensor:
    """(C,D) -> (C,C) cosines. Values near 1 off the diagonal mean that the classes have collapsed onto one."""
    unit = F.normalize(anchors, dim=-1)
    return unit @ unit.T


def two_layer(dim: int, hidden: int) -> nn.Sequential:
    """Linear, GELU, linear; the width comes back."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class TopKExperts(nn.Module):
    """Top-k mixture of experts, eq. 5: (..., D) -> (..., D); the gate is a softmax over the k best logits."""

    def __init__(self, dim: int, experts: int, top_k: int, hidden: int) -> None:
        super().__init__()
        if not 1 <= top_k <= experts:
            raise EdgeAdError(f"octa.top_k is {top_k}", f"1 to {experts} (octa.experts)")
        self.top_k = top_k
        self.gate = nn.Linear(dim, experts)
        self.experts = nn.ModuleList(two_layer(dim, hidden) for _ in range(experts))

    def gates(self, x: Tensor) -> Tensor:
        """(..., E) weights that sum to 1, zero outside the k best."""
        logits: Tensor = self.gate(x)
        best, index = logits.topk(self.top_k, dim=-1)
        return torch.zeros_like(logits).scatter(-1, index, best.softmax(dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        outputs = torch.stack([expert(x) for expert in self.experts], dim=-2)
        return (self.gates(x).unsqueeze(-1) * outputs).sum(dim=-2)


class Octa(nn.Module):
    """Prompts (C,14,D), scaled by :func:`scale_prompts`, -> anchors (C,D), the same for both modalities (eq. 8).

    All hidden widths are ``hidden_ratio * D``. The prompts of a class are a set: their order does not matter.
    """

    def __init__(
        self, dim: int, *, experts: int = 4, top_k: int = 2, hidden_ratio: int = 2, dropout: float = 0.1
    ) -> None:
        super().__init__()
        hidden = hidden_ratio * dim
        self.moe = TopKExperts(dim, experts, top_k, hidden)
        self.prototype = nn.Parameter(torch.empty(1, dim))
        nn.init.normal_(self.prototype, std=0.02)
        self.w_q = nn.Linear(dim, dim, bias=False)
        self.w_k = nn.Linear(dim, dim, bias=False)
        self.w_v = nn.Linear(dim, dim, bias=False)
        self.mlp = two_layer(dim, hidden)
        self.ffn = two_layer(dim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, prompts: Tensor) -> Tensor:
        text = self.moe(prompts)  # eq. 5
        query, key, value = self.w_q(self.prototype), self.w_k(text), self.w_v(text)
        weights = torch.softmax(query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1]), dim=-1)
        f_p = weights @ value  # eq. 6, (C,1,D)
        f_hat = self.mlp(self.prototype + f_p)  # eq. 7
        anchors: Tensor = self.norm(f_hat + self.dropout(self.ffn(f_hat)))  # eq. 8
        return anchors.squeeze(-2)

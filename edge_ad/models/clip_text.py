"""CLIP's text tower: token ids -> text embeddings (METHOD section 4). Module names are CLIP's own keys.

Used on the workstation only: the anchors that come out of it are constants of the exported graph.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from edge_ad.errors import EdgeAdError
from edge_ad.models.checkpoints import load_exact, read_state

CONTEXT_LENGTH = 77
VOCABULARY_SIZE = 49408
# The image tower and the scalars that CLIP's state dict carries beside the text tower.
IGNORED = ("visual.*", "logit_scale", "input_resolution", "context_length", "vocab_size")


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the activation that OpenAI's CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ResidualAttentionBlock(nn.Module):
    """Pre-norm block with causal attention; (N,L,width) -> (N,L,width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width),
                gelu=QuickGELU(),
                c_proj=nn.Linear(4 * width, width),
            )
        )
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        x = x + self.mlp(self.ln_2(x))
        return x


class Transformer(nn.Module):
    """The stack of blocks, named ``resblocks`` as in CLIP."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width, heads) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class ClipTextEncoder(nn.Module):
    """(N,77) int64 token ids -> (N,embed_dim) float32, not normalised.

    The feature is taken at the end-of-text token, which has the highest id of all.
    """

    mask: Tensor

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        layers: int,
        embed_dim: int,
        context_length: int = CONTEXT_LENGTH,
        vocabulary_size: int = VOCABULARY_SIZE,
    ) -> None:
        super().__init__()
        if min(width, heads, layers, embed_dim) < 1 or width % heads:
            raise EdgeAdError(
                f"text encoder of width {width}, {heads} heads, {layers} layers, embedding {embed_dim}",
                "all at least 1, and a width that the heads divide",
            )
        self.token_embedding = nn.Embedding(vocabulary_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.transformer = Transformer(width, layers, heads)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, embed_dim))
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=width**-0.5)
        mask = torch.full((context_length, context_length), float("-inf")).triu_(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding
        x = self.ln_final(self.transformer(x, self.mask))
        at_end = x[torch.arange(x.shape[0]), ids.argmax(dim=-1)]
        features: Tensor = at_end @ self.text_projection
        return features


def load_text_encoder(
    state: str | Path | Mapping[str, Tensor], *, width: int, heads: int, layers: int, embed_dim: int
) -> ClipTextEncoder:
    """Load CLIP's text tower, frozen, in eval mode and in float32.

    Parameters
    ----------
    state : a file (safetensors or ``torch.save``) or a state dict in CLIP's layout; the image tower in it is ignored.
    width, heads, layers, embed_dim : ViT-B/32 and B/16 have 512, 8, 12, 512.

    Returns
    -------
    module ``(N,77) token ids -> (N,embed_dim)``.

    Raises
    ------
    EdgeAdError
        Not a checkpoint, one that does not fit, or the published TorchScript archive (the error says how to save
        its weights).
    """
    if isinstance(state, (str, Path)):
        tensors, where = read_state(state), str(state)
    else:
        tensors, where = dict(state), "the state dict"
    embedding = tensors.get("token_embedding.weight")
    vocabulary = int(embedding.shape[0]) if embedding is not None and embedding.ndim == 2 else VOCABULARY_SIZE
    encoder = ClipTextEncoder(width=width, heads=heads, layers=layers, embed_dim=embed_dim, vocabulary_size=vocabulary)
    load_exact(encoder, tensors, where=where, ignore=IGNORED)
    return encoder.eval().requires_grad_(False)

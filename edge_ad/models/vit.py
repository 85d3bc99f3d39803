"""DINO Vision Transformer: RGB image -> patch tokens (METHOD section 2).

Module names are the keys of the published checkpoints (facebookresearch/dino; timm uses the same 150 names
for ViT-B). Written to be read from top to bottom; nothing is fused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.errors import EdgeAdError
from edge_ad.models.checkpoints import load_exact, read_state

# Heads that published files may carry: DINO's projection head, timm's and the linear-probe classifiers.
IGNORED = ("head.*", "head_dist.*", "fc_norm.*")


class PatchEmbed(nn.Module):
    """(B,3,H,W) -> (B,h*w,dim), patches in row-major order."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, image: Tensor) -> Tensor:
        x: Tensor = self.proj(image)
        return x.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention, (B,N,dim) -> (B,N,dim)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, dim = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        weights = torch.softmax(q @ k.transpose(-2, -1) * self.head_dim**-0.5, dim=-1)
        out: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(b, n, dim))
        return out


class FeedForward(nn.Module):
    """Two linear layers with an (exact) GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = FeedForward(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class VisionTransformer(nn.Module):
    """(B,3,H,W) ImageNet-normalised float32 -> (B,T,dim) patch tokens, T = (H/patch)(W/patch), row-major.

    The tokens come after the last block and the final norm; the class token is dropped.
    ``grid`` is the side of the grid for which ``pos_embed`` was trained (default: that of ``image_size``).
    """

    position: Tensor

    def __init__(
        self, *, image_size: int, patch_size: int, dim: int, depth: int, heads: int, grid: int | None = None
    ) -> None:
        super().__init__()
        if min(image_size, patch_size, dim, depth, heads) < 1:
            raise EdgeAdError(f"ViT sizes {image_size}, {patch_size}, {dim}, {depth}, {heads}", "all at least 1")
        if image_size % patch_size:
            raise EdgeAdError(f"image size {image_size} and patch size {patch_size}", "a multiple of the patch size")
        if dim % heads:
            raise EdgeAdError(f"ViT width {dim} and {heads} heads", "a width that the heads divide")
        self.patch_size = patch_size
        self.grid = image_size // patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (grid or self.grid) ** 2, dim))
        self.patch_embed = PatchEmbed(patch_size, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        # The embedding at the configured image size is a constant of the exported graph, not a Resize in it.
        self.register_buffer("position", self._position(self.grid, self.grid), persistent=False)
        self.register_load_state_dict_post_hook(_refresh_position)  # type: ignore[no-untyped-call]

    def _position(self, rows: int, cols: int) -> Tensor:
        """Position embedding (1, 1+rows*cols, dim); bicubic where the grid is not the trained one.

        As in DINO's ``interpolate_pos_encoding``: the scale is (n + 0.1) / side, which keeps the size from being
        rounded down and moves the sampling points a little.
        """
        embedding = self.pos_embed.detach()
        side = math.isqrt(embedding.shape[1] - 1)
        if rows == side and cols == side:
            return embedding
        planes = embedding[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = ((rows + 0.1) / side, (cols + 0.1) / side)
        planes = F.interpolate(planes, scale_factor=scale, mode="bicubic")
        return torch.cat([embedding[:, :1], planes.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, image: Tensor) -> Tensor:
        rows, cols = image.shape[-2] // self.patch_size, image.shape[-1] // self.patch_size
        position = self.position if rows == self.grid and cols == self.grid else self._position(rows, cols)
        x = self.patch_embed(image)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + position
        for block in self.blocks:
            x = block(x)
        tokens: Tensor = self.norm(x)[:, 1:]
        return tokens


def _refresh_position(module: nn.Module, _: object) -> None:
    assert isinstance(module, VisionTransformer)
    module.position = module._position(module.grid, module.grid)


def published_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as in the encoder: DINO's full checkpoints prefix ``module.`` and ``backbone.``; timm's have none."""
    return {k.removeprefix("module.").removeprefix("backbone."): v for k, v in state.items()}


def load_rgb_encoder(
    checkpoint: str | Path | Mapping[str, Tensor],
    *,
    image_size: int,
    patch_size: int,
    dim: int,
    depth: int,
    heads: int,
    blocks: int | None = None,
) -> VisionTransformer:
    """Load a DINO ViT from a local checkpoint, frozen and in eval mode.

    Parameters
    ----------
    checkpoint : file in DINO's or timm's layout (safetensors or ``torch.save``), or a state dict.
    image_size, patch_size : pixels. dim, depth, heads : as in the checkpoint.
    blocks : run only the first n blocks (layers pruning), then the final norm; None runs all.

    Returns
    -------
    module ``(B,3,H,W) -> (B,T,dim)``.

    Raises
    ------
    EdgeAdError
        Not a checkpoint, or one that does not fit these sizes; all keys at fault are listed.
    """
    if blocks is not None and not 1 <= blocks <= depth:
        raise EdgeAdError(f"blocks={blocks}", f"1 to {depth} (the depth), or none for all")
    named = isinstance(checkpoint, (str, Path))
    state = published_layout(read_state(checkpoint) if isinstance(checkpoint, (str, Path)) else checkpoint)
    encoder = VisionTransformer(
        image_size=image_size, patch_size=patch_size, dim=dim, depth=depth, heads=heads, grid=_trained_grid(state)
    )
    load_exact(encoder, state, where=str(checkpoint) if named else "the state dict", ignore=IGNORED)
    encoder.blocks = encoder.blocks[:blocks]
    return encoder.eval().requires_grad_(False)


def _trained_grid(state: Mapping[str, Tensor]) -> int | None:
    embedding = state.get("pos_embed")
    if embedding is None or embedding.ndim != 3:
        return None
    tokens = embedding.shape[1] - 1
    side = math.isqrt(max(tokens, 0))
    return side if side > 0 and side * side == tokens else None

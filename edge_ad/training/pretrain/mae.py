"""Masked autoencoding of point groups (Pang et al., "Masked Autoencoders for Point Cloud Self-supervised Learning").

The encoder sees the visible groups only; a light decoder with mask tokens reconstructs the points of masked groups
(squared Chamfer distance). Two things are ours, because anomaly detection needs features of small local geometry:

- Group coordinates are a few hundredths of the radius, so the network works on coordinates times ``COORDINATE_SCALE``.
  :func:`folded_state` moves the factor into the first convolution's weights: the saved encoder takes radius units.
- A linear head on the tapped features of visible groups predicts the *noise-free* local surface (height, slope,
  curvature, residual of a quadric fit). The input is noisy, so features learn geometry and to leave noise out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_ad.models.pointmae import POSITION_HIDDEN, Block, PointMae

COORDINATE_SCALE = 25.0
GEOMETRY_TARGETS = 8


@dataclass(frozen=True)
class Sizes:
    """Sizes of the encoder (those of a preset's ``[points]``) and of the decoder."""

    dim: int = 96
    depth: int = 6
    heads: int = 6
    taps: tuple[int, ...] = (1, 3, 5)
    widths: tuple[int, int, int] = (32, 64, 128)
    group_size: int = 32
    decoder_depth: int = 2


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder and geometry head; all coordinates in radius units at the interface."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = PointMae(sizes.dim, sizes.depth, sizes.heads, sizes.taps, sizes.widths)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, sizes.dim))
        self.decoder_pos_embed = nn.Sequential(
            nn.Linear(3, POSITION_HIDDEN), nn.GELU(), nn.Linear(POSITION_HIDDEN, sizes.dim)
        )
        self.decoder = nn.ModuleList(Block(sizes.dim, sizes.heads) for _ in range(sizes.decoder_depth))
        self.decoder_norm = nn.LayerNorm(sizes.dim)
        self.increase_dim = nn.Linear(sizes.dim, 3 * sizes.group_size)
        self.geometry = nn.Linear(len(sizes.taps) * sizes.dim, GEOMETRY_TARGETS)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def encode(self, groups: Tensor, centers: Tensor) -> Tensor:
        """Tapped features ``(B, G, len(taps) * dim)`` of groups ``(B, G, K, 3)`` in radius units."""
        features: Tensor = self.encoder(groups * COORDINATE_SCALE, centers)
        return features

    def encode_tokens(self, groups: Tensor) -> Tensor:
        """Mini-PointNet alone, groups in radius units."""
        return self.encoder.group_tokens(groups * COORDINATE_SCALE)

    def decode(self, encoded: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Points ``(B, M, K, 3)``, scaled, of the groups centred at ``masked`` (B, M, 3), from the last block's
        normed output ``encoded`` (B, V, dim) at ``visible`` (B, V, 3)."""
        queries = self.mask_token.expand(encoded.shape[0], masked.shape[1], -1)
        x = torch.cat([encoded, queries], dim=1)
        position = self.decoder_pos_embed(torch.cat([visible, masked], dim=1))
        for block in self.decoder:
            x = block(x + position)
        points: Tensor = self.increase_dim(self.decoder_norm(x[:, visible.shape[1] :]))
        return points.unflatten(-1, (-1, 3))

    def folded_state(self) -> dict[str, Tensor]:
        """The encoder's state for groups in radius units: ``COORDINATE_SCALE`` folded into the first convolution."""
        state = {k: v.detach().clone().contiguous() for k, v in self.encoder.state_dict().items()}
        state["encoder.first_conv.0.weight"] *= COORDINATE_SCALE
        return state


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def chamfer(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared Chamfer distance of point sets ``(N, K, 3)`` each: mean of both directions, averaged over N."""
    cross = predicted @ target.transpose(1, 2)
    squared = predicted.square().sum(-1)[:, :, None] + target.square().sum(-1)[:, None] - 2 * cross
    squared = squared.clamp_min(0)
    return squared.amin(2).mean() + squared.amin(1).mean()


@torch.no_grad()
def local_geometry(groups: Tensor) -> Tensor:
    """What the surface does in each group: ``(N, K, 3)`` radius units -> ``(N, 8)``, all of order 1.

    The depth axis as a quadric of the image axes, ``z = a + b x + c y + d x^2 + e x y + f y^2``, by ridge-regularised
    least squares; then tanh of height, arctan of slopes, tanh of curvatures, the logarithm of the fit's residual, and
    the group's size.
    """
    p = groups.float() * COORDINATE_SCALE
    size = p.square().sum(-1).amax(-1).sqrt().clamp_min(1e-3)
    q = p / size[:, None, None]
    x, y, z = q.unbind(-1)
    terms = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], -1)
    ridge = torch.tensor([1e-3, 1e-3, 1e-3, 0.02, 0.02, 0.02]) * p.shape[1]
    normal = terms.transpose(1, 2) @ terms + torch.diag(ridge)
    fit = torch.linalg.solve(normal, (terms * z[..., None]).sum(1, keepdim=True).transpose(1, 2)).squeeze(-1)
    residual = ((terms @ fit[..., None]).squeeze(-1) - z).square().mean(-1).add(1e-6).sqrt()
    return torch.stack(
        [
            torch.tanh(4 * fit[:, 0]),
            torch.atan(fit[:, 1]),
            torch.atan(fit[:, 2]),
            torch.tanh(2 * fit[:, 3]),
            torch.tanh(2 * fit[:, 4]),
            torch.tanh(2 * fit[:, 5]),
            0.25 * torch.log(residual) + 1.0,
            size - 1.0,
        ],
        -1,
    )


@dataclass(frozen=True)
class Losses:
    """The loss terms of one batch."""

    total: Tensor
    chamfer: Tensor
    geometry: Tensor


def split(count: int, visible: int, masked: int, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random visible (B, V) and masked (B, M) group indices, disjoint."""
    order = torch.rand(batch, count, generator=generator).argsort(1)
    return order[:, :visible], order[:, visible : visible + masked]


def take(values: Tensor, index: Tensor) -> Tensor:
    """``values[b, index[b]]``."""
    return values[torch.arange(len(values))[:, None], index]


def losses(
    model: MaskedAutoencoder,
    groups: Tensor,
    clean: Tensor,
    centers: Tensor,
    visible: Tensor,
    masked: Tensor,
    geometry_weight: float,
) -> Losses:
    """Reconstruction of masked groups plus ``geometry_weight`` times the mean squared error of the local surface.

    ``groups``, ``clean`` (B, G, K, 3) and ``centers`` (B, G, 3) in radius units; ``visible`` (B, V), ``masked`` (B, M).
    """
    seen = take(centers, visible)
    features = model.encode(take(groups, visible), seen)
    points = model.decode(features[..., -model.sizes.dim :], seen, take(centers, masked))
    target = take(clean, masked) * COORDINATE_SCALE
    distance = chamfer(points.float().flatten(0, 1), target.flatten(0, 1))
    surface = local_geometry(take(clean, visible).flatten(0, 1))
    geometry = (model.geometry(features).float().flatten(0, 1) - surface).square().mean()
    return Losses(distance + geometry_weight * geometry, distance, geometry)


def augment(
    groups: Tensor, clean: Tensor, centers: Tensor, generator: torch.Generator, *, noise: Sequence[float] = (0.0, 0.001)
) -> tuple[Tensor, Tensor, Tensor]:
    """A turn about the viewing axis, a mirror, a tilt of up to 25 degrees, a scale of 0.9 to 1.1, and fresh depth noise
    with a standard deviation drawn from ``noise`` (radius units); each cloud of the batch gets its own."""
    batch = len(groups)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(batch, generator=generator) * (high - low) + low

    spin, tilt, axis = uniform(0, 2 * torch.pi), uniform(-0.44, 0.44), uniform(0, 2 * torch.pi)
    turn = _axis_angle(torch.stack([torch.zeros(batch), torch.zeros(batch), torch.ones(batch)], -1), spin)
    lean = _axis_angle(torch.stack([axis.cos(), axis.sin(), torch.zeros(batch)], -1), tilt)
    mirror = torch.ones(batch, 3)
    mirror[:, 0] = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    matrix = (lean @ turn) * mirror[:, None, :] * uniform(0.9, 1.1)[:, None, None]
    offset = torch.randn(groups.shape[:3], generator=generator) * uniform(*noise)[:, None, None]
    turned = [(v.reshape(batch, -1, 3) @ matrix.transpose(1, 2)).reshape(v.shape) for v in (groups, clean, centers)]
    turned[0][..., 2] += offset
    return turned[0], turned[1], turned[2]


def _axis_angle(axis: Tensor, angle: Tensor) -> Tensor:
    """Rodrigues' formula, (B, 3) unit axes and (B,) radians -> (B, 3, 3)."""
    zero = torch.zeros_like(angle)
    x, y, z = axis.unbind(-1)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    s, c = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return torch.eye(3) + s * k + (1 - c) * (k @ k)

"""From a preset to its two frozen encoders."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from edge_ad.errors import EdgeAdError
from edge_ad.presets import Preset

PACKAGE = "package"
RANDOM = "random"


def assemble(preset: Preset, checkpoints_dir: str | Path | None = None) -> tuple[nn.Module, nn.Module]:
    """Build the RGB and the point encoder of a preset, frozen and in eval mode.

    A checkpoint field is ``package`` (weights that come with this or an installed package), ``random`` (weights drawn
    with ``training.seed``: for tests and timing only) or a file; a relative file lies in ``checkpoints_dir`` if that is
    given.

    Returns
    -------
    (rgb_encoder ``(B,3,S,S) -> (B,T,D_rgb)``, point_encoder ``(groups, centers) -> (B,G,D_3d)``).

    Raises
    ------
    EdgeAdError
        A checkpoint is missing or does not fit, or the sizes of the preset contradict each other.
    """
    root = None if checkpoints_dir is None else Path(checkpoints_dir)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(preset.training.seed)
        rgb = _rgb(preset, root)
        torch.manual_seed(preset.training.seed)
        points = _points(preset, root)
    return rgb.eval().requires_grad_(False), points.eval().requires_grad_(False)


def checkpoint_path(name: str, root: Path | None) -> Path:
    """Where a checkpoint file named in a preset lies."""
    path = Path(name).expanduser()
    return path if root is None or path.is_absolute() else root / path


def _rgb(preset: Preset, root: Path | None) -> nn.Module:
    rgb, size = preset.rgb, preset.geometry.size
    if rgb.encoder == "efficientnet-lite0":
        from edge_ad.models.efficientnet import IMAGE_SIZE_RULE, TOTAL_STRIDE, EfficientNetLite0, load_efficientnet

        if size % TOTAL_STRIDE:
            raise EdgeAdError(f"geometry.size is {size}", IMAGE_SIZE_RULE)
        if rgb.checkpoint == RANDOM:
            return EfficientNetLite0(rgb.taps, rgb.grid)
        path = None if rgb.checkpoint == PACKAGE else checkpoint_path(rgb.checkpoint, root)
        return load_efficientnet(path, taps=rgb.taps, grid=rgb.grid)
    from edge_ad.models.vit import VisionTransformer, load_rgb_encoder

    if rgb.patch_size < 1 or size != rgb.grid * rgb.patch_size:
        raise EdgeAdError(
            f"geometry.size {size}, rgb.patch_size {rgb.patch_size}, rgb.grid {rgb.grid}", "size = patch_size * grid"
        )
    if rgb.checkpoint == PACKAGE:
        raise EdgeAdError("rgb.checkpoint is 'package'", "a local file: no weights of this encoder are shipped")
    if rgb.checkpoint == RANDOM:
        depth = rgb.blocks or rgb.depth
        return VisionTransformer(image_size=size, patch_size=rgb.patch_size, dim=rgb.dim, depth=depth, heads=rgb.heads)
    return load_rgb_encoder(
        checkpoint_path(rgb.checkpoint, root),
        image_size=size,
        patch_size=rgb.patch_size,
        dim=rgb.dim,
        depth=rgb.depth,
        heads=rgb.heads,
        blocks=rgb.blocks or None,
    )


def _points(preset: Preset, root: Path | None) -> nn.Module:
    from edge_ad.models.pointmae import PointMae, load_point_encoder

    p = preset.points
    if p.checkpoint == RANDOM:
        return PointMae(dim=p.dim, depth=p.depth, heads=p.heads, taps=p.taps, widths=p.widths)
    path = PACKAGE if p.checkpoint == PACKAGE else checkpoint_path(p.checkpoint, root)
    return load_point_encoder(path, dim=p.dim, depth=p.depth, heads=p.heads, taps=p.taps, widths=p.widths)

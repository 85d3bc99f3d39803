"""The Point-MAE encoder (Pang et al., ECCV 2022) as METHOD section 2 uses it: frozen features of point groups.

Read from top to bottom: mini-PointNet (a token a group), position embedding of the centres, transformer blocks,
and the taps. Parameter names are those of the published checkpoints, so a checkpoint loads key by key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from edge_ad.errors import EdgeAdError
from edge_ad.models.checkpoints import load_exact, read_state

PUBLISHED_WIDTHS = (128, 256, 512)
PACKAGE_WEIGHTS = Path(__file__).parent / "weights" / "point_mae_compact.safetensors"
POSITION_HIDDEN = 128
# What a published checkpoint holds besides the encoder: the decoder of the masked autoencoder.
DECODER_KEYS = ("MAE_decoder.", "mask_token", "increase_dim.", "decoder_pos_embed.")


class MiniPointNet(nn.Module):
    """A token a group: shared MLP a point, maximum over the group, joined back to each point, MLP, maximum.

    ``(B, G, K, 3) -> (B, G, dim)``. ``widths`` = (first hidden, first out, second hidden); the second stage reads
    the group's maximum beside each point's own feature, hence 2 ``widths[1]`` channels.
    """

    def __init__(self, dim: int, widths: Sequence[int] = PUBLISHED_WIDTHS) -> None:
        super().__init__()
        hidden, out, second = widths
        self.first_conv = nn.Sequential(
            nn.Conv1d(3, hidden, 1), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Conv1d(hidden, out, 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * out, second, 1), nn.BatchNorm1d(second), nn.ReLU(), nn.Conv1d(second, dim, 1)
        )

    def forward(self, groups: Tensor) -> Tensor:
        b, g, k, _ = groups.shape
        points = groups.reshape(b * g, k, 3).transpose(1, 2)
        local = self.first_conv(points)
        overall = local.amax(dim=2, keepdim=True)
        joined = torch.cat([overall.expand(-1, -1, k), local], dim=1)
        tokens: Tensor = self.second_conv(joined).amax(dim=2)
        return tokens.reshape(b, g, -1)


class Attention(nn.Module):
    """Multi-head self-attention, qkv without bias; written out so that it traces to MatMul and Softmax alone."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise EdgeAdError(f"dim {dim} with {heads} heads", "a dim that the heads divide")
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        out: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))
        return out


class Mlp(nn.Module):
    """Two linear layers with a GELU between, four times as wide inside."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, ratio * dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Block(nn.Module):
    """Pre-norm transformer block; no DropPath, for the encoder runs frozen (METHOD section 2)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Blocks(nn.Module):
    """A stack of blocks under the checkpoint's name; the position embedding is added before **every** block."""

    def __init__(self, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))

    def forward(self, x: Tensor, position: Tensor) -> list[Tensor]:
        """``(B, G, dim)`` twice -> the output of each block."""
        outputs = []
        for block in self.blocks:
            x = block(x + position)
            outputs.append(x)
        return outputs


class PointMae(nn.Module):
    """Point-MAE encoder, ``(groups (B, G, K, 3), centers (B, G, 3)) -> (B, G, len(taps) * dim)``, float32.

    Groups are relative to their centre and not scaled. The result joins the outputs of the blocks named in
    ``taps`` (0-based), each through the final norm. Only the blocks up to ``max(taps)`` exist and run (layers
    pruning, METHOD section 2); ``depth`` is how many the checkpoint has.

    Raises
    ------
    EdgeAdError
        Taps outside of ``0 .. depth - 1`` or not ascending, ``widths`` not three numbers, heads that do not divide.
    """

    def __init__(
        self, dim: int, depth: int, heads: int, taps: Sequence[int], widths: Sequence[int] = PUBLISHED_WIDTHS
    ) -> None:
        super().__init__()
        self.taps = tuple(int(t) for t in taps)
        if not self.taps or list(self.taps) != sorted(set(self.taps)) or self.taps[0] < 0 or self.taps[-1] >= depth:
            raise EdgeAdError(f"point encoder taps {list(self.taps)}", f"ascending block numbers from 0 to {depth - 1}")
        if len(widths) != 3:
            raise EdgeAdError(f"point encoder widths {list(widths)}", "three numbers")
        self.encoder = MiniPointNet(dim, widths)
        self.pos_embed = nn.Sequential(nn.Linear(3, POSITION_HIDDEN), nn.GELU(), nn.Linear(POSITION_HIDDEN, dim))
        self.blocks = Blocks(dim, self.taps[-1] + 1, heads)
        self.norm = nn.LayerNorm(dim)

    def group_tokens(self, groups: Tensor) -> Tensor:
        """Mini-PointNet alone: ``(B, G, K, 3) -> (B, G, dim)``."""
        tokens: Tensor = self.encoder(groups)
        return tokens

    def features(self, tokens: Tensor, centers: Tensor) -> Tensor:
        """From group tokens ``(B, G, dim)`` and centres ``(B, G, 3)`` to the tapped features."""
        outputs = self.blocks(tokens, self.pos_embed(centers))
        return torch.cat([self.norm(outputs[t]) for t in self.taps], dim=-1)

    def forward(self, groups: Tensor, centers: Tensor) -> Tensor:
        return self.features(self.group_tokens(groups), centers)


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Encoder keys from a published checkpoint (``module.MAE_encoder.*``, decoder keys left out by name) or from our
    own file (plain keys). Keys of any other name stay, so that the exact load can report them."""
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("base_model.").removeprefix("module.")
        if name.startswith(DECODER_KEYS):
            continue
        out[name.removeprefix("MAE_encoder.")] = value
    return out


def widths_of(state: Mapping[str, Tensor], where: str) -> tuple[int, int, int]:
    """Mini-PointNet widths read from the tensors' shapes."""
    keys = ("encoder.first_conv.0.weight", "encoder.first_conv.3.weight", "encoder.second_conv.0.weight")
    missing = [k for k in keys if k not in state]
    if missing:
        raise EdgeAdError(f"{where} lacks {', '.join(missing)}", "a Point-MAE checkpoint")
    first, out, second = (int(state[k].shape[0]) for k in keys)
    return first, out, second


def load_point_encoder(
    checkpoint: str | Path,
    *,
    dim: int,
    depth: int,
    heads: int,
    taps: Sequence[int],
    widths: Sequence[int] | None = None,
) -> PointMae:
    """Point encoder from a local checkpoint, in eval mode (BatchNorm with running statistics), no gradients.

    Parameters
    ----------
    checkpoint : a ``.pth`` in the published layout, a ``.safetensors`` with plain keys, ``"package"`` for the weights
        that ship with this package, or ``"random"`` for a seeded initialisation (needs ``widths``; for comparisons).
    dim, depth, heads : sizes of the transformer; ``depth`` as the checkpoint has it.
    taps : 0-based blocks whose outputs are joined; blocks after the last one are not built.
    widths : mini-PointNet widths, read from the checkpoint when None.

    Raises
    ------
    EdgeAdError
        The file is missing or not a checkpoint; sizes that do not fit; missing or unknown keys (all listed).
    """
    if str(checkpoint) == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(115)
            return PointMae(dim, depth, heads, taps, widths or PUBLISHED_WIDTHS).eval().requires_grad_(False)
    path = PACKAGE_WEIGHTS if str(checkpoint) == "package" else Path(checkpoint)
    state = encoder_state(read_state(path))
    model = PointMae(dim, depth, heads, taps, widths or widths_of(state, str(path)))
    pruned = tuple(f"blocks.blocks.{i}." for i in range(model.taps[-1] + 1, depth))
    state = {k: v for k, v in state.items() if not k.startswith(pruned)} if pruned else state
    load_exact(model, state, where=str(path))
    return model.eval().requires_grad_(False)

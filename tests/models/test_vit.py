"""DINO ViT against the published implementation's numbers, and its checkpoints' faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from edge_ad.errors import EdgeAdError
from edge_ad.models import load_rgb_encoder
from edge_ad.models.vit import VisionTransformer
from tests.shared import SHARED, needs_shared

SIZES: dict[str, Any] = {"image_size": 64, "patch_size": 8, "dim": 48, "depth": 3, "heads": 3}
CHECKPOINT = SHARED / "golden" / "dino_tiny_patch8.pth"
TOKENS = SHARED / "golden" / "dino_tiny_patch8.npz"


def tiny_state(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return VisionTransformer(**SIZES).state_dict()


@needs_shared
@pytest.mark.parametrize(("blocks", "key"), [(None, 2), (3, 2), (2, 1), (1, 0)])
def test_golden_tokens_and_layers_pruning(blocks: int | None, key: int) -> None:
    golden = np.load(TOKENS)
    encoder = load_rgb_encoder(CHECKPOINT, **SIZES, blocks=blocks)
    assert not encoder.training
    tokens = encoder(torch.from_numpy(golden["rgb"])).numpy()
    assert tokens.shape == (1, 64, 48)
    np.testing.assert_allclose(tokens, golden[f"tokens_after_block_{key}"], rtol=0, atol=1e-5)


def test_vit_b_has_the_150_published_keys() -> None:
    with torch.device("meta"):
        keys = set(VisionTransformer(image_size=224, patch_size=8, dim=768, depth=12, heads=12).state_dict())
    assert len(keys) == 150
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.11.mlp.fc2.bias", "norm.weight"} <= keys


@pytest.mark.parametrize(
    "rename",
    [
        pytest.param(lambda k: k, id="official"),
        pytest.param(lambda k: f"module.backbone.{k}", id="full-checkpoint"),
        pytest.param(lambda k: f"backbone.{k}", id="teacher-backbone"),
    ],
)
def test_published_layouts_with_heads(tmp_path: Path, rename: Any) -> None:
    state = tiny_state()
    file = {rename(k): v for k, v in state.items()} | {rename("head.weight"): torch.zeros(10, 48)}
    torch.save({"teacher": file, "epoch": 3}, tmp_path / "full.pth")
    save_file(file, tmp_path / "flat.safetensors")
    image = torch.randn(1, 3, 64, 64)
    expected = load_rgb_encoder(state, **SIZES)(image)
    for name in ("full.pth", "flat.safetensors"):
        assert torch.equal(load_rgb_encoder(tmp_path / name, **SIZES)(image), expected)


def test_position_embedding_is_interpolated_as_dino_does() -> None:
    state = tiny_state()
    larger = {**SIZES, "image_size": 96}
    encoder = load_rgb_encoder(state, **larger)
    # DINO: scale factors (n + 0.1) / side, bicubic, then (rows, cols) flattened row-major.
    planes = state["pos_embed"][:, 1:].reshape(1, 8, 8, 48).permute(0, 3, 1, 2)
    planes = F.interpolate(planes, scale_factor=(12.1 / 8, 12.1 / 8), mode="bicubic")
    expected = torch.cat([state["pos_embed"][:, :1], planes.permute(0, 2, 3, 1).reshape(1, 144, 48)], dim=1)
    assert torch.equal(encoder.position, expected)
    image = torch.randn(2, 3, 96, 96)
    # An encoder built for 64 pixels gives the same tokens on a 96-pixel image.
    torch.testing.assert_close(load_rgb_encoder(state, **SIZES)(image), encoder(image), rtol=0, atol=1e-6)
    assert load_rgb_encoder(state, **SIZES)(torch.randn(1, 3, 64, 96)).shape == (1, 96, 48)


def test_weights_loaded_later_renew_the_position_embedding() -> None:
    encoder = VisionTransformer(**SIZES)
    state = tiny_state(5)
    encoder.load_state_dict(state)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder.eval()(image), load_rgb_encoder(state, **SIZES)(image))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patch_size": 16}, ("wrong shape", "patch_embed.proj.weight (48, 3, 8, 8)")),
        ({"dim": 96}, ("wrong shape", "cls_token (1, 1, 48) instead of (1, 1, 96)")),
        ({"depth": 4}, ("missing", "blocks.3.norm1.weight")),
        ({"depth": 2}, ("unknown", "blocks.2.norm1.weight")),
        ({"image_size": 60}, ("60", "multiple of the patch size")),
        ({"heads": 5}, ("5 heads", "divide")),
        ({"blocks": 0}, ("blocks=0", "1 to 3")),
        ({"blocks": 4}, ("blocks=4", "1 to 3")),
    ],
)
def test_sizes_that_do_not_fit_are_one_clear_error(change: dict[str, int], words: tuple[str, ...]) -> None:
    with pytest.raises(EdgeAdError) as e:
        load_rgb_encoder(tiny_state(), **{**SIZES, **change})
    assert all(w in str(e.value) for w in words), str(e.value)
    assert "\n" not in str(e.value)

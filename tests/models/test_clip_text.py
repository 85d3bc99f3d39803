"""CLIP's text tower against the published implementation's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edge_ad.errors import EdgeAdError
from edge_ad.models import load_text_encoder
from edge_ad.models.clip_text import ClipTextEncoder
from tests.shared import SHARED, needs_shared

GOLDEN = SHARED / "golden" / "clip_text_tiny.npz"


def golden_state() -> tuple[dict[str, torch.Tensor], dict[str, Any], Any]:
    golden = np.load(GOLDEN)
    state = {k.removeprefix("sd/"): torch.from_numpy(golden[k]) for k in golden if k.startswith("sd/")}
    # The file holds only the rows that the prompts use; all other rows of the table are never read.
    table = torch.zeros(int(golden["vocab_size"]), int(golden["width"]))
    table[torch.from_numpy(golden["used_rows"])] = torch.from_numpy(golden["used_embeddings"])
    state["token_embedding.weight"] = table
    return state, {k: int(golden[k]) for k in ("width", "heads", "layers", "embed_dim")}, golden


@needs_shared
def test_golden_text_features(tmp_path: Path) -> None:
    state, sizes, golden = golden_state()
    state["visual.conv1.weight"] = torch.zeros(4, 3, 2, 2)
    encoder = load_text_encoder(state, **sizes)
    assert not encoder.training
    ids = torch.from_numpy(golden["token_ids"])
    features = encoder(ids)
    np.testing.assert_allclose(features.numpy(), golden["text_features"], rtol=0, atol=1e-5)
    save_file(state, tmp_path / "clip.safetensors")
    assert torch.equal(load_text_encoder(tmp_path / "clip.safetensors", **sizes)(ids), features)


SIZES: dict[str, int] = {"width": 16, "heads": 2, "layers": 2, "embed_dim": 8}


def tiny_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return ClipTextEncoder(**SIZES, vocabulary_size=50).state_dict()


def test_attention_is_causal_and_the_end_token_decides() -> None:
    encoder = load_text_encoder(tiny_state(), **SIZES)
    ids = torch.zeros(2, 77, dtype=torch.int64)
    ids[:, :4] = torch.tensor([48, 5, 6, 49])
    ids[1, 4:9] = 7  # after the end token: without influence
    features = encoder(ids)
    torch.testing.assert_close(features[0], features[1], rtol=0, atol=1e-6)
    ids[1, 2] = 8
    assert not torch.allclose(encoder(ids)[1], features[1], atol=1e-4)


@pytest.mark.parametrize(
    ("sizes", "drop", "words"),
    [
        ({"layers": 3}, "", ("missing: transformer.resblocks.2.attn.in_proj_weight",)),
        ({"layers": 1}, "", ("unknown: transformer.resblocks.1.attn.in_proj_weight",)),
        ({"embed_dim": 9}, "", ("wrong shape: text_projection (16, 8) instead of (16, 9)",)),
        ({"heads": 3}, "", ("3 heads", "divide")),
        ({}, "token_embedding.weight", ("missing: token_embedding.weight",)),
        ({}, "ln_final.bias", ("missing: ln_final.bias",)),
    ],
)
def test_states_that_do_not_fit(sizes: dict[str, int], drop: str, words: tuple[str, ...]) -> None:
    state = {k: v for k, v in tiny_state().items() if k != drop}
    with pytest.raises(EdgeAdError) as e:
        load_text_encoder(state, **{**SIZES, **sizes})
    assert all(w in str(e.value) for w in words), str(e.value)

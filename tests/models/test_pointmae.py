"""The point encoder against the published implementation's numbers, its checkpoint layouts and its ONNX trace."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edge_ad.errors import EdgeAdError
from edge_ad.models.pointmae import PACKAGE_WEIGHTS, PointMae, encoder_state, load_point_encoder
from edge_ad.presets import load_preset
from tests.shared import SHARED, needs_shared

GOLDEN = SHARED / "golden"
SIZES = {"dim": 48, "depth": 12, "heads": 6}
TINY = {"dim": 12, "depth": 3, "heads": 2}
WIDTHS = (4, 8, 16)


def tiny(taps: tuple[int, ...] = (0, 2)) -> PointMae:
    torch.manual_seed(0)
    return PointMae(**TINY, taps=taps, widths=WIDTHS).eval()


@needs_shared
def test_golden_tokens_and_features() -> None:
    golden = np.load(GOLDEN / "pointmae_tiny.npz")
    model = load_point_encoder(GOLDEN / "pointmae_tiny.pth", **SIZES, taps=(3, 7, 11))
    groups, centers = torch.from_numpy(golden["groups"]), torch.from_numpy(golden["centers"])
    assert not model.training and not any(m.training for m in model.modules())
    tokens, features = model.group_tokens(groups), model(groups, centers)
    assert features.shape == (1, groups.shape[1], 3 * 48)
    assert np.abs(tokens.numpy() - golden["group_tokens"]).max() <= 1e-5
    assert np.abs(features.numpy() - golden["features"]).max() <= 1e-5


@needs_shared
@pytest.mark.parametrize("taps", [(3,), (3, 7)])
def test_pruned_layers_give_the_same_taps(taps: tuple[int, ...]) -> None:
    golden = np.load(GOLDEN / "pointmae_tiny.npz")
    model = load_point_encoder(GOLDEN / "pointmae_tiny.pth", **SIZES, taps=taps)
    assert len(model.blocks.blocks) == taps[-1] + 1
    features = model(torch.from_numpy(golden["groups"]), torch.from_numpy(golden["centers"]))
    assert np.abs(features.numpy() - golden["features"][..., : 48 * len(taps)]).max() <= 1e-5


@needs_shared
def test_decoder_keys_are_left_out_by_name_and_others_are_kept() -> None:
    state = torch.load(GOLDEN / "pointmae_tiny.pth", weights_only=True)["base_model"]
    kept = encoder_state(state)
    assert len(kept) < len(state) and all(k.startswith(("encoder.", "pos_embed.", "blocks.", "norm.")) for k in kept)
    assert "surprise" in encoder_state({"module.MAE_encoder.surprise": torch.zeros(1)})


def test_own_layout_round_trip_and_width_detection(tmp_path: Path) -> None:
    model = tiny()
    path = tmp_path / "own.safetensors"
    save_file(model.state_dict(), path)
    loaded = load_point_encoder(path, **TINY, taps=(0, 2))
    groups, centers = torch.randn(2, 5, 8, 3), torch.randn(2, 5, 3)
    assert torch.equal(loaded(groups, centers), model(groups, centers))
    assert not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_a_wrong_checkpoint_is_one_error_that_names_the_key(tmp_path: Path, change: str) -> None:
    state = tiny().state_dict()
    key = "blocks.blocks.1.attn.proj.weight"
    if change == "missing":
        del state[key]
    elif change == "extra":
        key = "blocks.blocks.9.norm1.weight"
        state[key] = torch.zeros(12)
    else:
        state[key] = torch.zeros(3, 3)
    path = tmp_path / "bad.safetensors"
    save_file(state, path)
    with pytest.raises(EdgeAdError, match=key.replace(".", r"\.")):
        load_point_encoder(path, **TINY, taps=(0, 2))


@pytest.mark.parametrize("taps", [(), (3,), (2, 1), (1, 1), (-1,)])
def test_impossible_taps_are_refused(taps: tuple[int, ...]) -> None:
    with pytest.raises(EdgeAdError, match="taps"):
        PointMae(**TINY, taps=taps, widths=WIDTHS)


def test_group_order_and_point_order_do_not_matter() -> None:
    model = tiny()
    groups, centers = torch.randn(1, 6, 8, 3), torch.randn(1, 6, 3)
    order, inside = torch.randperm(6), torch.randperm(8)
    expected = model(groups, centers)[:, order]
    got = model(groups[:, order][:, :, inside], centers[:, order])
    assert torch.allclose(expected, got, atol=1e-5)


def test_traces_to_plain_onnx_operators_and_runs_alike() -> None:
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    model = tiny()
    groups, centers = torch.randn(1, 6, 8, 3), torch.randn(1, 6, 3)
    buffer = io.BytesIO()
    torch.onnx.export(
        model, (groups, centers), buffer, input_names=["groups", "centers"], output_names=["features"], dynamo=False
    )
    operators = {node.op_type for node in onnx.load_from_string(buffer.getvalue()).graph.node}
    assert operators.isdisjoint({"If", "Loop", "Scan", "NonZero", "TopK", "ScatterND"})
    session = ort.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"groups": groups.numpy(), "centers": centers.numpy()})
    assert np.abs(got - model(groups, centers).detach().numpy()).max() <= 1e-5


@pytest.mark.skipif(not PACKAGE_WEIGHTS.is_file(), reason=f"{PACKAGE_WEIGHTS.name} has not been trained yet")
def test_shipped_weights_fit_the_compact_preset() -> None:
    points = load_preset("compact").points
    model = load_point_encoder(
        "package", dim=points.dim, depth=points.depth, heads=points.heads, taps=points.taps, widths=points.widths
    )
    assert PACKAGE_WEIGHTS.stat().st_size <= 4_000_000
    generator = torch.Generator().manual_seed(0)
    groups = 0.04 * torch.randn(1, 64, 32, 3, generator=generator)
    features = model(groups, torch.randn(1, 64, 3, generator=generator))
    assert features.shape == (1, 64, len(points.taps) * points.dim) and torch.isfinite(features).all()
    # Trained on groups of this size: the running statistics must not be those of an untouched layer.
    assert not torch.allclose(model.encoder.first_conv[1].running_var, torch.ones(points.widths[0]))

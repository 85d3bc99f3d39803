"""The mappers against the equations written out with plain matrices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edge_ad.models.mappers import Cfm, Gacm, Mappers, Mlp
from edge_ad.presets import load_preset


def gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def test_gacm_is_equations_1_to_4() -> None:
    torch.manual_seed(0)
    m = Gacm(5, 7).double()
    torch.nn.init.normal_(m.norm.weight)
    torch.nn.init.normal_(m.norm.bias)
    p = dict(m.named_parameters())
    assert "w_g.bias" not in p
    x = torch.randn(11, 5, dtype=torch.float64)
    f_sem = x @ p["phi_s.weight"].T + p["phi_s.bias"]
    f_geo = x @ p["phi_g.weight"].T + p["phi_g.bias"]
    gate = 1 / (1 + torch.exp(-(f_geo @ p["w_g.weight"].T)))
    fused = f_geo * gate + f_sem * (1 - gate)
    centred = fused - fused.mean(-1, keepdim=True)
    normed = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
    expected = x @ p["residual.weight"].T + p["residual.bias"]
    expected = expected + gelu(normed * p["norm.weight"] + p["norm.bias"])
    torch.testing.assert_close(m(x), expected, rtol=0, atol=1e-12)


def test_mlp_and_cfm_are_linear_layers_with_gelu_between() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6, dtype=torch.float64)
    m = Mlp(6, 3, 5).double()
    torch.testing.assert_close(m(x), m.fc2(gelu(m.fc1(x))), rtol=0, atol=1e-12)
    c = Cfm(6, 3, 5).double()
    torch.testing.assert_close(c(x), c.fc3(gelu(c.fc2(gelu(c.fc1(x))))), rtol=0, atol=1e-12)
    assert Mlp(768, 512).fc1.out_features == 640
    assert Cfm(768, 1152).fc2.weight.shape == (960, 960)


@pytest.mark.parametrize(
    ("name", "hidden", "shapes"),
    [
        ("compact", None, {"rgb_to_3d": (184, 296), "points_to_rgb": (296, 184), "rgb_to_text": (184, 384)}),
        ("paper", None, {"rgb_to_3d": (768, 1152), "points_to_rgb": (1152, 768), "points_to_text": (1152, 512)}),
        ("paper", 64, {"rgb_to_3d": (768, 1152), "points_to_rgb": (1152, 768), "rgb_to_text": (768, 512)}),
        ("cfm", None, {"rgb_to_3d": (768, 1152), "points_to_rgb": (1152, 768)}),
    ],
)
def test_mappers_of_a_preset(name: str, hidden: int | None, shapes: dict[str, tuple[int, int]]) -> None:
    preset = load_preset(name)
    if hidden is not None:
        preset = replace(preset, mappers=replace(preset.mappers, hidden=hidden))
    if name == "compact":  # features with their constant channel
        preset = replace(preset, rgb=replace(preset.rgb, lift=1.0), points=replace(preset.points, lift=1.0))
    mappers = Mappers(preset)
    assert mappers.has_text == (name != "cfm")
    assert (mappers.rgb_to_text is None) == (mappers.points_to_text is None) == (name == "cfm")
    for mapper, (inputs, outputs) in shapes.items():
        assert getattr(mappers, mapper)(torch.zeros(2, inputs)).shape == (2, outputs)
    expected = preset.mappers.hidden or (preset.dim_rgb + preset.dim_points) // 2
    assert mappers.points_to_rgb.fc1.out_features == expected
    kinds = {type(m) for m in mappers.children()}
    assert kinds == ({Cfm} if name == "cfm" else {Gacm, Mlp})

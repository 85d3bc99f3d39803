"""The reference detector: literal maps, fusion, statistics, and what it saves."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from edge_ad.errors import EdgeAdError
from edge_ad.models.build import assemble
from edge_ad.models.detector import ReferenceDetector
from edge_ad.presets import CODE, Preset, load_preset

S, T, G = 32, 16, 20


def tiny_preset(kind: str = "gacm", **fusion: Any) -> Preset:
    base = load_preset("cfm" if kind == "cfm" else "compact")
    return replace(
        base,
        geometry=replace(base.geometry, size=S),
        rgb=replace(
            base.rgb, encoder="dino-vit", checkpoint="random", grid=4, patch_size=8, dim=24, depth=2, heads=2, taps=(),
            lift=1.0,
        ),
        points=replace(
            base.points, checkpoint="random", groups=G, group_size=8, dim=12, depth=3, heads=2, taps=(0, 2),
            widths=(8, 16, 16), lift=1.0,
        ),
        text=replace(base.text, dim=10),
        mappers=replace(base.mappers, hidden=14),
        fusion=replace(base.fusion, **fusion),
    )  # fmt: skip


def make(preset: Preset, classes: int = 3) -> ReferenceDetector:
    torch.manual_seed(3)
    detector = ReferenceDetector(preset, *assemble(preset), classes=classes)
    for buffer in (detector.anchors, detector.rgb_offset, detector.point_offset):
        buffer.normal_()
    for buffer in (detector.rgb_weight, detector.point_weight, detector.balance):
        buffer.uniform_(0.5, 2)
    if detector.conditions is not None:
        for condition in (detector.conditions.rgb, detector.conditions.points):
            condition.weight.normal_(std=0.3)
            condition.offset.normal_()
    return detector.eval().requires_grad_(False)


Inputs = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(4)
    valid = torch.rand(S, S, generator=generator) < 0.6
    weight = torch.rand(S * S, 3, generator=generator)
    weight = weight / weight.sum(-1, keepdim=True) * valid.reshape(-1, 1)
    return {
        "rgb": torch.randn(3, S, S, generator=generator),
        "groups": 0.1 * torch.randn(G, 8, 3, generator=generator),
        "centers": torch.randn(G, 3, generator=generator),
        "index": torch.randint(0, G, (S * S, 3), generator=generator) * valid.reshape(-1, 1),
        "weight": weight,
        "valid": valid,
    }


def run_terms(detector: ReferenceDetector, x: Inputs, class_index: int = 1) -> dict[str, torch.Tensor]:
    tokens = detector.tokens(x["rgb"], x["groups"], x["centers"])
    return detector.terms(*tokens, x["index"], x["weight"], x["valid"], class_index)


def test_terms_are_the_equations_pixel_by_pixel(inputs: Inputs) -> None:
    detector = make(tiny_preset())
    rgb_tokens, point_tokens = detector.tokens(inputs["rgb"], inputs["groups"], inputs["centers"])
    assert rgb_tokens.shape == (T, 24 + CODE)
    assert point_tokens.shape == (G, 24 + CODE)
    raw = detector.rgb_encoder(inputs["rgb"][None])[0]
    torch.testing.assert_close(rgb_tokens, F.linear(raw, detector.rgb_weight, detector.rgb_offset))
    terms = run_terms(detector, inputs)
    assert list(terms) == ["rgb", "3d", "text_rgb", "text_3d"]
    assert detector.levels is not None
    own_rgb, own_points = detector.of_class(rgb_tokens, point_tokens, 1)
    assert float((own_rgb - detector.of_class(rgb_tokens, point_tokens, 0)[0]).abs().max()) > 0.1
    of_rgb, of_3d = detector.levels.of_rgb(own_points), detector.levels.of_3d(own_rgb)
    of_3d = F.interpolate(of_3d.reshape(1, 1, 4, 4), (S, S), mode="bilinear")[0, 0]
    planes = F.interpolate(rgb_tokens.T.reshape(1, -1, 4, 4), (S, S), mode="bilinear")[0]
    rows, cols = inputs["valid"].nonzero(as_tuple=True)
    m = detector.mappers
    assert m.rgb_to_text is not None
    assert m.points_to_text is not None
    for row, col in list(zip(rows.tolist(), cols.tolist(), strict=True))[::97]:
        pixel = row * S + col
        x = planes[:, row, col]
        y = sum(
            w * point_tokens[i]
            for i, w in zip(inputs["index"][pixel].tolist(), inputs["weight"][pixel].tolist(), strict=True)
        )
        anchor = detector.anchors[1]
        own_x, own_y = detector.of_class(x, y, 1)
        pairs = {
            "rgb": (own_x, m.points_to_rgb(own_y)),
            "3d": (own_y, m.rgb_to_3d(own_x)),
            "text_rgb": (anchor, m.rgb_to_text(x)),
            "text_3d": (anchor, m.points_to_text(y)),
        }
        for name, (a, b) in pairs.items():
            expected = math.dist((a / a.norm()).tolist(), (b / b.norm()).tolist())
            if name == "rgb":
                expected /= float(of_rgb[inputs["index"][pixel]] @ inputs["weight"][pixel])
            if name == "3d":
                expected /= float(of_3d[row, col])
            assert float(terms[name][row, col]) == pytest.approx(expected, abs=2e-6), name


def test_invalid_pixels_are_zero_and_do_not_matter(inputs: Inputs) -> None:
    detector = make(tiny_preset())
    terms = run_terms(detector, inputs)
    for values in terms.values():
        assert values.shape == (S, S)
        assert bool((values[~inputs["valid"]] == 0).all())
        assert bool((values[inputs["valid"]] > 0).all())
    other = {**inputs, "weight": inputs["weight"] + (~inputs["valid"]).reshape(-1, 1)}
    for name, values in run_terms(detector, other).items():
        assert torch.equal(values, terms[name])


@pytest.mark.parametrize("balance", ["none", "train-mean"])
def test_fusion_is_equation_16(inputs: Inputs, balance: str) -> None:
    detector = make(tiny_preset(balance=balance, smoothing="none", alpha=0.3, beta=0.8, combine="product"))
    valid = inputs["valid"]
    t = run_terms(detector, inputs)
    b = detector.balance if balance == "train-mean" else torch.ones(3)
    expected = 0.3 * t["rgb"] * t["3d"] / (b[0] * b[1]) + 0.8 * t["text_rgb"] * t["text_3d"] / b[2]
    ours = detector.anomaly_map(t, valid)
    torch.testing.assert_close(ours, expected)
    assert detector.score(ours) == pytest.approx(float(expected.max()))
    larger = make(tiny_preset(balance=balance, smoothing="none", alpha=0.3, beta=0.8, combine="max"))
    expected = 0.3 * torch.maximum(t["rgb"] / b[0], t["3d"] / b[1]) + 0.8 * t["text_rgb"] * t["text_3d"] / b[2]
    torch.testing.assert_close(larger.anomaly_map(t, valid), expected)


def test_smoothing_is_applied_last(inputs: Inputs) -> None:
    sharp = make(tiny_preset(smoothing="none", smooth_over="image", rim=0, spread=0))
    soft = make(tiny_preset(smoothing="box-cascade", smooth_over="image", rim=0, spread=0))
    terms = run_terms(sharp, inputs)
    a, b = sharp.anomaly_map(terms), soft.anomaly_map(terms)
    assert float(b.max()) < float(a.max())
    x = a[None, None]
    for window in [5] * 5 + [7] * 3:
        x = F.conv2d(x, torch.full((1, 1, window, window), 1 / window**2), padding=window // 2)
    torch.testing.assert_close(b, x[0, 0], rtol=0, atol=1e-6)


def test_smoothing_over_valid_pixels_is_a_mean_of_them(inputs: Inputs) -> None:
    detector = make(tiny_preset(smoothing="gaussian", smooth_over="valid", sigma=2.0, spread=0, combine="product"))
    valid = inputs["valid"]
    flat = {"rgb": torch.ones(S, S), "3d": torch.ones(S, S)}
    one = detector.anomaly_map({k: v * valid for k, v in flat.items()}, valid)
    level = detector.preset.fusion.alpha / float(detector.balance[0] * detector.balance[1])
    torch.testing.assert_close(one[valid], torch.full_like(one[valid], level))
    assert bool((one[~valid] == 0).all())
    with pytest.raises(EdgeAdError, match="no mask of valid pixels"):
        detector.anomaly_map(flat)


def test_cfm_has_no_text(inputs: Inputs) -> None:
    detector = make(tiny_preset("cfm", smoothing="none"))
    terms = run_terms(detector, inputs)
    assert list(terms) == ["rgb", "3d"]
    torch.testing.assert_close(detector.anomaly_map(terms), terms["rgb"] * terms["3d"])
    tokens = detector.tokens(inputs["rgb"], inputs["groups"], inputs["centers"])
    with pytest.raises(EdgeAdError, match="auto"):
        detector.class_distances(*tokens, inputs["index"], inputs["weight"], inputs["valid"])


def test_auto_finds_the_class_whose_anchor_the_features_meet(inputs: Inputs) -> None:
    detector = make(tiny_preset())
    tokens = detector.tokens(inputs["rgb"], inputs["groups"], inputs["centers"])
    features = detector.pixel_features(*tokens, inputs["index"], inputs["weight"])
    assert features.rgb_to_text is not None
    inside = inputs["valid"].flatten()
    detector.anchors[2] = F.normalize(features.rgb_to_text[inside], dim=-1).mean(0) * 3
    distances = detector.class_distances(*tokens, inputs["index"], inputs["weight"], inputs["valid"])
    terms = [run_terms(detector, inputs, c) for c in range(3)]
    expected = [float((t["text_rgb"] + t["text_3d"])[inputs["valid"]].mean() / 2) for t in terms]
    assert distances.tolist() == pytest.approx(expected, rel=1e-5)
    assert int(distances.argmin()) == 2


def test_encoders_stay_in_eval_mode_and_two_runs_agree(inputs: Inputs) -> None:
    detector = make(tiny_preset())
    before = run_terms(detector, inputs)
    detector.train()
    assert detector.mappers.training
    assert not any(m.training for e in (detector.rgb_encoder, detector.point_encoder) for m in e.modules())
    after = run_terms(detector, inputs)
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_trained_state_round_trip_and_its_faults(inputs: Inputs) -> None:
    detector = make(tiny_preset())
    state = detector.trained_state()
    assert not any("encoder" in k for k in state)
    fresh = ReferenceDetector(detector.preset, *assemble(detector.preset), classes=3)
    fresh.load_trained(state, "model.safetensors")
    a, b = run_terms(detector, inputs), run_terms(fresh.eval(), inputs)
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(EdgeAdError, match=r"wrong shape: anchors \(3, 10\) instead of \(4, 10\)"):
        make(detector.preset, classes=4).load_trained(state, "model.safetensors")
    state.pop("balance")
    with pytest.raises(EdgeAdError, match="missing: balance"):
        fresh.load_trained(state, "model.safetensors")
    with pytest.raises(EdgeAdError, match="at least one"):
        make(detector.preset, classes=0)


def test_interpolation_rows_must_match_the_pixels(inputs: Inputs) -> None:
    detector = make(tiny_preset())
    tokens = detector.tokens(inputs["rgb"], inputs["groups"], inputs["centers"])
    with pytest.raises(EdgeAdError, match="rows for 10 pixels"):
        detector.terms(*tokens, inputs["index"][:10], inputs["weight"][:10], inputs["valid"], 0)


def test_random_encoders_are_reproducible_and_leave_the_generator_alone() -> None:
    preset = tiny_preset()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, second = assemble(preset), assemble(preset)
    assert torch.equal(torch.rand(3), expected)
    for a, b in zip(first, second, strict=True):
        assert not a.training
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
        assert not any(p.requires_grad for p in a.parameters())


def test_assemble_reads_checkpoints_and_explains_what_lacks(tmp_path: object) -> None:
    preset = load_preset("paper")
    with pytest.raises(EdgeAdError, match="dino_vitbase8_pretrain.pth does not exist"):
        assemble(preset, str(tmp_path))
    tiny = tiny_preset()
    bad = replace(tiny, rgb=replace(tiny.rgb, grid=5))
    with pytest.raises(EdgeAdError, match="size = patch_size"):
        assemble(bad)
    with pytest.raises(EdgeAdError, match="no weights of this encoder are shipped"):
        assemble(replace(tiny, rgb=replace(tiny.rgb, checkpoint="package")))
    small = load_preset("compact")
    with pytest.raises(EdgeAdError, match="geometry.size is 230"):
        assemble(replace(small, geometry=replace(small.geometry, size=230)))


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, edge_ad.models; print('torch' in sys.modules, 'load_rgb_encoder' in edge_ad.models.__all__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "True"]

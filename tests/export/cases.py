"""Small fitted detectors and samples on which the graphs are held against the literal model."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from edge_ad.bundle import TensorSpec
from edge_ad.export.graphs import ScoreGraph
from edge_ad.export.reference import spread
from edge_ad.models.build import assemble
from edge_ad.models.detector import ReferenceDetector
from edge_ad.models.mappers import Cfm, Gacm, Mlp
from edge_ad.presets import Preset, load_preset
from edge_ad.runtime.point_input import PointInput
from edge_ad.runtime.pointops import three_nearest

TOLERANCE = 1e-5  # of the largest value of a term
# Unit vectors in float32 are off by about 1e-7, whoever computes them. Where a mapper is blind to the defect and every
# distance lies among those of good pixels, the tolerance is that of a value of this size.
NORMAL = 0.05


def small(
    kind: str, grid: int, ratio: int, groups: int, lift: float, hidden: int = 40, by_class: bool = False
) -> Preset:
    base = load_preset("cfm" if kind == "cfm" else "compact")
    return replace(
        base,
        geometry=replace(base.geometry, size=grid * ratio),
        rgb=replace(
            base.rgb, encoder="dino-vit", checkpoint="random", grid=grid, patch_size=ratio, dim=24, depth=1, heads=2,
            taps=(), lift=lift,
        ),
        points=replace(
            base.points, checkpoint="random", groups=groups, group_size=4, dim=12, depth=3, heads=2, taps=(0, 2),
            widths=(8, 16, 16), lift=lift,
        ),
        text=replace(base.text, dim=10),
        mappers=replace(base.mappers, kind=kind, hidden=hidden, condition="class" if by_class else "none"),
        fusion=replace(base.fusion, level="none"),  # levels have a test of their own (test_levels.py)
    )  # fmt: skip


@dataclass
class Case:
    """A fitted detector and one sample: raw tokens, interpolation of the valid pixels, mask."""

    detector: ReferenceDetector
    rgb: Tensor
    points: Tensor
    at: PointInput
    valid: np.ndarray
    class_index: int

    def reference(self) -> dict[str, np.ndarray]:
        """The literal model's terms at the valid pixels, in float64: what both forms round is then charged to ours."""
        d = deepcopy(self.detector).double()
        index, weight = spread(self.at, self.valid)
        with torch.no_grad():
            rgb = self.rgb.double() @ d.rgb_weight.T + d.rgb_offset
            points = self.points.double() @ d.point_weight.T + d.point_offset
            terms = d.terms(rgb, points, index, weight.double(), torch.from_numpy(self.valid), self.class_index)
        return {k: v.numpy()[self.valid] for k, v in terms.items()}


def least_squares(layer: nn.Linear, inputs: Tensor, targets: Tensor) -> None:
    """Set ``layer`` so that it maps ``inputs`` onto ``targets``, with weights as small as those of a trained layer."""
    rows = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1).double()
    gram = rows.T @ rows + 1e-2 * torch.eye(rows.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(gram, rows.T @ targets.double()).float()
    layer.weight.copy_(solution[:-1].T)
    layer.bias.copy_(solution[-1])


def fit_mapper(mapper: Gacm | Cfm | Mlp | None, inputs: Tensor, targets: Tensor) -> None:
    """Fit the last linear layer to the targets; what comes before it keeps its random weights."""
    if mapper is None:
        return
    if isinstance(mapper, Gacm):
        geometry = mapper.phi_g(inputs)
        gate = torch.sigmoid(mapper.w_g(geometry))
        branch = F.gelu(mapper.norm(geometry * gate + mapper.phi_s(inputs) * (1 - gate)))
        least_squares(mapper.residual, inputs, targets - branch)
        return
    hidden = F.gelu(mapper.fc1(inputs))
    if isinstance(mapper, Cfm):
        hidden = F.gelu(mapper.fc2(hidden))
    least_squares(mapper.fc3 if isinstance(mapper, Cfm) else mapper.fc2, hidden, targets)


@torch.no_grad()
def make(
    kind: str,
    grid: int,
    ratio: int,
    groups: int,
    classes: int,
    share: float,
    seed: int,
    hidden: int = 40,
    by_class: bool = False,
) -> Case:
    torch.manual_seed(seed)
    lift = 1.0 if by_class else float(seed % 2)
    preset = small(kind, grid, ratio, groups, lift, hidden, by_class)
    detector = ReferenceDetector(preset, *assemble(preset), classes=classes)
    detector.anchors.normal_()
    # Standardisation: a turn and a scale, so that raw tokens look like nothing the mappers know.
    turn, turn_3d = (torch.linalg.qr(torch.randn(24, 24))[0] * torch.empty(24).uniform_(0.5, 2) for _ in range(2))
    shift, shift_3d = torch.randn(24), torch.randn(24)
    detector.rgb_weight[:24], detector.rgb_offset[:24] = turn, shift
    detector.point_weight[:24], detector.point_offset[:24] = turn_3d, shift_3d
    if lift:
        for weight, offset in (
            (detector.rgb_weight, detector.rgb_offset),
            (detector.point_weight, detector.point_offset),
        ):
            weight[24:], offset[24:] = 0, 0
            offset[24] = lift
    class_index = seed % classes
    # Standardised features of good parts: one point of view of a hidden state each.
    centre, basis = torch.randn(24), 0.02 * torch.randn(2, 24)
    centre_3d, basis_3d = torch.randn(24), 0.02 * torch.randn(2, 24)
    state = torch.randn(400, 2)
    x, y = centre + state @ basis, centre_3d + state @ basis_3d
    m, anchor = detector.mappers, detector.anchors[class_index] + state @ (0.03 * torch.randn(2, 10))
    one = lift * torch.eye(preset.constants)[:1].expand(400, -1) if lift else torch.zeros(400, 0)
    x1, y1 = torch.cat([x, one], dim=1), torch.cat([y, one], dim=1)
    if detector.conditions is not None:
        for condition in (detector.conditions.rgb, detector.conditions.points):
            condition.weight[:, :24, :24] = torch.linalg.qr(torch.randn(classes, 24, 24))[0] * 1.5
            condition.weight[:, 24:] = 0
            condition.offset[:] = 0.3 * torch.randn_like(condition.offset)
    x2, y2 = detector.of_class(x1, y1, class_index)
    fit_mapper(m.rgb_to_3d, x2, y2)
    fit_mapper(m.points_to_rgb, y2, x2)
    fit_mapper(m.rgb_to_text, x1, anchor)
    fit_mapper(m.points_to_text, y1, anchor)
    rgb, points = centre + torch.randn(grid * grid, 2) @ basis, centre_3d + torch.randn(groups, 2) @ basis_3d
    rgb[0] += 0.3 * torch.randn(24)  # a defect in each modality
    points[-1] += 0.3 * torch.randn(24)
    size = grid * ratio
    rng = np.random.default_rng(seed)
    valid = rng.random((size, size)) < share
    # The defect lies under the first pixel in both modalities: a map's maximum is that of a defect, as in a real one.
    valid[0, 0] = True
    cloud = rng.normal(size=(int(valid.sum()), 3)).astype(np.float32)
    centers = rng.normal(size=(groups, 3)).astype(np.float32)
    cloud[0] = centers[-1]
    at = PointInput(
        np.zeros((groups, 4, 3), np.float32), centers, *three_nearest(cloud, centers), np.arange(groups)[:, None]
    )
    return Case(
        detector.eval(),
        (rgb - shift) @ torch.linalg.inv(turn).T,
        (points - shift_3d) @ torch.linalg.inv(turn_3d).T,
        at,
        valid,
        class_index,
    )


class TorchScore:
    """A score session that runs the torch module itself."""

    def __init__(self, graph: ScoreGraph) -> None:
        self.graph = graph.eval()
        names = ["rgb_rows", "point_rows", *(["class_index"] if graph.has_text else [])]
        self.inputs = tuple(TensorSpec(n, ("rows",), "float32") for n in names)
        self.outputs = tuple(
            TensorSpec(n, ("rows",), "float32")
            for n in ("rgb", "3d", "text_rgb", "text_3d")[: 4 if graph.has_text else 2]
        )

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        out = self.graph(*(torch.from_numpy(inputs[i.name]) for i in self.inputs))
        return {o.name: v.numpy() for o, v in zip(self.outputs, out, strict=True)}


SIZES: dict[str, Any] = {
    "kind": st.sampled_from(["gacm", "cfm"]),
    "grid": st.integers(2, 7),
    "ratio": st.sampled_from([1, 2, 4, 8]),
    "groups": st.integers(3, 50),
    "classes": st.integers(1, 5),
    "share": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    "seed": st.integers(0, 10_000),
}
"""What :func:`make` takes, drawn at random."""


def close(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, want in expected.items():
        worst = float(np.abs(found[name] - want).max())
        assert worst <= TOLERANCE * max(float(want.max()), NORMAL), f"{name}: {worst:.2e} of {want.max():.2e}"
    for product in (("rgb", "3d"), ("text_rgb", "text_3d")):
        if product[0] in expected:
            ours, theirs = (d[product[0]] * d[product[1]] for d in (found, expected))
            assert float(np.abs(ours - theirs).max()) <= TOLERANCE * max(float(theirs.max()), NORMAL**2), product

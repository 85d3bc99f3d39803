"""Weights of the scoring kernels: the arrays that the bundle carries beside its score graph (``onnx/score.npz``).

``edge_ad.export.graphs.score_arrays`` says what they are: last layers turned by QR, so that each is zero left of its
diagonal and ends at its rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle import Bundle
from edge_ad.bundle.golden import read_npz
from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32


@dataclass(frozen=True)
class Layer:
    """A second layer: weight (rank, hidden), zero left of its diagonal, bias (rank,), first column of its operand."""

    weight: F32
    bias: F32
    column: int

    @property
    def hidden(self) -> int:
        """Width of the operand."""
        return int(self.weight.shape[1])

    @property
    def rank(self) -> int:
        """Outputs that are not zero for every operand."""
        return int(self.weight.shape[0])


@dataclass(frozen=True)
class TextLayer:
    """A second layer into the text space, the turned unit anchors (C, rank) and what they have beyond it (C,)."""

    layer: Layer
    anchors: F32
    rest: F32


@dataclass(frozen=True)
class ScoreWeights:
    """What stays per pixel (METHOD.md section 7).

    rgb_width, point_width : columns of the tables; dim_rgb, dim_points : of the features, which come first.
    gamma, beta : (dim_points,) of GACM's LayerNorm. text : (colour, points), or None.
    """

    rgb_width: int
    point_width: int
    dim_rgb: int
    dim_points: int
    gamma: F32
    beta: F32
    epsilon: float
    points_to_rgb: Layer
    text: tuple[TextLayer, TextLayer] | None


def read_weights(bundle: Bundle) -> ScoreWeights:
    """The weights of a bundle's scoring stage.

    Raises
    ------
    EdgeAdError
        A mapper that the kernels do not have (``cfm``), a bundle without the arrays, or arrays that do not fit.
    """
    kind = bundle.preset.mappers.kind
    if kind != "gacm":
        raise EdgeAdError(f"mappers.kind '{kind}' has no scoring kernels", "gacm", "let the score plan do it")
    name = str(PurePosixPath(bundle.graph("score").file).with_suffix(".npz"))
    if name not in bundle.manifest.files:
        raise EdgeAdError(f"{bundle.where} has no {name}", "the weights of scoring", "run edge-ad export again")
    arrays, where = read_npz(bundle.path / name), f"{bundle.where}: {name}"

    def get(key: str, *shape: int | None) -> NDArray[Any]:
        found = arrays.get(key)
        if found is None or found.ndim != len(shape) or any(s not in (None, n) for n, s in zip(found.shape, shape)):
            has = "is missing" if found is None else f"has the shape {found.shape}"
            raise EdgeAdError(f"{where}: '{key}' {has}", f"{shape}, None for any size", "run edge-ad export again")
        return found

    def floats(key: str, *shape: int | None) -> F32:
        return np.ascontiguousarray(get(key, *shape), np.float32)

    def layer(term: str, hidden: int, column: int) -> Layer:
        weight = floats(f"{term}.weight", None, hidden)
        return Layer(weight, floats(f"{term}.bias", len(weight)), column)

    rgb, points = ([int(w) for w in get(f"{t}_widths", None)] for t in ("rgb", "point"))
    text = None
    if "text_rgb.weight" in arrays:
        pair = []
        for term, widths in (("text_rgb", rgb), ("text_3d", points)):
            last = layer(term, widths[-1], sum(widths[:-1]))
            pair.append(
                TextLayer(
                    last,
                    floats(f"{term}.anchors", len(bundle.classes), last.rank),
                    floats(f"{term}.anchor_rest", len(bundle.classes)),
                )
            )
        text = (pair[0], pair[1])
    if len(rgb) != 5 + (text is not None) or len(points) != 2 + (text is not None) or set(rgb[1:5]) != {points[0]}:
        raise EdgeAdError(f"{where}: column blocks {rgb} and {points}", "those of GACM", "run edge-ad export again")
    return ScoreWeights(
        sum(rgb),
        sum(points),
        rgb[0],
        points[0],
        floats("gacm.weight", points[0]),
        floats("gacm.bias", points[0]),
        float(get("gacm.eps")),
        layer("rgb", points[1], points[0]),
        text,
    )

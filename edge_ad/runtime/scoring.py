"""The scoring stage: interpolate rows of the token tables for the valid pixels, run the score graph in chunks.

METHOD.md section 7: every linear layer that acts on an interpolated feature has already run on the tokens
(``tokens.onnx``), so a pixel's row is a weighted sum of 4 colour-token rows and one of 3 point-token rows. Only valid
pixels are scored and no array of all pixels times all channels exists.

On the CPU the compiled stage (:mod:`edge_ad.runtime.scoring_fast`) does this; with an engine, or for a bundle without
its weights, rows are gathered here and the score graph runs in chunks.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle import Bundle
from edge_ad.frame import F32, Bool
from edge_ad.presets import Fusion
from edge_ad.runtime.backends import load_session
from edge_ad.runtime.backends.base import Session
from edge_ad.runtime.point_input import PointInput
from edge_ad.runtime.scoring_fast import TEXT, FastScore, Taps, bilinear_taps, fast_score, weights_file

if TYPE_CHECKING:  # 18 MB that the compiled stage does without
    from scipy.sparse import csr_matrix

CHUNK = 2048
"""Rows scored at a time: the rows of both tables stay within a few megabytes."""


CPU_BACKENDS = ("onnxruntime", "openvino")


def load_score(bundle: Bundle, backend: str, precision: str, threads: int | None = None) -> Session:
    """What scores a bundle's pixels: the compiled stage on a CPU backend in float32 or bf16, else the score graph.

    The compiled stage computes in float32. So a bundle's INT8 graph, whose effect on the accuracy is to be measured,
    runs as a graph; so does a bundle that was exported before the stage's weights were written.
    """
    if backend in CPU_BACKENDS and precision in ("fp32", "bf16") and weights_file(bundle) in bundle.manifest.files:
        return fast_score(bundle, threads)
    return load_session(bundle, "score", backend, precision, threads)


@lru_cache(maxsize=4)
def bilinear_matrix(grid: int, size: int) -> csr_matrix:
    """Bilinear interpolation (``align_corners=False``), grid x grid tokens to size x size pixels, as a sparse matrix.

    Returns
    -------
    (size * size, grid * grid) float32; each row has up to 4 weights that sum to 1.
    """
    from scipy.sparse import csr_matrix

    taps = bilinear_taps(grid, size)
    rows = np.repeat(np.arange(size * size), 4)
    matrix = csr_matrix((taps.weight.ravel(), (rows, taps.index.ravel())), shape=(size * size, grid * grid))
    matrix.sum_duplicates()
    return matrix


def point_matrix(points: PointInput, groups: int) -> csr_matrix:
    """The 3-NN interpolation as a sparse matrix, (n_valid, groups) float32."""
    from scipy.sparse import csr_matrix

    n = len(points.interp_index)
    starts = np.arange(0, 3 * n + 1, 3)
    return csr_matrix((points.interp_weight.ravel(), points.interp_index.ravel(), starts), shape=(n, groups))


def score_pixels(
    session: Session,
    rgb_table: F32,
    point_table: F32,
    valid: Bool,
    points: PointInput,
    class_index: int,
    rows: NDArray[np.int64] | None = None,
    chunk: int = CHUNK,
    text: bool = True,
    levels: tuple[F32, F32] | None = None,
) -> dict[str, F32]:
    """Distances of the valid pixels.

    Parameters
    ----------
    session : the score graph, or the compiled stage. rgb_table : (T, W_rgb). point_table : (G, W_3d), both from
        ``tokens.onnx``. valid : (S, S) bool. points : interpolation of the valid pixels, in the same order.
    class_index : which anchor. rows : score only these of the valid pixels. chunk : rows of one run of the graph.
    text : False leaves the text terms out where that saves time (the compiled stage), for beta = 0.
    levels : expected Psi_3d (T,) and Psi_rgb (G,) of the tokens (:func:`levels_of`); the distances are divided by them.

    Returns
    -------
    dict of (n,) float32: ``rgb`` (eq. 12), ``3d`` (eq. 13), and where there is text ``text_rgb`` and ``text_3d``,
    whose product is eq. 14.
    """
    taps = _taps(rgb_table, valid, points, rows)
    if isinstance(session, FastScore):
        terms = None if text else ("rgb", "3d")
        found = session.score(rgb_table, point_table, *taps, slice(class_index, class_index + 1), terms)
        scored = {name: d[0] if name in TEXT else d for name, d in found.items()}
        return over_levels(scored, levels, taps)
    grid = _grid(rgb_table)
    pixels = np.flatnonzero(valid.ravel())
    to_points = point_matrix(points, len(point_table))
    if rows is not None:
        pixels, to_points = pixels[rows], to_points[rows]
    to_rgb = bilinear_matrix(grid, valid.shape[0])[pixels]
    which = np.array([class_index], dtype=np.int64)
    parts: dict[str, list[F32]] = {}
    for start in range(0, len(pixels), chunk):
        end = min(start + chunk, len(pixels))
        inputs: dict[str, NDArray[np.generic]] = {
            "rgb_rows": np.ascontiguousarray(to_rgb[start:end] @ rgb_table, dtype=np.float32),
            "point_rows": np.ascontiguousarray(to_points[start:end] @ point_table, dtype=np.float32),
        }
        if "class_index" in {i.name for i in session.inputs}:
            inputs["class_index"] = which
        for name, value in session.run(inputs).items():
            parts.setdefault(name, []).append(value)
    scored = {name: np.concatenate(values) for name, values in parts.items()}
    return over_levels(scored, levels, taps)


LEVELS = ("rgb_level", "point_level")


def levels_of(tables: Mapping[str, F32]) -> tuple[F32, F32] | None:
    """The levels among the outputs of ``tokens.onnx``; None for a model without."""
    return (tables[LEVELS[0]], tables[LEVELS[1]]) if LEVELS[0] in tables else None


def over_levels(distances: dict[str, F32], levels: tuple[F32, F32] | None, taps: tuple[Taps, Taps]) -> dict[str, F32]:
    """Psi_rgb and Psi_3d over what is expected there: the tokens' levels, interpolated as their features are.

    distances : (n,) a term. levels : None changes nothing. taps : of those n pixels, from colour and point tokens.
    """
    if levels is None:
        return distances
    of_3d, of_rgb = (np.einsum("ij,ij->i", level[t.index], t.weight) for level, t in zip(levels, taps))
    return distances | {"rgb": distances["rgb"] / of_rgb, "3d": distances["3d"] / of_3d}


def class_distances(
    session: Session,
    rgb_table: F32,
    point_table: F32,
    valid: Bool,
    points: PointInput,
    classes: int,
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """(classes,) mean distance of both text features to each anchor; ``auto`` takes the least. NaN without text.

    Arguments as :func:`score_pixels`. The compiled stage looks at all anchors in one pass.
    """
    if not any(o.name == TEXT[0] for o in session.outputs):
        return np.full(classes, np.nan)
    if isinstance(session, FastScore):
        found = session.score(rgb_table, point_table, *_taps(rgb_table, valid, points, rows), terms=TEXT)
        return sum(found[name].mean(axis=1, dtype=np.float64) for name in TEXT) / 2  # type: ignore[return-value]
    means = []
    for index in range(classes):
        d = score_pixels(session, rgb_table, point_table, valid, points, index, rows)
        means.append(sum(float(d[name].mean(dtype=np.float64)) for name in TEXT) / 2)
    return np.array(means)


def _grid(rgb_table: F32) -> int:
    return int(round(np.sqrt(len(rgb_table))))


def _taps(rgb_table: F32, valid: Bool, points: PointInput, rows: NDArray[np.int64] | None) -> tuple[Taps, Taps]:
    """Interpolation of the valid pixels, or of some of them, from both tables."""
    pixels = np.flatnonzero(valid.ravel())
    index, weight = points.interp_index, points.interp_weight
    if rows is not None:
        pixels, index, weight = pixels[rows], index[rows], weight[rows]
    every = bilinear_taps(_grid(rgb_table), valid.shape[0])
    return Taps(every.index[pixels], every.weight[pixels]), Taps(index, weight)


def token_tables(session: Session, rgb_tokens: F32, point_tokens: F32, class_index: int = 0) -> dict[str, F32]:
    """Run ``tokens.onnx``: the tables, and levels where there are any.

    rgb_tokens : (T, D_rgb). point_tokens : (G, D_3d), pooled. class_index : whose features, for a model with
    ``mappers.condition = "class"``; otherwise without effect. The text columns never depend on it.
    """
    inputs: dict[str, NDArray[np.generic]] = {"rgb_tokens": rgb_tokens, "point_tokens": point_tokens}
    if depends_on_class(session):
        inputs["class_index"] = np.array([class_index], dtype=np.int64)
    return session.run(inputs)


def depends_on_class(tokens: Session) -> bool:
    """Whether the tables of this ``tokens.onnx`` are a class's own."""
    return any(i.name == "class_index" for i in tokens.inputs)


def fuse(distances: dict[str, F32], fusion: Fusion, balance: tuple[float, float, float]) -> F32:
    """Eq. 16 over pixels: ``alpha Psi_rgb Psi_3d + beta Psi_text``, each term over its balance.

    ``fusion.combine = "max"`` takes the larger of Psi_rgb and Psi_3d in the place of their product. ``balance`` holds
    the divisors of Psi_rgb, Psi_3d and Psi_text: ones, or their means on held-out good pixels.
    """
    if fusion.combine == "max":
        psi = np.maximum(distances["rgb"] * np.float32(1 / balance[0]), distances["3d"] * np.float32(1 / balance[1]))
        psi = np.float32(fusion.alpha) * psi
    else:
        psi = np.float32(fusion.alpha / (balance[0] * balance[1])) * distances["rgb"] * distances["3d"]
    if fusion.beta > 0 and "text_rgb" in distances:
        psi = psi + np.float32(fusion.beta / balance[2]) * distances["text_rgb"] * distances["text_3d"]
    return np.asarray(psi, dtype=np.float32)

"""The compiled scoring stage: the work of ``score.onnx`` on the CPU, from the same weights.

It reads ``score.npz`` beside the graph and stands in for the graph's session: what has a ``score`` session may hold
either. It is held against the graph and the literal reference in tests/export/test_fast_scoring.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle import Bundle, TensorSpec
from edge_ad.bundle.golden import read_npz
from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32, I64
from edge_ad.parallel import cores
from edge_ad.runtime.backends.base import contiguous
from edge_ad.runtime.jit import LETTERS, ONE_ZERO, one_blas_thread, share
from edge_ad.runtime.score_kernels import score_gacm, score_mlp

HELD = 2**18
"""Hidden units of all pixels of a block, at most: 1 MB, which a second-level cache holds."""
BLOCK = 256
"""Pixels of the smallest block; others are multiples of it, for a product of more rows is the faster."""
STEP = 64
"""Outputs of a triangular layer that are computed by one product."""
TEXT = ("text_rgb", "text_3d")


@dataclass(frozen=True)
class Taps:
    """Interpolation of n pixels: the table rows that a pixel reads, (n, taps) int64, and their weights, float32."""

    index: I64
    weight: F32


@lru_cache(maxsize=4)
def bilinear_taps(grid: int, size: int) -> Taps:
    """The four tokens of every pixel, row-major (``align_corners=False``); the weights sum to 1."""
    position = np.clip((np.arange(size) + 0.5) * grid / size - 0.5, 0, grid - 1)
    low = np.minimum(position.astype(np.int64), grid - 1)
    axis = np.stack([low, np.minimum(low + 1, grid - 1)], axis=1)
    part = np.stack([1 - (position - low), position - low], axis=1)
    index = axis[:, None, :, None] * grid + axis[None, :, None, :]
    weight = part[:, None, :, None] * part[None, :, None, :]
    return Taps(index.reshape(-1, 4), weight.reshape(-1, 4).astype(np.float32))


@dataclass(frozen=True)
class _Mlp:
    """One MLP term: which columns it reads, what is left of its layers, and its target."""

    name: str
    from_rgb: bool  # which table its hidden units come from; the target lies in the other
    first: int
    width: int
    weight: F32
    bias: F32
    middle: F32
    middle_bias: F32
    target: int  # columns of the target, 0 for an anchor
    anchors: F32
    anchor_rest: F32


_NONE = np.empty(0, dtype=np.float32)


class FastScore:
    """A ``score`` session (:class:`edge_ad.runtime.backends.base.Session`) that runs compiled kernels.

    Parameters
    ----------
    arrays : what :func:`edge_ad.export.graphs.score_arrays` makes. where : starts every error.
    inputs, outputs : of the graph that it stands for. threads : None: every processor that this process may use.

    Raises
    ------
    EdgeAdError
        Arrays that are missing or do not fit each other.
    """

    concurrent = True

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        where: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        threads: int | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise EdgeAdError(f"{threads} threads", "at least 1")
        self.inputs, self.outputs, self.threads = inputs, outputs, threads or cores()
        self._where, self._local = where, threading.local()
        one_blas_thread()
        take = partial(_take, arrays, where)
        self.rgb_widths, self.point_widths = (tuple(int(w) for w in take(n)) for n in ("rgb_widths", "point_widths"))
        has_text = "text_rgb.weight" in arrays
        gacm = "gacm.weight" in arrays
        if len(self.rgb_widths) != (5 if gacm else 2) + has_text or len(self.point_widths) != 2 + has_text:
            raise EdgeAdError(f"{where}: column blocks {self.rgb_widths} and {self.point_widths}", "those of its terms")
        d_rgb, d_3d = self.rgb_widths[0], self.point_widths[0]
        self._gacm = (
            (take("gacm.weight", d_3d), take("gacm.bias", d_3d), np.float32(take("gacm.eps"))) if gacm else None
        )
        firsts = np.concatenate([[0], np.cumsum(self.rgb_widths)]), np.concatenate([[0], np.cumsum(self.point_widths)])
        terms = [("rgb", False, 1, d_rgb)]
        terms += [] if gacm else [("3d", True, 1, d_3d)]
        terms += [("text_rgb", True, len(self.rgb_widths) - 1, 0), ("text_3d", False, 2, 0)] if has_text else []
        self._mlps = []
        for name, from_rgb, block, target in terms:
            width = (self.rgb_widths if from_rgb else self.point_widths)[block]
            first = int(firsts[0 if from_rgb else 1][block])
            self._mlps.append(_mlp(arrays, take, name, from_rgb, first, width, target))
        found = {m.name for m in self._mlps} | {"3d"}
        if found != {o.name for o in outputs}:
            raise EdgeAdError(
                f"{where} has the terms {', '.join(sorted(found))}",
                f"{', '.join(sorted(o.name for o in outputs))}, as the graph",
                "run edge-ad export again",
            )

    def score(
        self,
        rgb_table: F32,
        point_table: F32,
        rgb_taps: Taps,
        point_taps: Taps,
        classes: slice = slice(None),
        terms: tuple[str, ...] | None = None,
    ) -> dict[str, F32]:
        """Distances of n pixels to their targets, (n,) float32, and to the anchors ``classes``, (classes, n).

        rgb_table : (T, W_rgb). point_table : (G, W_3d), of ``tokens.onnx``. rgb_taps : four a pixel. point_taps :
        three. terms : only these outputs; None: all.
        """
        for name, table, widths in (("rgb", rgb_table, self.rgb_widths), ("point", point_table, self.point_widths)):
            if table.ndim != 2 or table.shape[1] != sum(widths):
                raise EdgeAdError(f"{self._where}: a {name} table of shape {table.shape}", f"(rows, {sum(widths)})")
        n = len(rgb_taps.index)
        flat = [np.ascontiguousarray(t, dtype=np.float32).ravel() for t in (rgb_table, point_table)]
        at = [
            np.ascontiguousarray(t.index * sum(w), dtype=np.int64)
            for t, w in ((rgb_taps, self.rgb_widths), (point_taps, self.point_widths))
        ]
        weight = [np.ascontiguousarray(t.weight, dtype=np.float32) for t in (rgb_taps, point_taps)]
        out: dict[str, F32] = {}
        ranges = _ranges(n, self.threads)
        tasks: list[Callable[[], None]] = []
        for m in self._mlps:
            if terms is not None and m.name not in terms:
                continue
            out[m.name] = np.empty((1 if m.target else len(m.anchor_rest[classes]), n), dtype=np.float32)
            tasks += [partial(self._run_mlp, m, out[m.name], r, flat, at, weight, classes) for r in ranges]
        if self._gacm is not None and (terms is None or "3d" in terms):
            out["3d"] = np.empty((1, n), dtype=np.float32)
            tasks += [partial(self._run_gacm, out["3d"], r, flat, at, weight) for r in ranges]
        share(tasks, self.threads)
        return {
            name: out[name] if name in TEXT else out[name][0] for name in (o.name for o in self.outputs) if name in out
        }

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The graph's own interface: rows that were interpolated elsewhere."""
        feed = contiguous(self._where, self.inputs, inputs)
        n = len(feed["rgb_rows"])
        taps = []
        for count in (4, 3):
            weight = np.zeros((n, count), dtype=np.float32)
            weight[:, 0] = 1
            taps.append(Taps(np.repeat(np.arange(n)[:, None], count, axis=1), weight))
        which = int(feed["class_index"][0]) if "class_index" in feed else 0
        found = self.score(feed["rgb_rows"], feed["point_rows"], taps[0], taps[1], slice(which, which + 1))
        return {name: d[0] if d.ndim == 2 else d for name, d in found.items()}

    def _run_gacm(self, out: F32, r: range, flat: list[F32], at: list[I64], weight: list[F32]) -> None:
        assert self._gacm is not None
        norm, shift, eps = self._gacm
        row = self._scratch("row", 6 * len(norm))
        score_gacm(
            out, r.start, r.stop, flat[0], at[0], weight[0], flat[1], at[1], weight[1],
            self.rgb_widths[0], len(norm), norm, shift, eps, row,
        )  # fmt: skip

    def _run_mlp(
        self, m: _Mlp, out: F32, r: range, flat: list[F32], at: list[I64], weight: list[F32], classes: slice
    ) -> None:
        a, b = (0, 1) if m.from_rgb else (1, 0)
        rank = len(m.bias)
        block = BLOCK * max(1, HELD // (BLOCK * m.width))
        score_mlp(
            out, r.start, r.stop, block, flat[a], at[a], weight[a], m.first, m.width, m.middle, m.middle_bias,
            m.weight, m.bias, STEP, flat[b], at[b], weight[b], m.target,
            m.anchors[classes].ravel(), m.anchor_rest[classes],
            self._scratch("hidden", (1 + bool(len(m.middle))) * block * m.width), self._scratch("found", block * rank),
            self._scratch("target", max(1, m.target)), self._sizes(), LETTERS, ONE_ZERO,
        )  # fmt: skip

    def _scratch(self, name: str, size: int) -> F32:
        """Memory of the calling thread, kept between frames."""
        held: F32 | None = getattr(self._local, name, None)
        if held is None or len(held) < size:
            held = np.zeros(size, dtype=np.float32)
            setattr(self._local, name, held)
        return held

    def _sizes(self) -> NDArray[np.int32]:
        if not hasattr(self._local, "sizes"):
            self._local.sizes = np.zeros(6, dtype=np.int32)
        sizes: NDArray[np.int32] = self._local.sizes
        return sizes


def _take(arrays: Mapping[str, NDArray[Any]], where: str, name: str, *shape: int) -> NDArray[Any]:
    """One array by name; EdgeAdError when it is absent or, with a shape, of another one."""
    array = arrays.get(name)
    if array is None or (shape and array.shape != shape):
        found = "is missing" if array is None else f"has shape {array.shape}"
        raise EdgeAdError(f"{where}: '{name}' {found}", f"shape {shape}" if shape else "", "run edge-ad export again")
    return np.ascontiguousarray(array) if array.ndim else array


def _mlp(
    arrays: Mapping[str, NDArray[Any]],
    take: Callable[..., NDArray[Any]],
    name: str,
    from_rgb: bool,
    first: int,
    width: int,
    target: int,
) -> _Mlp:
    bias = take(f"{name}.bias")
    rank = len(bias)
    weight = take(f"{name}.weight", rank, width).ravel()
    middle = take(f"{name}.middle", width, width).ravel() if f"{name}.middle" in arrays else _NONE
    middle_bias = take(f"{name}.middle_bias", width) if len(middle) else _NONE
    rest = _NONE if target else take(f"{name}.anchor_rest")
    anchors = np.empty((0, rank), np.float32) if target else take(f"{name}.anchors", len(rest), rank)
    return _Mlp(name, from_rgb, first, width, weight, bias, middle, middle_bias, target, anchors, rest)


def _ranges(n: int, threads: int) -> list[range]:
    """Pixels in about equal shares, whole blocks each, two a thread so that none waits long for another."""
    parts = max(1, min(2 * threads if threads > 1 else 1, -(-n // BLOCK)))
    step = -(-n // (parts * BLOCK)) * BLOCK
    return [range(s, min(s + step, n)) for s in range(0, n, step)] if n else []


def weights_file(bundle: Bundle) -> str:
    """Name of the arrays of the scoring stage within a bundle: beside the graph ``score``."""
    return str(PurePosixPath(bundle.graph("score").file).with_suffix(".npz"))


def fast_score(bundle: Bundle, threads: int | None = None) -> FastScore:
    """The compiled scoring stage of a bundle.

    Raises
    ------
    EdgeAdError
        The bundle does not carry its weights (it was exported by an older version), or they are damaged.
    """
    name = weights_file(bundle)
    if name not in bundle.manifest.files:
        raise EdgeAdError(
            f"{bundle.where} has no {name}", "the weights of the scoring stage", "run edge-ad export again"
        )
    spec = bundle.graph("score")
    return FastScore(read_npz(bundle.path / name), f"{bundle.where}: {name}", spec.inputs, spec.outputs, threads)

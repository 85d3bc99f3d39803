"""What an opened bundle holds: classes, graphs, thresholds, anchors, golden frames, scenes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.golden import GoldenFrame, read_golden, read_npz, with_answers
from edge_ad.bundle.manifest import PRECISIONS, RUN_TIME_PRECISIONS, ClassEntry, GraphSpec, Manifest, Threshold
from edge_ad.bundle.variants import BASE, OperatingPoint, threshold_slot
from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32
from edge_ad.presets import Preset


@dataclass(frozen=True)
class Contents:
    """The parts of a bundle, read from its folder, of one of its variants.

    path : its folder. archive : the ``.tar`` it was unpacked from, if any. variant : whose preset, graphs, scale and
    balance ``manifest`` shows. stride : score stride of the thresholds.
    """

    path: Path
    manifest: Manifest
    archive: Path | None = None
    variant: str = BASE
    stride: int = 1

    @property
    def where(self) -> str:
        """``bundle X``, the start of every error about it."""
        return f"bundle {self.archive or self.path}"

    @property
    def variants(self) -> tuple[str, ...]:
        """``base`` and the other variants that the bundle carries."""
        return (BASE, *self.manifest.variants)

    @property
    def point(self) -> OperatingPoint | None:
        """What ``edge-ad tune`` chose on this box, or None."""
        return self.manifest.point

    @property
    def preset(self) -> Preset:
        """The configuration it was fitted with."""
        return self.manifest.preset

    @property
    def classes(self) -> tuple[ClassEntry, ...]:
        """Classes in the order of the anchors' rows."""
        return self.manifest.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the same order."""
        return tuple(c.name for c in self.manifest.classes)

    @property
    def points_scale_m(self) -> float:
        """Metres by which points are divided before the point encoder (preset ``points.normalize = "fixed"``)."""
        scale = self.manifest.geometry.get("points_scale_m")
        if scale is None or scale <= 0:
            raise EdgeAdError(f"{self.where}: points_scale_m is {scale}", "metres > 0", "run edge-ad export again")
        return scale

    @property
    def balance(self) -> tuple[float, float, float]:
        """Divisors of Psi_rgb, Psi_3d and Psi_text (METHOD section 6), all > 0."""
        given = self.manifest.fusion.get("balance")
        values = given if isinstance(given, list) else []
        plain = all(isinstance(v, (int, float)) and v > 0 for v in values)
        if not plain or len(values) != 3:
            raise EdgeAdError(f"{self.where}: balance is {given}", "three numbers > 0", "run edge-ad export again")
        return float(values[0]), float(values[1]), float(values[2])

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions for which the bundle holds every graph."""
        files, graphs = self.manifest.files, self.manifest.graphs
        others = (
            p for p in PRECISIONS[1:] if graphs and all(_in_precision(g.file, p) in files for g in graphs.values())
        )
        return ("fp32", *others)

    def graph(self, name: str) -> GraphSpec:
        """Tensors and notes of a graph; raises EdgeAdError with the known names."""
        if name not in self.manifest.graphs:
            known = ", ".join(self.manifest.graphs) or "none"
            raise EdgeAdError(f"{self.where} has no graph '{name}'", f"one of {known}", "run edge-ad export again")
        return self.manifest.graphs[name]

    def graph_file(self, name: str, precision: str = "fp32") -> str:
        """A graph's file within the bundle; raises EdgeAdError when it was not exported in this precision."""
        file = self.graph(name).file
        if precision == "fp32" or precision in RUN_TIME_PRECISIONS:
            return file
        if precision not in PRECISIONS:
            raise EdgeAdError(f"unknown precision '{precision}'", f"one of {', '.join(PRECISIONS)}")
        file = _in_precision(file, precision)
        if file not in self.manifest.files:
            raise EdgeAdError(
                f"{self.where} has no {precision} graph '{name}'",
                f"one of its precisions: {', '.join(self.precisions)}",
                f"use --precision {self.precisions[-1]}, or make it where onnx is installed: "
                f"edge-ad calibrate {precision} {self.path}{' --data DIR' if precision == 'int8' else ''}",
            )
        return file

    def precision_file(self, name: str, precision: str) -> str:
        """Where a graph of another precision lies (or would) within the bundle, beside its float32 file."""
        return _in_precision(self.graph(name).file, precision)

    def graph_path(self, name: str, precision: str = "fp32") -> Path:
        """Path of a graph's ONNX file."""
        return self.path / self.graph_file(name, precision)

    def threshold(self, class_name: str, precision: str, variant: str | None = None) -> Threshold | None:
        """The threshold of a class, or None where none was set; raises EdgeAdError for an unknown class.

        ``variant``: slot of the manifest; by default that of this bundle's variant and stride.
        """
        self._known(class_name)
        slot = threshold_slot(self.variant, self.stride) if variant is None else variant
        return self.manifest.thresholds.get(class_name, {}).get(slot, {}).get(precision)

    @cached_property
    def anchors(self) -> F32 | None:
        """(C, D_txt) float32, unit rows, one a class; None where the preset has no text branch."""
        name = "anchors.npz" if self.variant == BASE else f"variants/{self.variant}/anchors.npz"
        if name not in self.manifest.files:
            return None
        anchors = read_npz(self.path / name).get("anchors")
        if anchors is None or anchors.ndim != 2 or len(anchors) != len(self.classes) or anchors.dtype != np.float32:
            found = "no array 'anchors'" if anchors is None else f"{anchors.dtype} {anchors.shape}"
            raise EdgeAdError(f"{self.where}: {name} has {found}", f"float32 ({len(self.classes)}, D_txt)")
        return anchors

    def golden(self) -> list[GoldenFrame]:
        """The golden frames, in the order of their file names."""
        names = sorted(n for n in self.manifest.files if n.startswith("golden/") and n.endswith(".npz"))
        frames = [read_golden(self.path / n) for n in names]
        if self.variant == BASE:
            return frames
        return with_answers(frames, self.path / f"variants/{self.variant}/golden.npz")

    def scene(self, class_name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays of ``scenes/<class>.npz`` (region of interest, expected depth), or None."""
        self._known(class_name)
        name = f"scenes/{class_name}.npz"
        return read_npz(self.path / name) if name in self.manifest.files else None

    def _known(self, class_name: str) -> None:
        if class_name not in self.class_names:
            raise EdgeAdError(
                f"{self.where} does not know the class '{class_name}'", f"one of {', '.join(self.class_names)}"
            )


def _in_precision(file: str, precision: str) -> str:
    """``onnx/rgb.onnx`` -> ``onnx/int8/rgb.onnx``."""
    folder, _, name = file.rpartition("/")
    return f"{folder}/{precision}/{name}"

"""Opening, checking and reading a bundle."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.archive import unpack
from edge_ad.bundle.golden import GoldenFrame, read_golden, read_npz
from edge_ad.bundle.manifest import (
    MANIFEST,
    PRECISIONS,
    ClassEntry,
    GraphSpec,
    Manifest,
    Threshold,
    manifest_from_dict,
    safe_name,
    seal,
)
from edge_ad.errors import EdgeAdError
from edge_ad.files import read_json, sha256, write_json
from edge_ad.frame import F32
from edge_ad.presets import Preset


def _remedy(archive: Path | None, folder: Path) -> str:
    if archive is not None:
        return f"delete the folder {folder}; it is unpacked again from {archive}"
    return "run edge-ad export again"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. ``path`` is its folder; ``archive`` the ``.tar`` it was unpacked from, if any."""

    path: Path
    manifest: Manifest
    archive: Path | None = None

    @staticmethod
    def open(path: str | Path, verify: bool = True) -> Bundle:
        """Open a bundle's folder or its ``.tar``.

        Raises
        ------
        EdgeAdError
            Not a bundle, a manifest that is damaged or from the future, or (``verify``) files that changed.
        """
        given = Path(path)
        if not given.exists():
            raise EdgeAdError(f"bundle {given} does not exist", "a folder or .tar that edge-ad export wrote")
        archive = given if given.is_file() else None
        folder = unpack(given) if archive else given
        if not (folder / MANIFEST).is_file():
            raise EdgeAdError(f"{given} is not a bundle (no {MANIFEST})", "a folder or .tar that edge-ad export wrote")
        manifest = manifest_from_dict(read_json(folder / MANIFEST), f"bundle {given}")
        bundle = Bundle(folder, manifest, archive)
        if verify:
            bundle.verify()
        return bundle

    @property
    def where(self) -> str:
        """``bundle X``, the start of every error about it."""
        return f"bundle {self.archive or self.path}"

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
        others = (p for p in PRECISIONS[1:] if graphs and all(f"onnx/{p}/{g}.onnx" in files for g in graphs))
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
        if precision == "fp32":
            return file
        if precision not in PRECISIONS:
            raise EdgeAdError(f"unknown precision '{precision}'", f"one of {', '.join(PRECISIONS)}")
        file = f"onnx/{precision}/{name}.onnx"
        if file not in self.manifest.files:
            raise EdgeAdError(
                f"{self.where} has no {precision} graph '{name}'",
                f"one of its precisions: {', '.join(self.precisions)}",
                f"use --precision {self.precisions[-1]}",
            )
        return file

    def graph_path(self, name: str, precision: str = "fp32") -> Path:
        """Path of a graph's ONNX file."""
        return self.path / self.graph_file(name, precision)

    def threshold(self, class_name: str, precision: str, variant: str = "base") -> Threshold | None:
        """The threshold of a class, or None where none was set; raises EdgeAdError for an unknown class."""
        self._known(class_name)
        return self.manifest.thresholds.get(class_name, {}).get(variant, {}).get(precision)

    @cached_property
    def anchors(self) -> F32 | None:
        """(C, D_txt) float32, unit rows, one a class; None where the preset has no text branch."""
        if "anchors.npz" not in self.manifest.files:
            return None
        anchors = read_npz(self.path / "anchors.npz").get("anchors")
        if anchors is None or anchors.ndim != 2 or len(anchors) != len(self.classes) or anchors.dtype != np.float32:
            found = "no array 'anchors'" if anchors is None else f"{anchors.dtype} {anchors.shape}"
            raise EdgeAdError(f"{self.where}: anchors.npz has {found}", f"float32 ({len(self.classes)}, D_txt)")
        return anchors

    def golden(self) -> list[GoldenFrame]:
        """The golden frames, in the order of their file names."""
        names = sorted(n for n in self.manifest.files if n.startswith("golden/") and n.endswith(".npz"))
        return [read_golden(self.path / n) for n in names]

    def scene(self, class_name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays of ``scenes/<class>.npz`` (region of interest, expected depth), or None."""
        self._known(class_name)
        name = f"scenes/{class_name}.npz"
        return read_npz(self.path / name) if name in self.manifest.files else None

    def verify(self) -> None:
        """Check that every listed file is there, unchanged, and that nothing else is (engines apart).

        Raises
        ------
        EdgeAdError
            The first file that is missing, changed, a link that leads out of the bundle, or not listed.
        """
        remedy = _remedy(self.archive, self.path)
        root = self.path.resolve()
        values = read_json(self.path / MANIFEST)
        if values.get("digest") != seal(values)["digest"]:
            raise EdgeAdError(
                f"{self.where}: {MANIFEST} does not match its own digest",
                "a manifest that only edge-ad changes",
                f"it was edited or damaged; {remedy}",
            )
        for name, expected in self.manifest.files.items():
            path = self.path / name
            if not path.is_file():
                raise EdgeAdError(f"{self.where}: {name} is missing", "every file of the manifest", remedy)
            if not path.resolve().is_relative_to(root):
                raise EdgeAdError(
                    f"{self.where}: {name} is a link that leads out of the bundle", "a plain file", remedy
                )
            found = sha256(path)
            if found != expected:
                raise EdgeAdError(
                    f"{self.where}: {name} has SHA-256 {found[:12]}...",
                    f"{expected[:12]}...",
                    f"the file was changed after export; {remedy}",
                )
        for name in self._present():
            if name not in self.manifest.files:
                raise EdgeAdError(
                    f"{self.where}: {name} is not in its manifest", "only listed files", f"remove it, or {remedy}"
                )

    def _present(self) -> list[str]:
        """Files in the folder that the manifest must list: not itself, the engines, or what a kill left behind."""
        out = []
        for root, folders, files in os.walk(self.path):
            here = Path(root).relative_to(self.path)
            folders[:] = [f for f in folders if not (here == Path() and f == "engines") and not _leftover(f)]
            out += [(here / f).as_posix() for f in files if not _leftover(f)]
        return sorted(n for n in out if n != MANIFEST)

    def with_thresholds(self, thresholds: Mapping[str, Threshold], precision: str, variant: str = "base") -> Bundle:
        """Set the thresholds of some classes and rewrite the manifest (whole, or not at all).

        Parameters
        ----------
        thresholds : class name -> Threshold.
        precision : the precision whose maps they were set on.
        variant : name of the product variant.

        Raises
        ------
        EdgeAdError
            An unknown class or precision, a value that is not finite, or a bundle inside a ``.tar``.
        """
        self.writable("thresholds cannot be set")
        values = read_json(self.path / MANIFEST)  # afresh: another process may have set other classes meanwhile
        for class_name, threshold in thresholds.items():
            self._known(class_name)
            slot = values["thresholds"].setdefault(class_name, {}).setdefault(safe_name(variant, "variant"), {})
            slot[precision] = dataclasses.asdict(threshold)
        manifest = manifest_from_dict(values, self.where)
        write_json(self.path / MANIFEST, seal(manifest.to_dict()))
        return Bundle(self.path, manifest, self.archive)

    def writable(self, what: str) -> None:
        """Raise EdgeAdError when this bundle was opened from a ``.tar``, whose copy must not drift from it."""
        if self.archive is not None:
            raise EdgeAdError(
                f"{self.where}: {what} in a packed bundle",
                "a bundle folder",
                "unpack it first: tar -xf it in a new folder",
            )

    def _known(self, class_name: str) -> None:
        if class_name not in self.class_names:
            raise EdgeAdError(
                f"{self.where} does not know the class '{class_name}'", f"one of {', '.join(self.class_names)}"
            )


def _leftover(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def open_bundle(path: str | Path, verify: bool = True) -> Bundle:
    """:meth:`Bundle.open` as a function."""
    return Bundle.open(path, verify)

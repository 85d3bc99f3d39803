"""Opening a bundle, seeing it as one of its variants, checking it, and setting what is set on the box."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_ad.bundle.archive import unpack
from edge_ad.bundle.contents import Contents
from edge_ad.bundle.manifest import MANIFEST, Threshold, manifest_from_dict, safe_name, seal
from edge_ad.bundle.variants import BASE, OperatingPoint, check_stride, threshold_slot
from edge_ad.bundle.verify import verify_files
from edge_ad.errors import EdgeAdError
from edge_ad.files import read_json, write_json


@dataclass(frozen=True)
class Bundle(Contents):
    """An opened bundle, seen as one of its variants (:meth:`as_variant`), its thresholds at one score stride."""

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

    def as_variant(self, name: str, stride: int = 1) -> Bundle:
        """The same bundle seen as another of its variants, its thresholds at another score stride.

        Everything that reads a bundle (detector, backends, calibration) then works on that variant.

        Raises
        ------
        EdgeAdError
            A variant that the bundle does not carry, or a stride out of range.
        """
        check_stride(stride)
        if name == self.variant:
            return dataclasses.replace(self, stride=stride)
        if self.variant != BASE:
            whole = Bundle.open(self.path, verify=False)
            return dataclasses.replace(whole, archive=self.archive).as_variant(name, stride)
        if name not in self.manifest.variants:
            raise EdgeAdError(
                f"{self.where} has no variant '{name}'",
                f"one of {', '.join(self.variants)}",
                "fit it with edge-ad fit --variants and export again",
            )
        v = self.manifest.variants[name]
        manifest = dataclasses.replace(
            self.manifest, preset=v.preset, geometry=v.geometry, fusion=v.fusion, graphs=v.graphs
        )
        return dataclasses.replace(self, manifest=manifest, variant=name, stride=stride)

    def verify(self) -> None:
        """Check that every listed file is there, unchanged, and that nothing else is (engines apart).

        Raises
        ------
        EdgeAdError
            The first file that is missing, changed, a link that leads out of the bundle, or not listed.
        """
        verify_files(self)

    def with_thresholds(
        self, thresholds: Mapping[str, Threshold], precision: str, variant: str | None = None
    ) -> Bundle:
        """Set the thresholds of some classes and rewrite the manifest (whole, or not at all).

        Parameters
        ----------
        thresholds : class name -> Threshold.
        precision : the precision whose maps they were set on.
        variant : slot of the manifest; by default that of this bundle's variant and stride.

        Raises
        ------
        EdgeAdError
            An unknown class or precision, a value that is not finite, or a bundle inside a ``.tar``.
        """
        self.writable("thresholds cannot be set")
        values = read_json(self.path / MANIFEST)  # afresh: another process may have set other classes meanwhile
        slot = safe_name(threshold_slot(self.variant, self.stride) if variant is None else variant, "variant")
        for class_name, threshold in thresholds.items():
            self._known(class_name)
            places = values["thresholds"].setdefault(class_name, {}).setdefault(slot, {})
            places[precision] = dataclasses.asdict(threshold)
        return self._rewritten(values)

    def with_point(self, point: OperatingPoint | None) -> Bundle:
        """Write the point that the box was tuned to (None: forget it) into the manifest.

        Raises
        ------
        EdgeAdError
            An unknown variant or precision, or a bundle inside a ``.tar``.
        """
        self.writable("the tuned point cannot be set")
        values = read_json(self.path / MANIFEST)
        values["point"] = None if point is None else point.to_dict()
        return self._rewritten(values)

    def _rewritten(self, values: dict[str, Any]) -> Bundle:
        manifest = manifest_from_dict(values, self.where)
        write_json(self.path / MANIFEST, seal(manifest.to_dict()))
        return Bundle(self.path, manifest, self.archive).as_variant(self.variant, self.stride)

    def writable(self, what: str) -> None:
        """Raise EdgeAdError when this bundle was opened from a ``.tar``, whose copy must not drift from it."""
        if self.archive is not None:
            raise EdgeAdError(
                f"{self.where}: {what} in a packed bundle",
                "a bundle folder",
                "unpack it first: tar -xf it in a new folder",
            )


def open_bundle(path: str | Path, verify: bool = True) -> Bundle:
    """:meth:`Bundle.open` as a function."""
    return Bundle.open(path, verify)

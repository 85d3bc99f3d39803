"""A Result of the device pipeline beside the CPU's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_ad.bundle import Bundle
from edge_ad.frame import Result
from edge_ad.presets import Preset


def assert_same(found: Result, wanted: Result, tolerance: float = 1e-5, masks: bool = True) -> None:
    """Everything that a Result says but its times."""
    assert (found.decision, found.health, found.reasons) == (wanted.decision, wanted.health, wanted.reasons)
    assert (found.class_name, found.flags, found.name, found.sequence) == (
        wanted.class_name, wanted.flags, wanted.name, wanted.sequence,
    )  # fmt: skip
    np.testing.assert_equal(found.threshold, wanted.threshold)
    assert found.lost_share == wanted.lost_share
    if wanted.map is None:
        assert found.map is None
        return
    assert found.score == pytest.approx(wanted.score, rel=tolerance)
    for a, b in ((found.map, wanted.map), (found.sample_map, wanted.sample_map)):
        assert a is not None and b is not None and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=tolerance * float(b.max()))
    for name in ("valid", "lost", *(("mask", "sample_mask") if masks else ())):
        a, b = getattr(found, name), getattr(wanted, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    if not masks:
        return
    assert [(r.box, r.kind, r.area_px, r.extent_mm) for r in found.regions] == [
        (r.box, r.kind, r.area_px, r.extent_mm) for r in wanted.regions
    ]
    for a, b in zip(found.regions, wanted.regions):
        assert a.peak == pytest.approx(b.peak, rel=tolerance, abs=tolerance * float(wanted.map.max()))
        assert a.area_mm2 == pytest.approx(b.area_mm2, rel=1e-9)  # sums of float64 in another order
        assert a.position_mm == (None if b.position_mm is None else pytest.approx(b.position_mm, rel=1e-9, abs=1e-9))


def changed(bundle: Bundle, **tables: dict[str, object]) -> Bundle:
    """The same bundle under a preset with a few fields changed that its graphs do not depend on."""
    preset: Preset = bundle.preset
    for table, fields in tables.items():
        preset = replace(preset, **{table: replace(getattr(preset, table), **fields)})
    return replace(bundle, manifest=replace(bundle.manifest, preset=preset))

"""The same parts by colour alone and by depth alone."""

from __future__ import annotations

import numpy as np
import pytest

from edge_ad.evaluation.ablation import ablation_by_modality, ablation_text
from edge_ad.evaluation.report import Record

VALID = np.ones((4, 4), bool)


def record(name: str, modality: str, score: float, **peaks: float) -> Record:
    maps = {k.replace("_", " "): np.full((4, 4), v, np.float32) for k, v in peaks.items()}
    gt = np.zeros((4, 4), bool)
    defect = modality or "good"
    return Record(name, defect, bool(modality), score, np.zeros((4, 4), np.float32), gt, VALID, 0.1, modality, maps)


def test_each_kind_of_defect_is_held_against_all_good_parts() -> None:
    records = [
        record("nut", "", 0.1, colour_only=0.2, depth_only=0.2),
        record("nut", "", 0.3, colour_only=0.4, depth_only=0.4),
        record("nut", "colour", 0.9, colour_only=0.9, depth_only=0.3),
        record("nut", "depth", 0.2, colour_only=0.1, depth_only=0.9),
        record("cap", "", 0.5, colour_only=0.5, depth_only=0.5),
        record("cap", "colour", 0.4, colour_only=0.6, depth_only=0.1),
    ]
    found = ablation_by_modality(records)
    assert list(found) == ["full", "colour only", "depth only"]
    # colour: nut 1, cap 0; depth: nut alone has such defects, one of its two good parts scores higher.
    assert found["full"] == pytest.approx({"colour": 0.5, "depth": 0.5})
    assert found["colour only"] == pytest.approx({"colour": 1.0, "depth": 0.0})
    assert found["depth only"] == pytest.approx({"colour": 0.25, "depth": 1.0})
    text = ablation_text(found).splitlines()
    assert text[1].split() == ["scored", "by", "colour", "depth"]
    assert text[3].split() == ["colour", "only", "100.0", "0.0"]


def test_a_class_without_good_parts_says_nothing() -> None:
    assert ablation_by_modality([record("nut", "colour", 0.9)]) == {"full": {}}

"""Scoring a data set: the same numbers as the detector's, parts that fail, several parts on one grid."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edge_ad.bundle import Bundle
from edge_ad.data.dataset import Dataset, Item, open_dataset
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.evaluation import runner
from edge_ad.evaluation.runner import defect_modalities, score_items, score_items_at_strides, to_record
from edge_ad.files import write_json
from edge_ad.frame import Bool, Frame, SampleTransform
from edge_ad.runtime import Detector
from edge_ad.runtime.preprocess import nearest_to_sample
from tests.disk import write_parts
from tests.frames import boxes
from tests.training.tiny import tiny_dataset


@pytest.fixture(scope="module")
def bundle(tiny_export: Path) -> Bundle:
    return Bundle.open(tiny_export)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_parts(tmp_path_factory.mktemp("data") / "parts"))


def test_scores_are_the_detectors(bundle: Bundle, parts: Dataset) -> None:
    items = parts.select(split="test")
    detector = Detector(bundle, threads=1, need_threshold=False)
    scored = list(score_items(bundle, items, jobs=1, pictures=True))
    assert [p.item.name for p in scored] == [i.name for i in items]
    for part in scored:
        result = detector(part.item.frame())
        assert (part.score, part.class_name) == (result.score, part.item.class_name)
        assert result.map is not None
        h, w = result.map.shape
        whole = SampleTransform((h - max(h, w)) // 2, (w - max(h, w)) // 2, max(h, w), part.map.shape[0], h, w)
        np.testing.assert_array_equal(part.map, nearest_to_sample(result.map, whole))
        assert part.valid.any() and not part.valid.all()
        assert part.lost_share == pytest.approx(result.lost_share)
        text = {"text_rgb", "text_3d"} if bundle.preset.fusion.beta > 0 else set()
        assert set(part.factors) == {"rgb", "3d"} | text
        for factor in part.factors.values():
            assert (factor[~part.valid] == 0).all() and (factor[part.valid] > 0).all()
        assert part.gt is not None and part.gt.any() == (part.item.defect != "good")
        assert part.colour is not None and part.colour.shape == (64, 64, 3) and part.colour.dtype == np.uint8
        assert part.depth is not None and part.depth.max() < 0.5


def test_several_processes_give_the_same(bundle: Bundle, parts: Dataset) -> None:
    items = parts.select(split="test")[:3]
    one, two = (list(score_items(bundle, items, jobs=j)) for j in (1, 2))
    assert [p.score for p in one] == [p.score for p in two]
    assert all(p.colour is None for p in two)


def broken() -> Frame:
    raise InvalidFrame("x.png is cut short")


def broken_truth() -> Bool | None:
    raise InvalidFrame("gt.png is cut short")


def test_a_part_that_cannot_be_read_or_scored_is_told_and_the_rest_goes_on(bundle: Bundle) -> None:
    items = tiny_dataset({"cookie": (0, 4)}, broken=1).items
    items = (items[0], replace(items[1], read_frame=broken), replace(items[2], read_truth=broken_truth), items[3])
    scored = list(score_items(bundle, items, jobs=1))
    assert "no part stands above" in scored[0].error
    assert [p.error for p in scored[1:]] == ["x.png is cut short", "gt.png is cut short", ""]
    assert np.isnan(scored[0].score) and not np.isnan(scored[3].score)


def test_the_class(bundle: Bundle) -> None:
    items = tiny_dataset({"cookie": (0, 1)}).items
    assert next(score_items(bundle, items, class_name="hex_nut", jobs=1)).class_name == "hex_nut"
    assert next(score_items(bundle, items, class_name="auto", jobs=1)).class_name in bundle.class_names
    assert next(score_items(bundle, items, jobs=1)).class_name == "cookie"
    with pytest.raises(EdgeAdError, match="unknown class 'gear'; expected one of hex_nut, cookie, or auto"):
        score_items(bundle, items, class_name="gear", jobs=1)


def no_truth() -> Bool | None:
    return None


def test_several_parts_lie_on_the_whole_images_grid(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = boxes(60, 72, (10, 34, 6, 30), (20, 46, 42, 66))
    truth = np.zeros((60, 72), bool)
    truth[24:30, 50:56] = True
    item = Item("a", "hex_nut", "test", "dent", Path("a.png"), partial(lambda f: f, frame), lambda: truth)
    scorer = runner._Scorer(bundle, "onnxruntime", "fp32", None, False)
    scorer.detector = Detector(bundle, threads=1, need_threshold=False)
    scorer.detector.preprocess.geometry = replace(bundle.preset.geometry, crop="part")
    part = scorer(item)
    assert part.gt is not None and part.map.shape == (64, 64)
    y, x = np.argwhere(part.gt).mean(axis=0)
    assert (y, x) == pytest.approx(((26.5 + 6.5) * 64 / 72 - 0.5, 53 * 64 / 72 - 0.5), abs=0.6)
    assert part.valid[round(y), round(x)] and part.map[round(y), round(x)] > 0
    assert not part.valid[:, 32].any()


def test_records(bundle: Bundle, parts: Dataset, tmp_path: Path) -> None:
    scored = list(score_items(bundle, parts.select("cookie", "test"), jobs=1))
    records = [to_record(p, {"dent": "both"}) for p in scored]
    assert [r.is_defective for r in records] == [p.item.defect != "good" for p in scored]
    for part, record in zip(scored, records, strict=True):
        assert record.modality == ("both" if record.is_defective else "")
        if record.is_defective:
            assert part.gt is not None
            assert record.area_share == pytest.approx(part.gt.sum() / (part.valid | part.gt).sum())
        else:
            assert record.area_share == 0
    entries = [{"defect": None}, {"defect": {"kind": "dent", "modality": "depth"}}]
    write_json(tmp_path / "parts.json", {"items": entries})
    assert defect_modalities(replace(parts, root=tmp_path)) == {"dent": "depth"}
    (tmp_path / "parts.json").write_text("[")
    assert defect_modalities(replace(parts, root=tmp_path)) == {} == defect_modalities(parts)


def test_strides_share_one_encoding_and_score_as_each_stride_alone(
    bundle: Bundle, parts: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = parts.select("cookie", "test")[:3]
    encoded = []
    encode = Detector.encode_part
    monkeypatch.setattr(Detector, "encode_part", lambda *a: encoded.append(1) or encode(*a))
    together = list(score_items_at_strides(bundle, items, (1, 3), jobs=1))
    assert len(encoded) == len(items)
    for i, stride in enumerate((1, 3)):
        alone = list(score_items(bundle.as_variant("base", stride), items, jobs=1))
        for one, other in zip((t[i] for t in together), alone, strict=True):
            assert (one.score, one.anchor_distance, one.item.name) == (
                other.score,
                other.anchor_distance,
                other.item.name,
            )
            np.testing.assert_array_equal(one.map, other.map)
            np.testing.assert_array_equal(one.valid, other.valid)
            assert one.factors == {}
    assert any((one.map != three.map).any() for one, three in together)
    bare = list(score_items_at_strides(bundle, items, (1, 3), maps=False, jobs=2))
    assert [p.score for t in bare for p in t] == [p.score for t in together for p in t]
    assert all(p.map.size == 0 for t in bare for p in t)


def test_a_part_that_fails_fails_at_every_stride(bundle: Bundle) -> None:
    def broken() -> Frame:
        raise InvalidFrame("no depth", "some")

    item = Item("a", "cookie", "test", "dent", Path("a.png"), broken, no_truth)
    (found,) = score_items_at_strides(bundle, [item], (1, 2), jobs=1)
    assert len(found) == 2 and all("no depth" in p.error and np.isnan(p.score) for p in found)

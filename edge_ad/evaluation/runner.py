"""Score the parts of a data set with a bundle, on the runtime's own path, in several processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_ad.bundle import Bundle
from edge_ad.data.dataset import Dataset, Item
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.evaluation.recall import area_share
from edge_ad.evaluation.report import Record
from edge_ad.frame import F32, U8, Bool, Frame, SampleTransform
from edge_ad.parallel import run_parallel
from edge_ad.presets import Preset
from edge_ad.runtime.detector import AUTO, Detector, Scored, Stopwatch
from edge_ad.runtime.maps import map_to_camera, mask_to_camera
from edge_ad.runtime.preprocess import Preprocessed, mask_to_sample, nearest_to_sample, resize_colour


@dataclass(frozen=True)
class ScoredPart:
    """One part of a data set after the networks; arrays on the sample grid (S, S).

    map : float32, smoothed. factors : unsmoothed maps of the distances, by name. gt : the drawn defect, or None.
    valid : scored pixels. lost_share : share of the part without the depth it should have. colour : (S, S, 3) uint8,
    depth : (S, S) float32 metres, both only where pictures were asked for. error : why it could not be scored, else "".
    """

    item: Item
    class_name: str
    score: float
    map: F32
    factors: dict[str, F32]
    gt: Bool | None
    valid: Bool
    lost_share: float
    anchor_distance: float
    colour: U8 | None = None
    depth: F32 | None = None
    error: str = ""


class _Scorer:
    """Picklable worker: opens the bundle once a process."""

    def __init__(
        self,
        bundle: Bundle,
        backend: str,
        precision: str,
        class_name: str | None,
        pictures: bool,
        every_term: bool = False,
    ) -> None:
        self.every_term = every_term
        self.args = (bundle.path, backend, precision, class_name, pictures)
        self.view = (bundle.variant, bundle.stride)
        self.detector: Detector | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "detector": None}

    def __call__(self, item: Item) -> ScoredPart:
        return self.at_strides(item, (self.view[1],))[0]

    def at_strides(self, item: Item, strides: Sequence[int]) -> list[ScoredPart]:
        """The part at each score stride; only the last stages run more than once."""
        path, backend, precision, class_name, pictures = self.args
        if self.detector is None:
            bundle = Bundle.open(path, verify=False).as_variant(*self.view)
            self.detector = Detector(bundle, backend, precision, 1, class_name, need_threshold=False)
            self.detector.every_term = self.every_term
        detector = self.detector
        size = detector.preset.geometry.size
        try:
            frame = item.frame()
            name = class_name or (
                item.class_name if item.class_name in detector.classes else detector.choose_class(frame)
            )
            prepared = detector.preprocess(frame, item.class_name if name == AUTO else name)
            watch = Stopwatch()
            encoded = [detector.encode_part(detector.prepare_part(s, watch), watch, name) for s in prepared.samples]
            truth = item.ground_truth()
        except InvalidFrame as e:
            empty = np.zeros((size, size), np.float32)
            failed = ScoredPart(
                item, item.class_name, float("nan"), empty, {}, None, empty > 0, 1.0, float("nan"), error=str(e)
            )
            return [failed] * len(strides)
        found = []
        for stride in strides:
            scored = [detector.score_part(e, name, watch, stride) for e in encoded]
            found.append(scored_part(item, detector.preset, prepared, scored, truth, frame, pictures))
        return found


class _StrideScorer(_Scorer):
    """The same at several score strides, without the maps of the factors: what a choice between points needs."""

    def __init__(self, bundle: Bundle, backend: str, precision: str, strides: Sequence[int], maps: bool) -> None:
        super().__init__(bundle, backend, precision, None, False)
        self.strides, self.maps = tuple(strides), maps

    def __call__(self, item: Item) -> list[ScoredPart]:  # type: ignore[override]
        first, *_ = found = self.at_strides(item, self.strides)
        none = np.zeros((0, 0), np.float32)
        # Truth and mask are those of the sample, whatever the stride: one array each, in one message.
        return [replace(p, map=p.map if self.maps else none, factors={}, gt=first.gt, valid=first.valid) for p in found]


def scored_part(
    item: Item,
    preset: Preset,
    prepared: Preprocessed,
    scored: Sequence[Scored],
    truth: Bool | None,
    frame: Frame,
    pictures: bool = False,
) -> ScoredPart:
    """What the evaluation keeps of one frame: the scores of its samples (in their order), all maps on one grid."""
    size = preset.geometry.size
    whole = preset.geometry.crop == "part" or len(scored) > 1
    t, anomaly, factors, valid, lost = _on_one_grid(prepared, scored, frame.shape, size, whole)
    worst = max(scored, key=lambda s: s.score)
    return ScoredPart(
        item,
        worst.class_name,
        worst.score,
        anomaly,
        factors,
        None if truth is None else mask_to_sample(truth, t),
        valid,
        float(lost.sum() / max(1, (lost | valid).sum())),
        worst.anchor_distance,
        resize_colour(frame.colour, t) if pictures else None,
        np.asarray(nearest_to_sample(prepared.xyz[..., 2], t), np.float32) if pictures else None,
    )


def _on_one_grid(
    prepared: Preprocessed, scored: Sequence[Scored], shape: tuple[int, int], size: int, whole: bool
) -> tuple[SampleTransform, F32, dict[str, F32], Bool, Bool]:
    """The maps of one frame on one grid: the sample's own, or that of the whole image.

    Where a window follows the part, the whole image is the grid: published figures count its background as normal
    pixels too, and AUPRO depends on how many of those there are.
    """

    def spread(sample_valid: Bool, values: F32) -> F32:
        flat = np.zeros(sample_valid.shape, np.float32)
        flat[sample_valid] = values
        return flat

    if not whole:
        s = prepared.samples[0]
        return (
            s.transform,
            scored[0].map,
            {k: spread(s.valid, v) for k, v in scored[0].distances.items()},
            s.valid,
            s.lost,
        )
    side = max(shape)
    t = SampleTransform((shape[0] - side) // 2, (shape[1] - side) // 2, side, size, *shape)
    maps: dict[str, F32] = {}
    valid, lost = np.zeros(shape, bool), np.zeros(shape, bool)
    for sample, part in zip(prepared.samples, scored, strict=True):
        layers = {"": part.map} | {k: spread(sample.valid, v) for k, v in part.distances.items()}
        for k, v in layers.items():
            maps[k] = np.maximum(maps.get(k, np.zeros(shape, np.float32)), map_to_camera(v, sample.transform))
        valid |= mask_to_camera(sample.valid, sample.transform)
        lost |= mask_to_camera(sample.lost, sample.transform)
    small = {k: np.asarray(nearest_to_sample(v, t), np.float32) for k, v in maps.items()}
    anomaly = small.pop("")
    scored_pixels = mask_to_sample(valid, t)
    factors = {k: np.where(scored_pixels, v, np.float32(0)) for k, v in small.items()}
    return t, anomaly, factors, scored_pixels, mask_to_sample(lost, t)


def score_items(
    bundle: Bundle,
    items: Sequence[Item],
    *,
    backend: str = "onnxruntime",
    precision: str = "fp32",
    class_name: str | None = None,
    pictures: bool = False,
    every_term: bool = False,
    jobs: int = 0,
    track: Callable[[Iterable[ScoredPart], int, str], Iterable[ScoredPart]] | None = None,
) -> Iterator[ScoredPart]:
    """Score ``items`` in order, with the variant and at the score stride that ``bundle`` shows.

    Parameters
    ----------
    class_name : the class of every part, ``auto``, or None for the data set's own label. pictures : keep colour and
    depth. every_term : the text terms among ``factors`` even where they have no weight. jobs : processes, 0: one a
    core. track : wraps the iterator to show progress.
    """
    if class_name is not None and class_name != AUTO and class_name not in bundle.class_names:
        raise EdgeAdError(f"unknown class '{class_name}'", f"one of {', '.join(bundle.class_names)}, or {AUTO}")
    worker = _Scorer(bundle, backend, precision, class_name, pictures, every_term)
    parts: Iterable[ScoredPart] = run_parallel(worker, items, processes=jobs)
    return iter(track(parts, len(items), "score") if track else parts)


def score_items_at_strides(
    bundle: Bundle,
    items: Sequence[Item],
    strides: Sequence[int],
    *,
    backend: str = "onnxruntime",
    precision: str = "fp32",
    maps: bool = True,
    jobs: int = 0,
    track: Callable[[Iterable[list[ScoredPart]], int, str], Iterable[list[ScoredPart]]] | None = None,
) -> Iterator[list[ScoredPart]]:
    """Score ``items`` in order at each of ``strides``: an item is read, prepared and encoded once.

    The parts equal those of :func:`score_items` with the bundle's view at that stride, but for ``factors``, which is
    empty. ``maps``: False leaves ``map`` empty too, where the score is all that counts. Other arguments as there.
    """
    worker = _StrideScorer(bundle, backend, precision, strides, maps)
    parts: Iterable[list[ScoredPart]] = run_parallel(worker, items, processes=jobs)
    return iter(track(parts, len(items), "score") if track else parts)


def to_record(
    part: ScoredPart, kinds: Mapping[str, str] | None = None, extra: Mapping[str, F32] | None = None
) -> Record:
    """A test part as a row of the evaluation; ``kinds``: defect -> where it shows ("colour", "depth", "both")."""
    defective = part.item.defect != "good"
    share = 0.0
    if defective and part.gt is not None:
        share = area_share(part.gt, part.valid | part.gt)
    return Record(
        class_name=part.item.class_name,
        defect=part.item.defect,
        is_defective=defective,
        score=part.score,
        map=part.map,
        gt=part.gt,
        valid=part.valid,
        area_share=share,
        modality=(kinds or {}).get(part.item.defect, "") if defective else "",
        other_maps=extra or {},
        name=part.item.name,
    )


def defect_modalities(data: Dataset) -> dict[str, str]:
    """Where each kind of defect shows, from the ``parts.json`` of synthetic parts; empty for other data."""
    path = data.root / "parts.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["items"]
        return {e["defect"]["kind"]: e["defect"]["modality"] for e in entries if e["defect"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}

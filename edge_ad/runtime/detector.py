"""The runtime detector: ``detector(frame) -> Result``, on any backend, without torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_ad.bundle import Bundle
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import F32, Bool, Frame, Region, Result, Sample
from edge_ad.runtime.backends import load_session
from edge_ad.runtime.maps import drop_small, find_regions, image_score, map_to_camera, mask_to_camera, smooth
from edge_ad.runtime.point_input import prepare_points
from edge_ad.runtime.preprocess import CUT_OFF, Preprocessed, Preprocessor, Scene
from edge_ad.runtime.scoring import fuse, score_pixels

AUTO = "auto"
AUTO_PIXELS = 1024
"""Pixels (evenly spaced over the valid ones) on which ``auto`` compares the classes' anchors."""


@dataclass(frozen=True)
class Scored:
    """One sample after the networks.

    map : (S, S) float32, smoothed. distances : (n_valid,) float32 a factor. anchor_distance : mean distance of the
    sample's features to the class's anchor (NaN without text).
    """

    class_name: str
    map: F32
    score: float
    distances: dict[str, F32]
    anchor_distance: float


@dataclass(frozen=True)
class Limits:
    """Decision limits of one class: NaN means that it was never set."""

    score: float = float("nan")
    mask: float = float("nan")
    lost_share: float = float("nan")
    anchor_distance: float = float("nan")


class Stopwatch:
    """Adds up milliseconds a stage."""

    def __init__(self) -> None:
        self.times_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.times_ms[name] = self.times_ms.get(name, 0.0) + (time.perf_counter() - start) * 1e3


class Detector:
    """Inspects frames with the model in a bundle.

    Parameters
    ----------
    bundle : an open bundle. backend, precision : which sessions run it. threads : of the backend; None: all cores.
    class_name : the class of every part, or ``auto``. None: the frame's own class where the source knows it, the only
        class of the bundle, else ``auto``.
    need_threshold : refuse a class whose threshold was never set (calibration itself runs without).
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: str = "onnxruntime",
        precision: str = "fp32",
        threads: int | None = None,
        class_name: str | None = None,
        need_threshold: bool = True,
    ) -> None:
        self.bundle, self.preset = bundle, bundle.preset
        self.precision, self.class_name, self.need_threshold = precision, class_name, need_threshold
        self.classes = tuple(bundle.class_names)
        if class_name is not None and class_name != AUTO:
            self._check_class(class_name)
        bundle.graph_file("rgb", precision)  # a precision that the bundle lacks is said before its thresholds are
        self.limits = {c: _limits(bundle, c, precision) for c in self.classes}
        if need_threshold:
            without = [c for c in self.classes if np.isnan(self.limits[c].score)]
            wanted = [c for c in without if class_name in (None, AUTO, c)]
            if wanted:
                raise EdgeAdError(
                    f"{bundle.path}: no threshold for class {', '.join(wanted)} at {precision}",
                    "one for every class that is to be inspected",
                    f"run: edge-ad calibrate thresholds {bundle.path} --data DIR",
                )
        self.sessions = {
            graph: load_session(bundle, graph, backend, precision, threads)
            for graph in ("rgb", "points", "tokens", "score")
        }
        scenes = {c: _scene(bundle, c) for c in self.classes}
        self.preprocess = Preprocessor(self.preset.geometry, self.preset.rgb.mean, self.preset.rgb.std, scenes)
        self.has_text = any(o.name == "text_rgb" for o in self.sessions["score"].outputs)

    def _check_class(self, name: str) -> None:
        if name not in self.classes:
            raise EdgeAdError(f"unknown class '{name}'", f"one of {', '.join(self.classes)}, or {AUTO}")

    def choose_class(self, frame: Frame) -> str:
        """The class that a frame is inspected as, or ``auto``."""
        if self.class_name is not None:
            return self.class_name
        if frame.class_name in self.classes:
            return str(frame.class_name)
        return self.classes[0] if len(self.classes) == 1 else AUTO

    def score_sample(self, sample: Sample, class_name: str = AUTO, watch: Stopwatch | None = None) -> Scored:
        """Run the networks on one sample.

        Raises
        ------
        InvalidFrame
            Fewer valid pixels than the preset's ``limits.min_valid`` or than one group holds.
        EdgeAdError
            An unknown class, or ``auto`` where several classes have no text anchors to tell them apart.
        """
        if class_name == AUTO and not self.has_text:
            if len(self.classes) > 1:
                raise EdgeAdError(
                    "the class 'auto' needs text anchors, and this model has none",
                    f"one of {', '.join(self.classes)}",
                    "name it with --class",
                )
            class_name = self.classes[0]
        watch = watch or Stopwatch()
        count = int(sample.valid.sum())
        if count < self.preset.limits.min_valid:
            raise InvalidFrame(f"only {count} valid pixels", f"at least {self.preset.limits.min_valid}")
        with watch.stage("points"):
            points = prepare_points(sample, self.preset.points, self.bundle.points_scale_m)
        with watch.stage("rgb encoder"):
            rgb = self.sessions["rgb"].run({"image": sample.rgb[None]})["rgb_tokens"]
        with watch.stage("point encoder"):
            tokens = self.sessions["points"].run({"groups": points.groups[None], "centers": points.centers[None]})
        with watch.stage("tokens"):
            pooled = points.pooled(tokens["point_tokens"])
            tables = self.sessions["tokens"].run({"rgb_tokens": rgb, "point_tokens": pooled})
        args = (self.sessions["score"], tables["rgb_table"], tables["point_table"], sample.valid, points)
        with watch.stage("score"):
            if class_name == AUTO:
                some = np.unique(np.linspace(0, count - 1, min(count, AUTO_PIXELS)).round().astype(np.int64))
                near = [_anchor_distance(score_pixels(*args, i, rows=some)) for i in range(len(self.classes))]
                class_name = self.classes[int(np.argmin(near))]
            self._check_class(class_name)
            distances = score_pixels(*args, self.classes.index(class_name))
            f = self.preset.fusion
            flat = np.zeros(sample.valid.shape, dtype=np.float32)
            flat[sample.valid] = fuse(distances, f.alpha, f.beta, self.bundle.balance)
        with watch.stage("map"):
            smoothed = smooth(flat, f, sample.valid)
            score = image_score(smoothed, f)
        return Scored(class_name, smoothed, score, distances, _anchor_distance(distances))

    def __call__(self, frame: Frame) -> Result:
        """Inspect one frame. A frame that cannot be inspected gives ``decision: invalid`` with the reason."""
        start = time.perf_counter()
        watch = Stopwatch()
        name = self.choose_class(frame)
        try:
            with watch.stage("geometry"):
                prepared = self.preprocess(frame, name)
        except InvalidFrame as e:
            return self._invalid(frame, name, (str(e),), watch, start)
        # A part that cannot be scored must not hide a defect of the part beside it.
        pairs: list[tuple[Sample, Scored]] = []
        reasons: list[str] = []
        for sample in prepared.samples:
            try:
                pairs.append((sample, self.score_sample(sample, name, watch)))
            except InvalidFrame as e:
                reasons.append(str(e))
        if not pairs:
            return self._invalid(frame, name, tuple(reasons), watch, start)
        with watch.stage("result"):
            result = self._result(frame, prepared, pairs, reasons, auto=name == AUTO)
        return replace(result, times_ms=watch.times_ms | {"total": (time.perf_counter() - start) * 1e3})

    def _invalid(self, frame: Frame, name: str, reasons: tuple[str, ...], watch: Stopwatch, start: float) -> Result:
        return Result(
            "invalid",
            "ok",
            reasons,
            "" if name == AUTO else name,
            float("nan"),
            float("nan"),
            times_ms=watch.times_ms | {"total": (time.perf_counter() - start) * 1e3},
            flags=frame.flags,
            name=frame.name,
            sequence=frame.sequence,
            source=frame.source,
        )

    def _result(
        self,
        frame: Frame,
        prepared: Preprocessed,
        pairs: list[tuple[Sample, Scored]],
        reasons: list[str],
        auto: bool,
    ) -> Result:
        shape = frame.shape
        camera_map, camera_mask, camera_lost = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
        scored = [part for _, part in pairs]
        masks: list[Bool] = []
        shares: list[float] = []
        anomalous = False
        for sample, part in pairs:
            limits = self.limits[part.class_name]
            above = (part.map > limits.mask) & _near(sample.valid)
            mask = drop_small(above, self.preset.fusion.min_region_px)
            if part.score > limits.score:
                anomalous = True
                # An anomalous part always shows where, even if all its regions are small.
                mask = mask if mask.any() else above
            masks.append(mask)
            camera_map = np.maximum(camera_map, map_to_camera(part.map, sample.transform))
            camera_mask |= mask_to_camera(mask, sample.transform)
            camera_lost |= mask_to_camera(sample.lost, sample.transform)
            shares.append(float(sample.lost.sum() / max(1, (sample.lost | sample.valid).sum())))
            limit = self.preset.limits.lost_share if np.isnan(limits.lost_share) else limits.lost_share
            if shares[-1] > limit:
                reasons.append(f"lost depth on {shares[-1]:.1%} of the part (limit {limit:.1%})")
            if np.isnan(limits.score):
                reasons.append(f"no threshold for class {part.class_name}")
            if CUT_OFF in sample.notes:
                reasons.append(CUT_OFF)
            if part.anchor_distance > limits.anchor_distance:  # False for NaN: a limit that was never set
                nearest = f"every known class (nearest: {part.class_name})"
                reasons.append(f"unlike {nearest if auto else f'the good parts of class {part.class_name}'}")
        worst = int(np.argmax([p.score / max(self.limits[p.class_name].score, 1e-12) for p in scored]))
        limits = self.limits[scored[worst].class_name]
        camera_lost = drop_small(camera_lost, 25)
        regions: tuple[Region, ...] = find_regions(camera_mask, camera_map, prepared.xyz)
        regions += find_regions(camera_lost, camera_map, prepared.xyz, kind="lost-depth")
        return Result(
            decision="anomalous" if anomalous else "invalid" if reasons else "normal",
            health="ok",
            reasons=tuple(reasons),
            class_name=scored[worst].class_name,
            score=scored[worst].score,
            threshold=limits.score,
            lost_share=max(shares),
            map=camera_map,
            mask=camera_mask,
            sample_map=scored[worst].map,
            sample_mask=masks[worst],
            valid=pairs[worst][0].valid,
            lost=camera_lost,
            regions=regions,
            flags=frame.flags + prepared.notes,
            name=frame.name,
            sequence=frame.sequence,
            source=frame.source,
        )


def _near(valid: Bool) -> Bool:
    """Valid pixels and a rim of 3: smoothing carries the map a little beyond the part, where nothing was scored."""
    import cv2

    return cv2.dilate(valid.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0


def _anchor_distance(distances: dict[str, F32]) -> float:
    if "text_rgb" not in distances:
        return float("nan")
    return float((distances["text_rgb"].mean(dtype=np.float64) + distances["text_3d"].mean(dtype=np.float64)) / 2)


def _scene(bundle: Bundle, class_name: str) -> Scene:
    arrays = bundle.scene(class_name) or {}
    return Scene(arrays.get("roi"), arrays.get("expected_depth"))


def _limits(bundle: Bundle, class_name: str, precision: str) -> Limits:
    entry = bundle.threshold(class_name, precision)
    if entry is None:
        return Limits()
    lost, anchor = (float("nan") if v is None else v for v in (entry.lost_share, entry.anchor_distance))
    return Limits(entry.value, entry.mask_value, lost, anchor)


def load_detector(
    bundle: str | Path | Bundle,
    backend: str = "onnxruntime",
    precision: str = "fp32",
    *,
    threads: int | None = None,
    class_name: str | None = None,
) -> Detector:
    """Open a bundle (its hashes are checked) and make it ready to inspect frames.

    Raises
    ------
    EdgeAdError
        The bundle is damaged or from a newer version, the backend is missing, or a class has no threshold.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(Path(bundle))
    return Detector(opened, backend, precision, threads, class_name)

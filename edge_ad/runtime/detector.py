"""The runtime detector: ``detector(frame) -> Result``, on any backend, without torch.

It is the composition of four stages, which a pipeline may run on different threads for different frames:
``prepare`` (geometry, point operations), ``encode`` (the encoders and the token-side products), ``score`` (distances,
map, score) and ``finish`` (mask, regions, decision).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle import Bundle
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import F32, Frame, Result, Sample, degraded
from edge_ad.parallel import cores
from edge_ad.runtime.backends import Session, load_session
from edge_ad.runtime.finish import AUTO, build_result, invalid_result
from edge_ad.runtime.limits import Limits, calibrate_options, describe, read_limits
from edge_ad.runtime.maps import image_score, smooth
from edge_ad.runtime.point_input import prepare_points
from edge_ad.runtime.preprocess import Preprocessor, Scene
from edge_ad.runtime.resident import settle
from edge_ad.runtime.scene_check import SceneSetup
from edge_ad.runtime.scoring import (
    class_distances,
    depends_on_class,
    fuse,
    levels_of,
    load_score,
    score_pixels,
    token_tables,
)
from edge_ad.runtime.stages import Encoded, EncodedPart, Prepared, PreparedPart, Scored, ScoredFrame, Stopwatch
from edge_ad.runtime.stride import StridePlan

__all__ = ["AUTO", "AUTO_PIXELS", "Detector", "Limits", "Scored", "Stopwatch"]

AUTO_PIXELS = 1024
"""Pixels (evenly spaced over the valid ones) on which ``auto`` compares the classes' anchors."""


class Detector:
    """Inspects frames with the model in a bundle.

    Parameters
    ----------
    bundle : an open bundle; its variant and score stride are the detector's. backend, precision : which sessions run
        it. threads : of the backend; None: all cores.
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
        self.limits = {c: read_limits(bundle, c, precision) for c in self.classes}
        if need_threshold:
            without = [c for c in self.classes if np.isnan(self.limits[c].score)]
            wanted = [c for c in without if class_name in (None, AUTO, c)]
            if wanted:
                raise EdgeAdError(
                    f"{bundle.path}: no threshold for class {', '.join(wanted)} at {describe(bundle, precision)}",
                    "one for every class that is to be inspected",
                    f"run: edge-ad calibrate thresholds {bundle.path} --data DIR{calibrate_options(bundle, precision)}",
                )
        self.threads = threads or cores()
        self.sessions = self._load_sessions(backend, precision, threads)
        scenes = {c: scene_of(bundle, c) for c in self.classes}
        self.preprocess = Preprocessor(self.preset.geometry, self.preset.rgb.mean, self.preset.rgb.std, scenes)
        self.has_text = any(o.name == "text_rgb" for o in self.sessions["score"].outputs)
        self.every_term = False  # the text terms of every pixel even where beta = 0: for an ablation

    def _load_sessions(self, backend: str, precision: str, threads: int | None) -> dict[str, Session]:
        sessions = {g: load_session(self.bundle, g, backend, precision, threads) for g in ("rgb", "points", "tokens")}
        return sessions | {"score": load_score(self.bundle, backend, precision, threads)}

    def _check_class(self, name: str) -> None:
        if name not in self.classes:
            raise EdgeAdError(f"unknown class '{name}'", f"one of {', '.join(self.classes)}, or {AUTO}")

    @property
    def concurrent(self) -> bool:
        """Whether the stages may run on several threads at once (TensorRT's sessions take one caller at a time)."""
        return all(getattr(s, "concurrent", False) for s in self.sessions.values())

    def choose_class(self, frame: Frame) -> str:
        """The class that a frame is inspected as, or ``auto``."""
        if self.class_name is not None:
            return self.class_name
        if frame.class_name in self.classes:
            return str(frame.class_name)
        return self.classes[0] if len(self.classes) == 1 else AUTO

    # The four stages of a frame.

    def prepare(self, frame: Frame) -> Prepared:
        """Cut the frame's parts and do their point operations. A part that cannot be scored leaves its reason."""
        watch = Stopwatch()
        name = self.choose_class(frame)
        try:
            with watch.stage("geometry"):
                cut = self.preprocess(frame, name)
        except InvalidFrame as e:
            return Prepared(frame, name, None, (), (str(e),), watch)
        # A part that cannot be scored must not hide a defect of the part beside it.
        parts: list[PreparedPart] = []
        reasons: list[str] = []
        for sample in cut.samples:
            try:
                parts.append(self.prepare_part(sample, watch))
            except InvalidFrame as e:
                reasons.append(str(e))
        return Prepared(frame, name, cut, tuple(parts), tuple(reasons), watch)

    def encode(self, prepared: Prepared) -> Encoded:
        """Run the encoders and the token-side products on every part."""
        name = prepared.class_name
        return Encoded(prepared, tuple(self.encode_part(p, prepared.watch, name) for p in prepared.parts))

    def score(self, encoded: Encoded) -> ScoredFrame:
        """Distances, map and score of every part."""
        name, watch = encoded.prepared.class_name, encoded.prepared.watch
        scored = tuple((e.part.sample, self.score_part(e, name, watch)) for e in encoded.parts)
        return ScoredFrame(encoded.prepared, scored)

    def finish(self, scored: ScoredFrame) -> Result:
        """Mask, regions and decision. Without a part: ``decision: invalid`` with the reasons."""
        prepared = scored.prepared
        if not scored.parts:
            result = invalid_result(prepared.frame, prepared.class_name, prepared.reasons)
        else:
            with prepared.watch.stage("result"):
                result = self.judge(scored)
            settle()  # once a process: whatever a frame needs is loaded now
        # What the camera's watchdog and the scene's check say: never normal then (DESIGN, "What a result says").
        doubts = prepared.frame.health + (() if prepared.cut is None else prepared.cut.health)
        return replace(degraded(result, doubts), times_ms=prepared.watch.total())

    def judge(self, scored: ScoredFrame) -> Result:
        """Mask, regions and decision of a frame with at least one part."""
        return build_result(scored, self.limits, self.preset)

    def __call__(self, frame: Frame) -> Result:
        """Inspect one frame. A frame that cannot be inspected gives ``decision: invalid`` with the reason."""
        return self.finish(self.score(self.encode(self.prepare(frame))))

    # The same for one part.

    def prepare_part(self, sample: Sample, watch: Stopwatch) -> PreparedPart:
        """Point operations of one sample.

        Raises
        ------
        InvalidFrame
            Fewer valid pixels than the preset's ``limits.min_valid`` or than one group holds.
        """
        count = int(sample.valid.sum())
        if count < self.preset.limits.min_valid:
            raise InvalidFrame(f"only {count} valid pixels", f"at least {self.preset.limits.min_valid}")
        with watch.stage("points"):
            points = prepare_points(sample, self.preset.points, self.bundle.points_scale_m, self.threads)
            return PreparedPart(sample, points)

    def encode_part(self, part: PreparedPart, watch: Stopwatch, class_name: str) -> EncodedPart:
        """The tables of one part (DESIGN: ``tokens.onnx``) as ``class_name``, or ``auto``.

        Raises
        ------
        EdgeAdError
            Where the tables depend on the class: an unknown one, or ``auto`` without text anchors.
        """
        points = part.points
        with watch.stage("rgb encoder"):
            rgb = self.sessions["rgb"].run({"image": part.sample.rgb[None]})["rgb_tokens"]
        with watch.stage("point encoder"):
            tokens = self.sessions["points"].run({"groups": points.groups[None], "centers": points.centers[None]})
        with watch.stage("tokens"):
            pooled = points.pooled(tokens["point_tokens"])
            return self.tables(part, rgb, pooled, class_name)

    def tables(self, part: PreparedPart, rgb: F32, points: F32, class_name: str) -> EncodedPart:
        """From both token sets to a part's tables."""
        session = self.sessions["tokens"]

        def of(name: str | None) -> EncodedPart:
            tables = token_tables(session, rgb, points, 0 if name is None else self.classes.index(name))
            return EncodedPart(part, tables["rgb_table"], tables["point_table"], levels_of(tables), name)

        if not depends_on_class(session):
            return of(None)
        if class_name == AUTO:
            first = of(self.classes[0])  # its text columns are those of every class
            class_name = self._nearest_class(first)
            if class_name == self.classes[0]:
                return first
        self._check_class(class_name)
        return of(class_name)

    def score_part(self, encoded: EncodedPart, class_name: str, watch: Stopwatch, stride: int | None = None) -> Scored:
        """Distances, map and score of one part as ``class_name`` (``auto``: the class with the nearest anchor).

        ``stride``: at another score stride than the bundle's view.

        Raises
        ------
        EdgeAdError
            An unknown class, or ``auto`` where several classes have no text anchors to tell them apart.
        """
        sample = encoded.part.sample
        args = (self.sessions["score"], encoded.rgb_table, encoded.point_table, sample.valid, encoded.part.points)
        with watch.stage("score"):
            if class_name == AUTO:
                class_name = encoded.class_name or self._nearest_class(encoded)
            self._check_class(class_name)
            if encoded.class_name not in (None, class_name):
                raise EdgeAdError(f"tables of class '{encoded.class_name}'", f"of '{class_name}', which they depend on")
            step = self.bundle.stride if stride is None else stride
            plan = StridePlan(sample.valid, step) if step > 1 else None
            f, index = self.preset.fusion, self.classes.index(class_name)
            # With beta = 0 the text terms are needed for the distance to the anchor alone, and a sample of pixels does.
            rows = None if plan is None else plan.rows
            distances = score_pixels(*args, index, rows=rows, text=f.beta > 0 or self.every_term, levels=encoded.levels)
            if plan is not None:
                distances = {name: plan.spread(values) for name, values in distances.items()}
            flat = np.zeros(sample.valid.shape, dtype=np.float32)
            flat[sample.valid] = fuse(distances, f, self.bundle.balance)
            anchor = _anchor_distance(distances)
            if "text_rgb" not in distances and self.has_text:
                anchor = float(self._class_distances(encoded)[index])
        with watch.stage("map"):
            smoothed = smooth(flat, f, sample.valid)
            score = image_score(smoothed, f)
        return Scored(class_name, smoothed, score, distances, anchor)

    def score_sample(self, sample: Sample, class_name: str = AUTO, watch: Stopwatch | None = None) -> Scored:
        """Run the networks on one sample; raises what :meth:`prepare_part` and :meth:`score_part` do."""
        watch = watch or Stopwatch()
        encoded = self.encode_part(self.prepare_part(sample, watch), watch, class_name)
        return self.score_part(encoded, class_name, watch)

    def _nearest_class(self, encoded: EncodedPart) -> str:
        if len(self.classes) == 1:
            return self.classes[0]
        if not self.has_text:
            raise EdgeAdError(
                "the class 'auto' needs text anchors, and this model has none",
                f"one of {', '.join(self.classes)}",
                "name it with --class",
            )
        return self.classes[int(np.argmin(self._class_distances(encoded)))]

    def _class_distances(self, encoded: EncodedPart) -> NDArray[np.float64]:
        """(C,) mean distance to every class's anchor, on AUTO_PIXELS of the valid pixels."""
        sample = encoded.part.sample
        args = (self.sessions["score"], encoded.rgb_table, encoded.point_table, sample.valid, encoded.part.points)
        count = int(sample.valid.sum())
        some = np.unique(np.linspace(0, count - 1, min(count, AUTO_PIXELS)).round().astype(np.int64))
        return class_distances(*args, len(self.classes), rows=some)


def _anchor_distance(distances: dict[str, F32]) -> float:
    if "text_rgb" not in distances:
        return float("nan")
    return float((distances["text_rgb"].mean(dtype=np.float64) + distances["text_3d"].mean(dtype=np.float64)) / 2)


def scene_of(bundle: Bundle, class_name: str) -> Scene:
    """What a bundle knows of a class's scene."""
    arrays = bundle.scene(class_name) or {}
    setup = SceneSetup.from_array(arrays["setup"], f"{bundle.where}: scene") if "setup" in arrays else None
    return Scene(arrays.get("roi"), arrays.get("expected_depth"), setup)

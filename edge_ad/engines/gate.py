"""The golden gate: an engine is served only if it answers the golden frames as the float32 reference did.

What is asked is :mod:`edge_ad.engines.examine`; how far apart the answers may be :mod:`edge_ad.engines.tolerances`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from edge_ad.bundle import Bundle
from edge_ad.engines.compare import load_sessions, points_of, run_sample, worst_pixel
from edge_ad.engines.cost import golden_preprocessor
from edge_ad.engines.examine import REFERENCE, GateReport, examine
from edge_ad.engines.identity import build_command
from edge_ad.engines.passes import fingerprint, record_path, remember, remembered
from edge_ad.engines.tolerances import TOLERANCES
from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32, Frame
from edge_ad.runtime.backends import Session

logger = logging.getLogger(__name__)


def ensure(
    detector: Any, backend: str, *, say: Callable[[str], None] | None = None, again: bool = False
) -> GateReport | None:
    """Let the golden frames decide about a detector's engine, once a device; a pass is remembered beside the engine.

    Parameters
    ----------
    detector : :class:`edge_ad.runtime.detector.Detector`; its bundle, precision and sessions are read.
    again : ask the golden frames even when they passed before.

    Returns
    -------
    What they said; None where nothing was asked, because the engine passed before on this device, and for float32 ONNX
    Runtime, the reference itself, which is held against the golden maps alone (:func:`check_reference`).

    Raises
    ------
    EdgeAdError
        The engine is refused: every reason, and what to do.
    """
    bundle: Bundle = detector.bundle
    precision: str = detector.precision
    if (backend, precision) == REFERENCE:
        _reference_once(detector, say or logger.info, again)
        return None
    mark = fingerprint(bundle, backend, precision, type(detector).__name__)
    path = record_path(bundle, backend, precision)
    if not again and mark in remembered(path):
        return None
    (say or logger.info)(f"golden frames: holding {backend} in {precision} against the float32 reference")
    sessions, whole = detector.sessions, None
    if not all(hasattr(session, "run") for session in sessions.values()):  # plans inside the device pipeline
        sessions, whole = load_sessions(bundle, backend, precision), partial(_whole, detector)
    report = examine(bundle, sessions, backend, precision, whole=whole)
    if not report.passed:
        named = f"--backend {backend} --precision {precision}"
        remedy = "use --backend onnxruntime --precision fp32"
        if backend.startswith("tensorrt"):
            remedy = f"{build_command(backend, precision, bundle, force=True)}; if it fails again, {remedy}"
        remedy += f", or see where it differs: edge-ad verify {bundle.path} {named}"
        if report.reference_fault:  # then no backend gives the right answer
            remedy = "run edge-ad export again"
        raise EdgeAdError(
            f"{backend} in {precision} does not answer the golden frames of {bundle.where}: {'; '.join(report.faults)}",
            "the reference's answers",
            f"the engine is not served; {remedy}",
        )
    remember(path, mark, report.to_dict())
    return report


def _whole(detector: Any, frame: Frame, class_name: str) -> tuple[F32, float]:
    """A golden frame through the detector's own way."""
    scored = detector.score_sample(detector.preprocess(frame, class_name).samples[0], class_name)
    return scored.map, scored.score


def _reference_once(detector: Any, say: Callable[[str], None], again: bool) -> None:
    """:func:`check_reference`, once a machine and set of files."""
    bundle: Bundle = detector.bundle
    mark, path = fingerprint(bundle, *REFERENCE, limits=False), record_path(bundle, *REFERENCE)
    if not again and mark in remembered(path):
        return
    say("golden frames: holding the float32 graphs against the bundle's answers")
    worst = check_reference(bundle, detector.sessions)
    remember(path, mark, {"worst_pixel": worst}, logging.INFO)


def check_reference(bundle: Bundle, sessions: Mapping[str, Session]) -> float:
    """Hold the bundle's own float32 graphs, in ONNX Runtime, against its golden maps.

    Parameters
    ----------
    sessions : of the four graphs.

    Returns
    -------
    The largest difference of a pixel, relative to its map's maximum.

    Raises
    ------
    EdgeAdError
        They give other maps: a graph is not the one that was exported, or is run wrongly here.
    """
    preprocess, worst = golden_preprocessor(bundle), 0.0
    for golden in bundle.golden():
        sample = preprocess(golden.frame, golden.class_name).samples[0]
        index = bundle.class_names.index(golden.class_name)
        found = run_sample(bundle, sessions, sample, points_of(bundle, sample), index)
        error = worst_pixel(found.map, golden.map)[0]
        if not error <= TOLERANCES["fp32"].graph_error:
            raise EdgeAdError(
                f"{bundle.where}: its float32 graphs give another map of golden frame {golden.name} (by {error:.1e})",
                f"its golden map, within {TOLERANCES['fp32'].graph_error:.0e}",
                "run edge-ad export again",
            )
        worst = max(worst, error)
    return worst

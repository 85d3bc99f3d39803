"""The golden gate: an engine is served only if it answers the golden frames as the float32 reference did.

What is asked is :mod:`edge_ad.engines.examine`; how far apart the answers may be :mod:`edge_ad.engines.tolerances`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from edge_ad.bundle import Bundle
from edge_ad.engines.compare import load_sessions
from edge_ad.engines.examine import REFERENCE, GateReport, examine
from edge_ad.engines.identity import build_command
from edge_ad.engines.passes import fingerprint, record_path, remember, remembered
from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32, Frame

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
    What they said; None where nothing was asked: float32 ONNX Runtime on a CPU (the reference itself), or an engine
    that passed before on this device.

    Raises
    ------
    EdgeAdError
        The engine is refused: every reason, and what to do.
    """
    bundle: Bundle = detector.bundle
    precision: str = detector.precision
    if (backend, precision) == REFERENCE:
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
        remedy = "use --backend onnxruntime --precision fp32"
        if backend.startswith("tensorrt"):
            remedy = f"{build_command(backend, precision, bundle, force=True)}; if it fails again, {remedy}"
        raise EdgeAdError(
            f"{backend} in {precision} does not answer the golden frames of {bundle.where}: {'; '.join(report.faults)}",
            "the reference's answers",
            f"the engine is not served; {remedy}, or see where it differs: edge-ad verify {bundle.path} --backend "
            f"{backend} --precision {precision}",
        )
    remember(path, mark, report.to_dict())
    return report


def _whole(detector: Any, frame: Frame, class_name: str) -> tuple[F32, float]:
    """A golden frame through the detector's own way."""
    scored = detector.score_sample(detector.preprocess(frame, class_name).samples[0], class_name)
    return scored.map, scored.score
